// The browser's half of `digits_kit.capture.Capture`: camera, preview, gestures, and the pictures' way to the kernel.
// One plain ES module for anywidget; what can be computed without a browser is exported and tested under node.

const ROWS = 24, COLS = 32; // blocks of a thumbnail, as in `digits_kit.sessions.thumbnail`
const QUALITY = .92; // of the JPEG
const QUEUE_MAX = 30; // pictures that may wait for the kernel
const HOLD_AFTER = 350, HOLD_EVERY = 150; // ms
const KEPT_MAX = 40; // pictures that can be undone
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
  return sums.map((o, i) => o/sizes[i]);
}

// Mean absolute difference of two thumbnails after taking each one's mean away, in grey levels.
export function frameChange(a, b) {
  const mean = o => o.reduce((x, y) => x + y, 0)/o.length;
  const ma = mean(a), mb = mean(b);
  return a.reduce((sum, o, i) => sum + Math.abs((o - ma) - (b[i] - mb)), 0)/a.length;
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

const NOUNS = { angle: 'view' };
const phrase = (condition, value) => value.includes(condition) ? value : `${value} ${NOUNS[condition] ?? condition}`;

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
    Object.assign(this, { send, changed, patience, waiting: [], silent: false, n: 0 });
    this.name = Math.random().toString(36).slice(2, 8);
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

// -------------------------------------------------------------------------------------------------------- the view

function make(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const button = (text, click, props = {}) =>
  make('button', { type: 'button', onclick: click, ...props }, ...[text].flat());
const group = (name, ...children) =>
  make('div', { className: 'dc-group', role: 'group', 'aria-label': name }, ...children);
const isTyping = node => node.matches('input, select, textarea');

class View {
  constructor(model) {
    this.model = model;
    this.over = new AbortController(); // aborted when the view goes
    this.outbox = new Outbox((trait, message) => this.set(trait, message), () => this.draw());
    this.camera = null; // what delivers frames now
    this.asked = 0; // number of the newest request for a camera: a late answer to an older one is stopped
    this.gesture = null; // a single shot, hold or burst that goes on
    this.kept = null; // thumbnail of the last picture kept
    this.taken = []; // {url, path} of what this view saved, for the undo
    this.askPerson = !this.get('person');
    this.build();
    this.listen();
    this.draw();
  }

  get(name) { return this.model.get(name); }

  set(name, value) {
    this.model.set(name, value);
    try {
      this.model.save_changes();
    } catch (error) {
      this.outbox.silent = true; // the connection is gone; the outbox tries again
    }
  }

  say(text, tone = '') {
    this.ui.status.textContent = text;
    this.ui.status.dataset.tone = tone;
  }

  // ------------------------------------------------------------------------------------------------------ build

  build() {
    const [h, w] = this.get('size');
    this.canvas = make('canvas', { width: w, height: h });
    this.pen = this.canvas.getContext('2d', { willReadFrequently: true });
    this.ui = {};
    this.root = make('div', { className: 'digits-capture' }, make('div', { className: 'dc-frame' },
      this.buildTop(), this.buildStage(), this.buildShutter(), this.buildTray(), this.buildSide(), this.buildMore()));
  }

  buildTop() {
    const { ui } = this;
    const id = `dc-${this.outbox.name}`;
    ui.name = make('input', { id, type: 'text', placeholder: 'first name', autocomplete: 'off', spellcheck: false });
    ui.form = make('form', { onsubmit: event => this.setPerson(event) },
      make('label', { htmlFor: ui.name.id }, 'Whose hand is it?'), ui.name, make('button', { type: 'submit' }, 'OK'));
    ui.who = make('b');
    ui.session = make('span', { className: 'dc-quiet' });
    ui.change = button('change', () => this.changePerson(), { className: 'dc-link', title: 'Another person' });
    ui.person = make('div', { className: 'dc-person' }, ui.who, ui.change, ui.session);
    ui.splits = this.get('splits').map(o => button(o, () => this.choose('split', o)));
    ui.alarm = make('p', { className: 'dc-alarm', role: 'alert' });
    return make('div', { className: 'dc-top' }, ui.form, ui.person, group('Pictures for', ...ui.splits), ui.alarm);
  }

  buildStage() {
    const { ui } = this;
    ui.count = make('div', { className: 'dc-count', 'aria-hidden': 'true' });
    ui.badge = make('div', { className: 'dc-badge', 'aria-hidden': 'true' });
    ui.hint = make('div', { className: 'dc-hint', 'aria-hidden': 'true' }, 'click the picture to use the keys');
    ui.text = make('p', { role: 'alert' });
    ui.go = button('', () => this.go(), { className: 'dc-main' });
    ui.card = make('div', { className: 'dc-card' }, ui.text, ui.go);
    const keys = 'Preview. Keys: 1 to 9 label, space picture, hold space record, b burst, u undo, escape stops';
    this.stage = make('div', { className: 'dc-stage', tabIndex: 0, role: 'group', 'aria-label': keys },
      this.canvas, ui.badge, ui.hint, ui.count, ui.card);
    return this.stage;
  }

  buildShutter() {
    const { ui } = this;
    const number = (name, min, max, step) => make('input', { type: 'number', min, max, step, value: this.get(name),
      onchange: event => this.setNumber(name, event.target) });
    ui.shoot = button([make('span', { className: 'dc-dot' }), 'Take', make('kbd', {}, 'space')], null,
      { className: 'dc-main', title: 'Click: one picture. Hold: record.' });
    ui.burst = button('', () => this.burst());
    ui.n = number('burst_n', 2, 50, 1);
    ui.every = number('every', .2, 5, .1);
    return make('div', { className: 'dc-shutter dc-row' }, ui.shoot, ui.burst,
      make('span', {}, make('label', {}, 'of ', ui.n), make('label', {}, ' every ', ui.every, ' s')));
  }

  buildMore() {
    const { ui } = this;
    ui.wait = [0, 3, 5].map(o => button(o ? `${o} s` : 'none', () => this.choose('countdown', o)));
    ui.mirror = button('', () => this.choose('mirrored', !this.get('mirrored')), { role: 'switch' });
    ui.cameras = make('select', { 'aria-label': 'Camera', onchange: () => this.pickCamera() });
    ui.locked = make('span', { className: 'dc-quiet' });
    return make('div', { className: 'dc-more dc-row' }, make('span', {}, 'Countdown'), group('Countdown', ...ui.wait),
      ui.mirror, ui.cameras, ui.locked);
  }

  buildSide() {
    const { ui } = this;
    ui.labels = this.get('labels').map((label, i) => this.buildLabel(label, i));
    ui.values = Object.entries(this.get('choices')).map(([condition, values]) => ({ condition,
      chips: values.map(value => ({ value, chip: button(value, () => this.setCondition(condition, value)) })) }));
    ui.advice = make('p', { className: 'dc-advice' });
    const legend = make('span', { className: 'dc-quiet dc-missing' }, 'still missing');
    const rows = ui.values.map(({ condition, chips }) =>
      make('div', { className: 'dc-row' }, make('span', {}, condition), group(condition, ...chips.map(o => o.chip))));
    return make('div', { className: 'dc-side' },
      make('div', { className: 'dc-labels', role: 'group', 'aria-label': 'Label' }, ...ui.labels.map(o => o.row)),
      make('div', { className: 'dc-now' }, make('h4', {}, 'In the picture now', legend), ...rows),
      ui.advice);
  }

  buildLabel(label, i) {
    const bar = make('i'), count = make('span', { className: 'dc-n' });
    const key = i < 9 ? [make('kbd', {}, String(i + 1))] : [];
    const row = button([...key, make('b', {}, label), make('span', { className: 'dc-bar' }, bar), count],
      () => this.choose('label', label));
    return { label, row, bar, count };
  }

  buildTray() {
    const { ui } = this;
    ui.last = make('img', { alt: 'the last picture' });
    ui.path = make('span', { className: 'dc-path' });
    ui.undo = button(['Undo', make('kbd', {}, 'u')], () => this.undo());
    ui.undo.title = 'Move the last picture into quarantine';
    ui.skipped = make('span', { className: 'dc-quiet' });
    ui.status = make('p', { className: 'dc-status', role: 'status', 'aria-live': 'polite' });
    const below = make('div', { className: 'dc-row' }, ui.path, ui.skipped);
    return make('div', { className: 'dc-tray' }, ui.last, make('div', {}, ui.status, below), ui.undo);
  }

  // ----------------------------------------------------------------------------------------------------- listen

  listen() {
    const { signal } = this.over;
    const on = (node, name, call, capture = false) => node.addEventListener(name, call, { signal, capture });
    on(window, 'pagehide', () => this.stopCamera());
    on(window, 'blur', () => this.release());
    on(window, 'beforeunload', event => this.outbox.length && event.preventDefault());
    // JupyterLab leaves keys alone below an element with this attribute; Ctrl+S shall still save the notebook.
    const mine = event => this.root.toggleAttribute('data-lm-suppress-shortcuts', !isCommand(event));
    on(window, 'keydown', mine, true);
    on(this.root, 'keydown', event => this.keydown(event));
    on(this.root, 'keyup', event => this.keyup(event));
    on(this.root, 'click', event => event.detail && !isTyping(event.target) && this.stage.focus());
    on(this.root, 'focusin', () => this.root.classList.add('dc-active'));
    on(this.root, 'focusout', event => !this.root.contains(event.relatedTarget) && this.leave());
    on(this.ui.shoot, 'pointerdown', event => event.button === 0 && this.press());
    for (const name of ['pointerup', 'pointercancel', 'pointerleave']) on(this.ui.shoot, name, () => this.release());
    if (navigator.mediaDevices) on(navigator.mediaDevices, 'devicechange', () => this.listCameras());
    this.changed = () => {
      if (this.get('notice')) this.stop();
      this.draw();
    };
    this.replied = () => this.outbox.answer(this.get('reply'));
    this.model.on('change', this.changed);
    this.model.on('change:reply', this.replied);
    this.listCameras();
  }

  keydown(event) {
    if (isCommand(event)) return;
    event.stopPropagation(); // older notebooks and VS Code listen further out
    if (event.key === 'Escape') this.release(true);
    if (event.key === 'Enter' && event.target.type === 'number') this.stage.focus();
    if (isTyping(event.target) || event.repeat) return;
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code); // where the key is: on a French keyboard 1 needs Shift
    if (digit) this.chooseLabel(digit[1] - 1);
    else if (event.key === 'b') this.burst();
    else if (event.key === 'u') this.undo();
    else if (event.key === ' ' && this.isShutter(event.target)) this.press();
    else return;
    event.preventDefault();
  }

  keyup(event) {
    if (event.key !== ' ' || !this.isShutter(event.target)) return;
    event.preventDefault(); // no click on the button after this
    this.release();
  }

  // Space on any other button presses that button.
  isShutter(node) { return node === this.stage || node === this.ui.shoot; }

  leave() {
    this.root.classList.remove('dc-active');
    this.release();
  }

  // ---------------------------------------------------------------------------------------------------- choices

  choose(name, value) {
    this.stop();
    this.set(name, value);
  }

  chooseLabel(i) {
    const label = this.get('labels')[i];
    if (label && !this.get('notice')) this.choose('label', label);
  }

  setCondition(condition, value) {
    const { [condition]: old, ...rest } = this.get('conditions');
    this.choose('conditions', old === value ? rest : { ...rest, [condition]: value }); // a second click takes it back
  }

  setNumber(name, input) {
    const value = Math.min(input.max, Math.max(input.min, input.valueAsNumber || this.get(name)));
    input.value = input.step === '1' ? Math.round(value) : value;
    this.choose(name, input.valueAsNumber);
  }

  setPerson(event) {
    event.preventDefault();
    const name = this.ui.name.value.trim();
    if (!name) return this.ui.name.focus();
    this.askPerson = false;
    this.choose('person', name);
    this.draw();
    this.stage.focus();
  }

  changePerson() {
    this.askPerson = true;
    this.ui.name.value = this.get('person');
    this.draw();
    this.ui.name.select();
  }

  async command(message) {
    const reply = await this.outbox.post('command', message);
    this.say(reply.message, reply.ok ? '' : 'bad');
    return reply;
  }

  newSession() {
    this.kept = null;
    return this.command({ do: 'new_session', taken_at: localTime(new Date()) });
  }

  async undo() {
    if (this.ui.undo.disabled) return;
    this.stop();
    const reply = await this.command({ do: 'undo' });
    this.kept = null; // the next frame is compared with nothing
    if (!reply.ok) return;
    URL.revokeObjectURL(this.taken.pop()?.url);
    this.draw();
  }

  // ----------------------------------------------------------------------------------------------------- camera

  pickCamera() {
    this.stage.focus();
    return this.start(this.ui.cameras.value);
  }

  go() {
    if (this.get('notice') && !this.askPerson) return this.newSession();
    return this.pickCamera();
  }

  async start(key) {
    const asked = ++this.asked;
    this.dropCamera();
    this.problem = null;
    this.starting = true;
    this.draw();
    const lost = error => asked === this.asked && this.stopCamera(error);
    try {
      const camera = await (key.startsWith('python') ? pythonCamera(key, this.model, this.outbox, lost)
        : browserCamera(key, this.get('size'), lost));
      if (asked !== this.asked) return camera.stop();
      this.camera = camera;
      this.kept = null;
      this.say('The camera is on.');
      requestAnimationFrame(() => this.paint(camera, -1));
    } catch (error) {
      if (asked !== this.asked) return;
      const vscode = location.protocol === 'vscode-webview:' && !key.startsWith('python');
      this.problem = cameraMessage(error, { vscode, address: location.host });
    }
    this.starting = false;
    this.listCameras();
    this.draw();
  }

  dropCamera() {
    this.stop();
    this.camera?.stop();
    this.camera = null;
    this.live = false; // true when the preview shows a frame of this camera
  }

  stopCamera(error) {
    this.asked++;
    this.starting = false;
    this.problem = error ? cameraMessage(error) : null;
    this.dropCamera();
    this.draw();
  }

  async listCameras() {
    const found = await navigator.mediaDevices?.enumerateDevices() ?? [];
    const named = found.filter(o => o.kind === 'videoinput' && o.label).map(o => [o.deviceId, o.label]);
    const options = [...(named.length ? named : [['', 'the browser\'s camera']]), [PYTHON, PYTHON_NAME]];
    const value = this.camera?.key ?? this.ui.cameras.value;
    this.ui.cameras.replaceChildren(...options.map(([key, name]) => make('option', { value: key }, name)));
    if (options.some(([key]) => key === value)) this.ui.cameras.value = value;
  }

  // Draw every new frame just as it would be saved.
  paint(camera, drawn) {
    if (camera !== this.camera) return;
    if (!this.root.isConnected) return this.stopCamera();
    const time = camera.time();
    if (camera.image && time !== drawn) {
      const { width, height } = this.canvas;
      this.pen.setTransform(...transform(this.get('mirrored'), width));
      this.pen.drawImage(camera.image, ...cropBox(...camera.size(), width, height), 0, 0, width, height);
      this.live = true;
    }
    requestAnimationFrame(() => this.paint(camera, time));
  }

  // --------------------------------------------------------------------------------------------------- gestures

  // Why no picture can be taken now, '' = one can.
  hindrance() {
    if (this.askPerson) return 'First say whose hand it is.';
    if (this.get('notice')) return this.get('notice');
    if (!this.camera) return 'First start the camera.';
    if (this.outbox.length >= QUEUE_MAX) return `${plural(QUEUE_MAX, 'picture')} wait to be saved: no more until then.`;
    return '';
  }

  // Run one gesture: countdown, then `take` pictures until it is over. A second one in the meantime ends the first.
  async run(name, take) {
    if (this.gesture) return this.stop();
    const hindrance = this.hindrance();
    if (hindrance) return this.say(hindrance, 'bad');
    const stopper = new AbortController();
    const gesture = this.gesture = { name, stopper, signal: stopper.signal, id: `${this.outbox.name}-${Date.now()}`,
      kept: 0, skipped: 0, label: this.get('label'), split: this.get('split') };
    this.draw();
    await this.countDown(gesture);
    if (!gesture.signal.aborted) await take(gesture);
    if (this.gesture === gesture) this.gesture = null;
    this.sayResult(gesture);
    this.draw();
  }

  async countDown(gesture) {
    for (let n = this.get('countdown'); n > 0 && !gesture.signal.aborted; n--) {
      this.ui.count.textContent = n;
      await pause(1000, gesture.signal);
    }
    this.ui.count.textContent = '';
    gesture.counted = true;
  }

  press() {
    this.held = true;
    return this.run('hold', async gesture => {
      await this.take(gesture);
      await pause(HOLD_AFTER, gesture.signal);
      while (this.held && !gesture.signal.aborted) {
        await this.take(gesture);
        await pause(HOLD_EVERY, gesture.signal);
      }
    });
  }

  release(all = false) {
    this.held = false;
    if (all || this.gesture?.name === 'hold' && this.gesture.counted) this.stop();
  }

  burst() {
    return this.run('burst', async gesture => {
      const start = performance.now();
      for (gesture.i = 1; gesture.i <= this.get('burst_n') && !gesture.signal.aborted; gesture.i++) {
        this.draw();
        await this.take(gesture);
        await pause(start + gesture.i*this.get('every')*1000 - performance.now(), gesture.signal);
      }
    });
  }

  stop() { this.gesture?.stopper.abort(); }

  sayResult({ kept, skipped, name, trouble }) {
    if (trouble) return this.say(trouble, 'bad');
    const what = name === 'hold' ? 'Recorded' : 'Burst';
    if (kept + skipped > 1) this.say(`${what}: ${plural(kept, 'picture')}, ${skipped} skipped.`);
  }

  // Take what the preview shows, unless it is nearly the picture before.
  async take(gesture) {
    if (!this.live) return;
    gesture.trouble = this.hindrance();
    if (gesture.trouble) return this.stop();
    const { width, height } = this.canvas;
    const thumb = thumbnail(this.pen.getImageData(0, 0, width, height).data, width, height);
    if (this.kept && frameChange(thumb, this.kept) < this.get('min_change')) return this.skip(gesture);
    this.kept = thumb;
    const shot = { label: gesture.label, split: gesture.split, gesture: gesture.id, taken_at: localTime(new Date()),
      camera: this.camera.name, mirrored: this.get('mirrored'), ...this.get('conditions') };
    const blob = await new Promise(resolve => this.canvas.toBlob(resolve, 'image/jpeg', QUALITY));
    gesture.kept++;
    this.replay(this.stage, 'dc-flash');
    const jpeg = new DataView(await blob.arrayBuffer());
    this.outbox.post('shot', { ...shot, jpeg }).then(reply => this.landed(reply, blob, gesture));
  }

  skip(gesture) {
    gesture.skipped++;
    this.set('skipped', this.get('skipped') + 1);
    const single = gesture.name === 'hold' && !gesture.kept;
    if (single) this.say('Skipped: nearly the same as the picture before. Move the hand a little.');
  }

  landed(reply, blob, gesture) {
    this.model.set('shot', {}); // a notebook that stores its widgets must not store a picture
    if (!reply.ok) {
      this.kept = null;
      return this.say(reply.message, 'bad');
    }
    this.taken.push({ url: URL.createObjectURL(blob), path: reply.path });
    if (this.taken.length > KEPT_MAX) URL.revokeObjectURL(this.taken.shift().url);
    if (gesture.kept === 1) this.say('Saved.', 'good'); // of more pictures, `sayResult` tells the number
    this.replay(this.ui.last, 'dc-bump');
    this.draw();
  }

  // Start a CSS animation from its beginning.
  replay(node, name) {
    node.classList.remove(name);
    void node.offsetWidth;
    node.classList.add(name);
  }

  // ------------------------------------------------------------------------------------------------------- draw

  draw() {
    this.drawAlarm();
    this.drawPerson();
    this.drawCard();
    this.drawControls();
    this.drawLabels();
    this.drawCoverage();
    this.drawTray();
  }

  drawPerson() {
    const { ui } = this, person = this.get('person');
    if (!person) this.askPerson = true;
    this.hide(ui.form, !this.askPerson);
    this.hide(ui.person, this.askPerson);
    ui.who.textContent = person;
    ui.session.textContent = this.get('session');
    const busy = this.outbox.length > 0; // what waits belongs to this person and this split
    this.enable(ui.change, !busy);
    for (const o of ui.splits) {
      o.setAttribute('aria-pressed', o.textContent === this.get('split'));
      this.enable(o, !busy);
    }
  }

  // What stands over the preview: a notice of the kernel, a problem with the camera, or the button that starts it.
  drawCard() {
    const { ui } = this, notice = this.get('notice');
    this.hide(ui.card, this.camera && !notice);
    const idle = this.problem ? 'Try again' : 'Start camera';
    const ask = notice && !this.askPerson;
    const asking = this.starting ? 'If the browser asks whether this page may use the camera: allow it.' : '';
    const text = notice || this.problem || asking;
    if (ui.text.textContent !== text) ui.text.textContent = text;
    ui.card.dataset.tone = notice || this.problem ? 'bad' : '';
    ui.go.textContent = ask ? 'I have changed it: new session' : this.starting ? 'Starting …' : idle;
    this.hide(ui.go, notice && this.askPerson);
    this.enable(ui.go, !this.starting);
  }

  drawControls() {
    const { ui } = this, { gesture } = this, locked = this.get('mirror_locked');
    const ready = Boolean(this.camera) && !this.get('notice') && !this.askPerson;
    this.enable(ui.shoot, ready);
    this.enable(ui.burst, ready);
    ui.shoot.classList.toggle('dc-on', gesture?.name === 'hold');
    ui.burst.classList.toggle('dc-on', gesture?.name === 'burst');
    const n = this.get('burst_n'), i = Math.min(gesture?.i ?? 0, n);
    const burst = gesture?.name !== 'burst' ? 'Burst' : i ? `Stop (${i} of ${n})` : 'Stop';
    ui.burst.replaceChildren(burst, make('kbd', {}, 'b'));
    for (const [input, name] of [[ui.n, 'burst_n'], [ui.every, 'every']]) {
      if (input !== this.focused()) input.value = this.get(name);
    }
    ui.wait.forEach((o, i) => o.setAttribute('aria-pressed', this.get('countdown') === [0, 3, 5][i]));
    ui.mirror.textContent = `Mirror ${this.get('mirrored') ? 'on' : 'off'}`;
    ui.mirror.setAttribute('aria-checked', this.get('mirrored'));
    ui.mirror.title = 'Save what a mirror shows; it is recorded in the manifest';
    ui.locked.textContent = locked;
    this.enable(ui.mirror, !locked);
    ui.badge.textContent = `${this.get('split')} · ${this.get('label')}`;
    this.root.classList.toggle('dc-live', ready);
  }

  drawLabels() {
    const split = this.get('split'), counts = this.get('counts')[split] ?? {}, target = this.get('targets')[split];
    for (const { label, row, bar, count } of this.ui.labels) {
      const n = counts[label] ?? 0;
      const text = target ? `${n}/${target}` : `${n}`;
      if (split === this.drawnSplit && count.textContent !== text) this.replay(count, 'dc-bump');
      count.textContent = text;
      bar.style.width = `${Math.min(100, 100*n/(target || Math.max(n, 1)))}%`;
      row.classList.toggle('dc-full', Boolean(target) && n >= target);
      row.setAttribute('aria-pressed', label === this.get('label'));
    }
    this.drawnSplit = split;
  }

  drawCoverage() {
    const split = this.get('split'), covered = this.get('covered'), now = this.get('conditions');
    for (const { condition, chips } of this.ui.values) {
      for (const { value, chip } of chips) {
        const n = covered[split]?.[condition]?.[value] ?? 0;
        chip.setAttribute('aria-pressed', now[condition] === value);
        chip.classList.toggle('dc-missing', !n);
        chip.title = n ? `${plural(n, 'picture')} in ${split}` : `missing in ${split}`;
      }
    }
    this.ui.advice.textContent = advice(this.get('choices'), covered, split);
  }

  drawTray() {
    const { ui } = this, last = this.taken.at(-1);
    this.hide(ui.last, !last);
    if (last && ui.last.src !== last.url) ui.last.src = last.url;
    ui.path.textContent = last ? last.path : '';
    this.enable(ui.undo, Boolean(last));
    const skipped = this.get('skipped');
    ui.skipped.textContent = skipped ? `${skipped} skipped: nearly the same as the one before` : '';
  }

  drawAlarm() {
    const wait = `The notebook's kernel does not answer: it is busy with another cell, or it was stopped. ${
      plural(this.outbox.length, 'picture')} wait here and will be saved when it answers. If it was restarted, run `
      + 'this cell again, and take them again.';
    const text = this.outbox.silent ? wait : '';
    if (this.ui.alarm.textContent !== text) this.ui.alarm.textContent = text;
  }

  focused() { return this.root.getRootNode().activeElement; }

  // What is switched off or hidden under the focus would pass the keys on to the notebook.
  enable(node, on) {
    if (!on && node === this.focused()) this.stage.focus();
    node.disabled = !on;
  }

  hide(node, hidden) {
    if (hidden && node.contains(this.focused())) this.stage.focus();
    node.hidden = Boolean(hidden);
  }

  close() {
    this.over.abort();
    this.model.off('change', this.changed);
    this.model.off('change:reply', this.replied);
    this.stopCamera();
    this.outbox.stop();
    for (const o of this.taken) URL.revokeObjectURL(o.url);
  }
}

const isCommand = event => event.ctrlKey || event.metaKey || event.altKey;

// Resolves after `ms`, or as soon as `signal` is aborted.
function pause(ms, signal) {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, Math.max(0, ms));
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
    if (signal.aborted) resolve();
  });
}

export default {
  render({ model, el }) {
    const view = new View(model);
    el.append(view.root);
    return () => view.close();
  },
};
