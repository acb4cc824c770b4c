// The browser's half of `digits_kit.capture.Capture`: camera, preview, gestures, and the pictures' way to the kernel.
// One plain ES module for anywidget; what can be computed without a browser is exported and tested under node.

const ROWS = 24, COLS = 32; // blocks of a thumbnail, as in `digits_kit.capture.thumbnail`
const QUALITY = .92; // of the JPEG
const QUEUE_MAX = 30; // pictures that may wait for the kernel
const HOLD_AFTER = 350, HOLD_EVERY = 150; // ms
const KEPT_MAX = 40; // pictures that can be undone
const PYTHON = 'python:0'; // the camera that the kernel reads

// ---------------------------------------------------------------------------------------------------- frame maths

// The largest centred box of the shape w:h in a picture of vw x vh pixels: [x, y, width, height].
export function cropBox(vw, vh, w, h) {
  const scale = Math.min(vw/w, vh/h);
  return [(vw - w*scale)/2, (vh - h*scale)/2, w*scale, h*scale];
}

// Arguments of `setTransform` for drawing as the camera sees it, or as a mirror shows it.
export function transform(mirrored, w) {
  return mirrored ? [-1, 0, 0, 1, w, 0] : [1, 0, 0, 1, 0, 0];
}

// Grey means of 24 x 32 blocks of a picture, row by row; `rgba` as in `ImageData.data`.
export function thumbnail(rgba, w, h) {
  const sums = new Float64Array(ROWS*COLS);
  for (let y = 0, i = 0; y < h; y++) {
    const row = Math.floor(y*ROWS/h)*COLS;
    for (let x = 0; x < w; x++, i += 4) {
      sums[row + Math.floor(x*COLS/w)] += .299*rgba[i] + .587*rgba[i + 1] + .114*rgba[i + 2];
    }
  }
  return sums.map(o => o*ROWS*COLS/(w*h));
}

// Mean absolute difference of two thumbnails after taking each one's mean away, in grey levels.
export function frameChange(a, b) {
  const mean = o => o.reduce((x, y) => x + y, 0)/o.length;
  const ma = mean(a), mb = mean(b);
  return a.reduce((sum, o, i) => sum + Math.abs((o - ma) - (b[i] - mb)), 0)/a.length;
}

// ---------------------------------------------------------------------------------------------------------- words

const THROUGH = 'choose "This computer\'s camera, through Python" below';

// What to tell a student when the camera does not start, always with the way out.
export function cameraMessage(error, { vscode = false, address = '' } = {}) {
  const { name = 'Error', message = '' } = error;
  if (vscode) return `VS Code gives a notebook no camera. Either ${THROUGH}, or open this notebook in your browser `
    + 'with the command: jupyter lab';
  switch (name) {
    case 'InsecureOrigin': return `This page comes from ${address || 'another computer'} without encryption, and browsers give `
      + 'such pages no camera. Open the notebook at an address that begins with http://localhost or with https://.';
    case 'NotAllowedError': case 'SecurityError':
      if (/system/i.test(message)) return 'The operating system keeps the camera from the browser. Allow it: on Windows in Settings, '
        + 'Privacy & security, Camera; on a Mac in System Settings, Privacy & Security, Camera. Then press "Try again".';
      return 'The browser may not use the camera. Click the camera or lock sign beside the address of this page, set '
        + `Camera to "Allow", and press "Try again". In VS Code notebooks have no camera: ${THROUGH}.`;
    case 'NotFoundError': case 'OverconstrainedError':
      return 'No camera was found. Plug one in or switch it on (some laptops have a switch or a slider), then press "Try again".';
    case 'NotReadableError': case 'AbortError':
      return 'The camera is there but does not start: most likely another program uses it. Close Zoom, Teams, Skype and other '
        + 'pages with a camera, then press "Try again".';
    case 'CameraLost': return 'The camera has stopped: it was unplugged, or another program has taken it. '
      + 'Plug it in again, then press "Try again". All pictures taken before are safe.';
    case 'PythonCamera': return `${message} Then press "Try again".`;
    default: return `The camera did not start (${name}: ${message}). Press "Try again", or choose another camera below.`;
  }
}

const phrase = (condition, value) => value.includes(condition) ? value : `${value} ${condition}`;

// One line on what this split still lacks: the first missing value of each condition.
export function advice(choices, covered, split) {
  const missing = Object.entries(choices).flatMap(([condition, values]) =>
    values.filter(o => !covered[split]?.[condition]?.[o]).map((o, i) => ({ text: phrase(condition, o), i })));
  if (!missing.length) return `Everything is covered in ${split}: well done.`;
  const first = missing.filter(o => o.i === 0).map(o => o.text).join(', ');
  const more = missing.filter(o => o.i > 0).length;
  return `Still missing in ${split}: ${first}${more ? ` and ${more} more` : ''}.`;
}

// A `Date` as local time without zone, to the second, as it stands in the manifest.
export function localTime(date) {
  return new Date(date.getTime() - date.getTimezoneOffset()*60000).toISOString().slice(0, 19);
}

export const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

// ------------------------------------------------------------------------------------------------- to the kernel

// Messages to the kernel, one at a time: the next goes out after the reply to the one before. A message without a
// reply is sent again and again with the same id; nothing is dropped.
export class Outbox {
  constructor(send, changed = () => {}, patience = 10000) {
    Object.assign(this, { send, changed, patience, waiting: [], silent: false, name: Math.random().toString(36).slice(2, 8), n: 0 });
  }

  get length() { return this.waiting.length; }

  // Queue `message` for the trait; resolves to the kernel's reply.
  post(trait, message) {
    return new Promise(resolve => {
      this.waiting.push({ trait, resolve, tries: 0, message: { ...message, id: `${this.name}-${this.n++}` } });
      if (this.length === 1) this.next();
      this.changed();
    });
  }

  next() {
    clearTimeout(this.timer);
    if (!this.length) return;
    const first = this.waiting[0];
    this.timer = setTimeout(() => this.retry(), this.patience);
    this.send(first.trait, { ...first.message, attempt: first.tries++ }); // a repeated value would not be sent
  }

  retry() {
    this.silent = true;
    this.next();
    this.changed();
  }

  answer(reply) {
    if (!this.length || reply.id !== this.waiting[0].message.id) return; // the reply to an earlier attempt
    const { resolve } = this.waiting.shift();
    this.silent = false;
    resolve(reply);
    this.next();
    this.changed();
  }

  stop() { clearTimeout(this.timer); }
}

// --------------------------------------------------------------------------------------------------------- cameras

// A camera is {name, key, image, size(), time(), stop()}: `image` can be drawn, a new `time()` means a new frame.
async function browserCamera(key, [h, w], lost) {
  if (!navigator.mediaDevices) throw { name: 'InsecureOrigin' };
  const video = { width: { ideal: w }, height: { ideal: h }, ...(key && { deviceId: { exact: key } }) };
  const stream = await navigator.mediaDevices.getUserMedia({ video });
  const [track] = stream.getTracks();
  const image = Object.assign(document.createElement('video'), { srcObject: stream, muted: true, playsInline: true });
  const stop = () => {
    track.stop();
    image.srcObject = null;
  };
  try {
    await image.play();
  } catch (error) {
    stop();
    throw error;
  }
  track.addEventListener('ended', () => lost({ name: 'CameraLost' }));
  return { name: track.label, key: track.getSettings().deviceId, image, stop, time: () => image.currentTime,
    size: () => [image.videoWidth, image.videoHeight] };
}

// The kernel opens the camera and sends a picture whenever the view asks for one; the view asks after drawing.
async function pythonCamera(key, model, outbox, lost) {
  const reply = await outbox.post('command', { do: 'open', camera: key.split(':')[1] });
  if (!reply.ok) throw { name: 'PythonCamera', message: reply.message };
  let time = 0, timer;
  const camera = { name: reply.message, key, image: null, time: () => time, size: () => [camera.image.width, camera.image.height] };
  const ask = () => {
    model.send({ do: 'frame' });
    timer = setTimeout(ask, 2000); // the answer may be lost, or the kernel busy
  };
  const receive = async (message, buffers) => {
    if (message.lost) return lost({ name: 'PythonCamera', message: message.lost });
    if (!message.frame) return;
    clearTimeout(timer);
    camera.image = await createImageBitmap(new Blob(buffers, { type: 'image/jpeg' }));
    time = message.frame;
    requestAnimationFrame(ask);
  };
  camera.stop = () => {
    clearTimeout(timer);
    ask = () => {};
    model.off('msg:custom', receive);
    model.send({ do: 'close' });
  };
  model.on('msg:custom', receive);
  ask();
  return camera;
}
