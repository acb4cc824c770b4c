// The camera of a widget: frames from the browser or from the kernel, drawn as they would be saved, and what to say
// when there are none.
import { button, enable, hide, make, setText } from './ui.js';

const ROWS = 24, COLS = 32; // blocks of a thumbnail, as in `digits_kit.frames.thumbnail`
const PYTHON = 'python:0', PYTHON_NAME = 'this computer\'s camera, through Python';

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

// Grey means of 24 x 32 blocks that are as equal as can be, row by row; `rgba` as in `ImageData.data`.
export function thumbnail(rgba, w, h) {
  const sums = new Float64Array(ROWS*COLS), sizes = new Float64Array(ROWS*COLS);
  for (let y = 0, i = 0; y < h; y++) {
    const row = (Math.ceil((y + 1)*ROWS/h) - 1)*COLS;
    for (let x = 0; x < w; x++, i += 4) {
      const block = row + Math.ceil((x + 1)*COLS/w) - 1;
      sums[block] += .299*rgba[i] + .587*rgba[i + 1] + .114*rgba[i + 2];
      sizes[block]++;
    }
  }
  return sums.map((sum, i) => sum/sizes[i]);
}

// Mean absolute difference of two thumbnails after taking each one's mean away, in grey levels.
export function frameChange(a, b) {
  const mean = values => values.reduce((x, y) => x + y, 0)/values.length;
  const ma = mean(a), mb = mean(b);
  return a.reduce((sum, grey, i) => sum + Math.abs((grey - ma) - (b[i] - mb)), 0)/a.length;
}

// ---------------------------------------------------------------------------------------------------------- words

const THROUGH = `choose "${PYTHON_NAME}" below`;

// What to tell a student when the camera does not start, always with the way out.
export function cameraMessage(error, { vscode = false, address = '' } = {}) {
  const { name = 'Error', message = '' } = error;
  if (vscode) return `VS Code gives a notebook no camera. Either ${THROUGH}, or open this notebook in your browser `
    + 'with the command: jupyter lab';
  switch (name) {
    case 'InsecureOrigin':
      return `This page comes from ${address || 'another computer'} without encryption, and browsers give such pages `
        + 'no camera. Open the notebook at an address that begins with http://localhost or with https://.';
    case 'NotAllowedError': case 'SecurityError':
      if (/system/i.test(message)) {
        return 'The operating system keeps the camera from the browser. Allow it: on Windows in Settings, Privacy & '
          + 'security, Camera; on a Mac in System Settings, Privacy & Security, Camera. Then press "Try again".';
      }
      return 'This page may not use the camera. Click the camera or lock sign beside the address of this page, set '
        + `Camera to "Allow", and press "Try again". In VS Code notebooks have no camera: ${THROUGH}.`;
    case 'NotFoundError': case 'OverconstrainedError':
      return 'No camera was found. Plug one in or switch it on (some laptops have a switch or a slider), then press '
        + '"Try again".';
    case 'NotReadableError': case 'AbortError':
      return 'The camera is there but does not start: most likely another program uses it. Close Zoom, Teams, Skype '
        + 'and other pages with a camera, then press "Try again".';
    case 'CameraLost':
      return 'The camera has stopped: it was unplugged, or another program has taken it. Plug it in again, then press '
        + '"Try again". All pictures taken before are safe.';
    case 'PythonCamera': return `${message} Then press "Try again".`;
    default:
      return `The camera did not start (${name}: ${message}). Press "Try again", or choose another camera below.`;
  }
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
async function pythonCamera(key, link, lost) {
  const { model } = link;
  const reply = await link.post({ do: 'open', camera: key.split(':')[1] });
  if (!reply.ok) throw { name: 'PythonCamera', message: reply.message };
  let time = 0, timer, open = true;
  const ask = () => {
    clearTimeout(timer);
    if (!open) return;
    model.send({ do: 'frame' });
    timer = setTimeout(ask, 2000); // the kernel may be busy, or the answer lost
  };
  const receive = async (message, buffers) => {
    if (message.lost) lost({ name: 'PythonCamera', message: message.lost });
    if (!message.frame) return;
    camera.image = await createImageBitmap(new Blob(buffers, { type: 'image/jpeg' }));
    time = message.frame;
    requestAnimationFrame(ask);
  };
  const stop = () => {
    open = false;
    clearTimeout(timer);
    model.off('msg:custom', receive);
    model.send({ do: 'close' });
  };
  const camera = { name: PYTHON_NAME, key, image: null, stop, time: () => time,
    size: () => [camera.image.width, camera.image.height] };
  model.on('msg:custom', receive);
  ask();
  return camera;
}

// --------------------------------------------------------------------------------------------------------- preview

// The picture of the camera, with a card over it that starts the camera and says what is wrong, and the list of
// cameras. `started`, `stopped` and `changed` are called when the camera is on, is going off, and when anything that
// can be seen has changed. Of the widget's traits it reads `size` and `mirrored`.
export class Preview {
  constructor(link, { started = () => {}, stopped = () => {}, changed = () => {} } = {}) {
    Object.assign(this, { link, started, stopped, changed });
    this.camera = null; // what delivers frames now
    this.live = false; // true when the canvas shows a frame of this camera
    this.problem = null; // why there is no camera
    this.starting = false;
    this.asked = 0; // number of the newest request for a camera: a late answer to an older one is stopped
    this.over = new AbortController(); // aborted when the widget goes
    this.build();
    const { signal } = this.over;
    window.addEventListener('pagehide', () => this.stop(), { signal });
    navigator.mediaDevices?.addEventListener('devicechange', () => this.listCameras(), { signal });
    this.listCameras();
  }

  get size() { return this.link.model.get('size'); }

  build() {
    const [h, w] = this.size;
    this.canvas = make('canvas', { width: w, height: h });
    this.pen = this.canvas.getContext('2d', { willReadFrequently: true });
    this.text = make('p', { role: 'alert' });
    this.go = button('', () => this.act(), { className: 'dc-main' });
    this.card = make('div', { className: 'dc-card' }, this.text, this.go);
    this.stage = make('div', { className: 'dc-stage', tabIndex: 0, role: 'group' }, this.canvas, this.card);
    this.cameras = make('select', { 'aria-label': 'Camera', onchange: () => this.pick() });
  }

  // What the canvas shows, as numbers.
  pixels() {
    const { width, height } = this.canvas;
    return this.pen.getImageData(0, 0, width, height).data;
  }

  // Show or hide the card. A `notice` of the widget comes first; `action` is {text, click} of its button, null = none.
  draw(notice = '', action = null) {
    const asking = this.starting ? 'If the browser asks whether this page may use the camera: allow it.' : '';
    this.act = action?.click ?? (() => this.pick());
    setText(this.text, notice || this.problem || asking);
    setText(this.go, action?.text ?? (this.starting ? 'Starting …' : this.problem ? 'Try again' : 'Start camera'));
    this.card.dataset.tone = notice || this.problem ? 'bad' : '';
    hide(this.card, this.camera && !notice, this.stage);
    hide(this.go, notice && !action, this.stage);
    enable(this.go, !this.starting, this.stage);
  }

  pick() {
    this.stage.focus();
    return this.start(this.cameras.value);
  }

  async start(key) {
    const asked = ++this.asked;
    this.drop();
    this.problem = null;
    this.starting = true;
    this.changed();
    const lost = error => asked === this.asked && this.stop(error);
    try {
      const camera = await (key.startsWith('python') ? pythonCamera(key, this.link, lost)
        : browserCamera(key, this.size, lost));
      if (asked !== this.asked) return camera.stop();
      this.camera = camera;
      this.started();
      requestAnimationFrame(() => this.paint(camera, -1));
    } catch (error) {
      if (asked !== this.asked) return;
      const vscode = location.protocol === 'vscode-webview:' && !key.startsWith('python');
      this.problem = cameraMessage(error, { vscode, address: location.host });
    }
    this.starting = false;
    this.listCameras();
    this.changed();
  }

  drop() {
    this.stopped();
    this.camera?.stop();
    this.camera = null;
    this.live = false;
  }

  stop(error) {
    this.asked++;
    this.starting = false;
    this.problem = error ? cameraMessage(error) : null;
    this.drop();
    this.changed();
  }

  async listCameras() {
    const found = await navigator.mediaDevices?.enumerateDevices() ?? [];
    const named = found.filter(o => o.kind === 'videoinput' && o.label).map(o => [o.deviceId, o.label]);
    const options = [...(named.length ? named : [['', 'the browser\'s camera']]), [PYTHON, PYTHON_NAME]];
    const value = this.camera?.key ?? this.cameras.value;
    this.cameras.replaceChildren(...options.map(([key, name]) => make('option', { value: key }, name)));
    if (options.some(([key]) => key === value)) this.cameras.value = value;
  }

  // Draw every new frame just as it would be saved.
  paint(camera, drawn) {
    if (camera !== this.camera) return;
    if (!this.canvas.isConnected) return this.stop();
    const time = camera.time();
    if (camera.image && time !== drawn) {
      const { width, height } = this.canvas;
      this.pen.setTransform(...transform(this.link.model.get('mirrored'), width));
      this.pen.drawImage(camera.image, ...cropBox(...camera.size(), width, height), 0, 0, width, height);
      this.live = true;
    }
    requestAnimationFrame(() => this.paint(camera, time));
  }

  close() {
    this.over.abort();
    this.stop();
  }
}
