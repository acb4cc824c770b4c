// The browser's half of `digits_kit.capture.Capture`: gestures, counts, and the pictures' way to the kernel.
import { Preview, frameChange, thumbnail } from './camera.js';
import { Link } from './link.js';
import { button, enable, focused, group, hide, isCommand, isTyping, keepKeys, localTime, make, pause, plural, replay,
  setText } from './ui.js';

const QUALITY = .92; // of the JPEG
const QUEUE_MAX = 30; // pictures that may wait for the kernel
const HOLD_AFTER = 350, HOLD_EVERY = 150; // ms
const KEPT_MAX = 40; // pictures that can be undone
const COUNTDOWNS = [0, 3, 5]; // s

// ---------------------------------------------------------------------------------------------------------- words

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

// -------------------------------------------------------------------------------------------------------- the view

class View {
  constructor(model) {
    this.model = model;
    this.over = new AbortController(); // aborted when the view goes
    this.link = new Link(model, () => this.draw());
    this.preview = new Preview(this.link, { started: () => this.started(), stopped: () => this.stop(),
      changed: () => this.draw() });
    this.gesture = null; // a single shot, hold or burst that goes on
    this.kept = null; // thumbnail of the last picture kept
    this.taken = []; // {url, path} of what this view saved, for the undo
    this.askPerson = !this.get('person');
    this.build();
    this.listen();
    this.draw();
  }

  get(name) { return this.model.get(name); }

  set(name, value) { this.link.set(name, value); }

  say(text, tone = '') {
    this.ui.status.textContent = text;
    this.ui.status.dataset.tone = tone;
  }

  // ------------------------------------------------------------------------------------------------------ build

  build() {
    this.ui = {};
    this.root = make('div', { className: 'digits-widget digits-capture' }, make('div', { className: 'dc-frame' },
      this.buildTop(), this.buildStage(), this.buildShutter(), this.buildTray(), this.buildSide(), this.buildMore()));
  }

  buildTop() {
    const { ui } = this;
    const id = `dc-${this.link.name}`;
    ui.name = make('input', { id, type: 'text', placeholder: 'first name', autocomplete: 'off', spellcheck: false });
    ui.form = make('form', { onsubmit: event => this.setPerson(event) },
      make('label', { htmlFor: ui.name.id }, 'Whose hand is it?'), ui.name, make('button', { type: 'submit' }, 'OK'));
    ui.who = make('b');
    ui.session = make('span', { className: 'dc-quiet' });
    ui.change = button('change', () => this.changePerson(), { className: 'dc-link', title: 'Another person' });
    ui.person = make('div', { className: 'dc-person' }, ui.who, ui.change, ui.session);
    ui.splits = Object.keys(this.get('counts')).map(split => button(split, () => this.choose('split', split)));
    ui.alarm = make('p', { className: 'dc-alarm', role: 'alert' });
    return make('div', { className: 'dc-top' }, ui.form, ui.person, group('Pictures for', ...ui.splits), ui.alarm);
  }

  buildStage() {
    const { ui } = this;
    ui.count = make('div', { className: 'dc-count', 'aria-hidden': 'true' });
    ui.badge = make('div', { className: 'dc-badge', 'aria-hidden': 'true' });
    ui.hint = make('div', { className: 'dc-hint', 'aria-hidden': 'true' }, 'click the picture to use the keys');
    const keys = 'Preview. Keys: 1 to 9 label, space picture, hold space record, b burst, u undo, escape stops';
    this.stage = this.preview.stage;
    this.stage.setAttribute('aria-label', keys);
    this.stage.append(ui.badge, ui.hint, ui.count);
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
    ui.wait = COUNTDOWNS.map(n => button(n ? `${n} s` : 'none', () => this.choose('countdown', n)));
    ui.mirror = button('', () => this.choose('mirrored', !this.get('mirrored')), { role: 'switch' });
    ui.locked = make('span', { className: 'dc-quiet' });
    return make('div', { className: 'dc-more dc-row' }, make('span', {}, 'Countdown'), group('Countdown', ...ui.wait),
      ui.mirror, this.preview.cameras, ui.locked);
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
    const on = (node, name, call) => node.addEventListener(name, call, { signal });
    keepKeys(this.root, signal);
    on(window, 'blur', () => this.release());
    on(window, 'beforeunload', event => this.link.length && event.preventDefault());
    on(this.root, 'keydown', event => this.keydown(event));
    on(this.root, 'keyup', event => this.keyup(event));
    on(this.root, 'click', event => event.detail && !isTyping(event.target) && this.stage.focus());
    on(this.root, 'focusin', () => this.root.classList.add('dc-active'));
    on(this.root, 'focusout', event => !this.root.contains(event.relatedTarget) && this.leave());
    on(this.ui.shoot, 'pointerdown', event => event.button === 0 && this.press());
    for (const name of ['pointerup', 'pointercancel', 'pointerleave']) on(this.ui.shoot, name, () => this.release());
    this.changed = () => {
      if (this.get('notice')) this.stop();
      this.draw();
    };
    this.model.on('change', this.changed);
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

  async command(question) {
    const reply = await this.link.post(question);
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

  // --------------------------------------------------------------------------------------------------- gestures

  started() {
    this.kept = null;
    this.say('The camera is on.');
  }

  // Why no picture can be taken now, '' = one can.
  hindrance() {
    if (this.askPerson) return 'First say whose hand it is.';
    if (this.get('notice')) return this.get('notice');
    if (!this.preview.camera) return 'First start the camera.';
    if (this.link.length >= QUEUE_MAX) return `${plural(QUEUE_MAX, 'picture')} wait to be saved: no more until then.`;
    return '';
  }

  // Run one gesture: countdown, then `take` pictures until it is over. A second one in the meantime ends the first.
  async run(name, take) {
    if (this.gesture) return this.stop();
    const hindrance = this.hindrance();
    if (hindrance) return this.say(hindrance, 'bad');
    const stopper = new AbortController();
    const gesture = this.gesture = { name, stopper, signal: stopper.signal, id: `${this.link.name}-${Date.now()}`,
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
    const { canvas, camera, live } = this.preview;
    if (!live) return;
    gesture.trouble = this.hindrance();
    if (gesture.trouble) return this.stop();
    const thumb = thumbnail(this.preview.pixels(), canvas.width, canvas.height);
    if (this.kept && frameChange(thumb, this.kept) < this.get('min_change')) return this.skip(gesture);
    this.kept = thumb;
    const shot = { label: gesture.label, split: gesture.split, gesture: gesture.id, taken_at: localTime(new Date()),
      camera: camera.name, mirrored: this.get('mirrored'), ...this.get('conditions') };
    const blob = await new Promise(resolve => canvas.toBlob(resolve, 'image/jpeg', QUALITY));
    gesture.kept++;
    replay(this.stage, 'dc-flash');
    const jpeg = new DataView(await blob.arrayBuffer());
    this.link.post({ do: 'save', ...shot, jpeg }).then(reply => this.landed(reply, blob, gesture));
  }

  skip(gesture) {
    gesture.skipped++;
    this.set('skipped', this.get('skipped') + 1);
    const single = gesture.name === 'hold' && !gesture.kept;
    if (single) this.say('Skipped: nearly the same as the picture before. Move the hand a little.');
  }

  landed(reply, blob, gesture) {
    if (!reply.ok) {
      this.kept = null;
      return this.say(reply.message, 'bad');
    }
    this.taken.push({ url: URL.createObjectURL(blob), path: reply.path });
    if (this.taken.length > KEPT_MAX) URL.revokeObjectURL(this.taken.shift().url);
    if (gesture.kept === 1) this.say('Saved.', 'good'); // of more pictures, `sayResult` tells the number
    replay(this.ui.last, 'dc-bump');
    this.draw();
  }

  // ------------------------------------------------------------------------------------------------------- draw

  draw() {
    this.drawAlarm();
    this.drawPerson();
    this.drawPreview();
    this.drawControls();
    this.drawLabels();
    this.drawCoverage();
    this.drawTray();
  }

  hide(node, hidden) { hide(node, hidden, this.stage); }

  enable(node, on) { enable(node, on, this.stage); }

  drawPerson() {
    const { ui } = this, person = this.get('person');
    if (!person) this.askPerson = true;
    this.hide(ui.form, !this.askPerson);
    this.hide(ui.person, this.askPerson);
    ui.who.textContent = person;
    ui.session.textContent = this.get('session');
    const busy = this.link.length > 0; // what waits belongs to this person and this split
    this.enable(ui.change, !busy);
    for (const chip of ui.splits) {
      chip.setAttribute('aria-pressed', chip.textContent === this.get('split'));
      this.enable(chip, !busy);
    }
  }

  drawPreview() {
    const ask = { text: 'I have changed it: new session', click: () => this.newSession() };
    const notice = this.get('notice');
    this.preview.draw(notice, notice && !this.askPerson ? ask : null);
    this.ui.badge.textContent = `${this.get('split')} · ${this.get('label')}`;
  }

  drawControls() {
    const { ui, gesture } = this, locked = this.get('mirror_locked');
    const ready = Boolean(this.preview.camera) && !this.get('notice') && !this.askPerson;
    this.enable(ui.shoot, ready);
    this.enable(ui.burst, ready);
    this.root.classList.toggle('dc-live', ready);
    ui.shoot.classList.toggle('dc-on', gesture?.name === 'hold');
    ui.burst.classList.toggle('dc-on', gesture?.name === 'burst');
    this.drawBurst(gesture);
    ui.wait.forEach((chip, i) => chip.setAttribute('aria-pressed', this.get('countdown') === COUNTDOWNS[i]));
    ui.mirror.textContent = `Mirror ${this.get('mirrored') ? 'on' : 'off'}`;
    ui.mirror.setAttribute('aria-checked', this.get('mirrored'));
    ui.mirror.title = 'Save what a mirror shows; it is recorded in the manifest';
    ui.locked.textContent = locked;
    this.enable(ui.mirror, !locked);
  }

  drawBurst(gesture) {
    const { ui } = this, n = this.get('burst_n'), i = Math.min(gesture?.i ?? 0, n);
    const text = gesture?.name !== 'burst' ? 'Burst' : i ? `Stop (${i} of ${n})` : 'Stop';
    ui.burst.replaceChildren(text, make('kbd', {}, 'b'));
    for (const [input, name] of [[ui.n, 'burst_n'], [ui.every, 'every']]) {
      if (input !== focused(input)) input.value = this.get(name);
    }
  }

  drawLabels() {
    const split = this.get('split'), counts = this.get('counts')[split] ?? {}, target = this.get('targets')[split];
    for (const { label, row, bar, count } of this.ui.labels) {
      const n = counts[label] ?? 0;
      const text = target ? `${n}/${target}` : `${n}`;
      if (split === this.drawnSplit && count.textContent !== text) replay(count, 'dc-bump');
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
      plural(this.link.length, 'picture')} wait here and will be saved when it answers. If it was restarted, run `
      + 'this cell again, and take them again.';
    setText(this.ui.alarm, this.link.silent ? wait : '');
  }

  close() {
    this.over.abort();
    this.model.off('change', this.changed);
    this.preview.close();
    this.link.stop();
    for (const { url } of this.taken) URL.revokeObjectURL(url);
  }
}

export default {
  render({ model, el }) {
    const view = new View(model);
    el.append(view.root);
    return () => view.close();
  },
};
