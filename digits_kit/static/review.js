// The browser's half of `digits_kit.review.Review`: one suspect at a time, and a key for what becomes of it.
import { Link } from './link.js';
import { button, enable, group, hide, isCommand, isTyping, keepKeys, make, setText } from './ui.js';

const KEYS = { k: 'keep', q: 'quarantine', delete: 'quarantine', z: 'undo', s: 'swap', arrowleft: 'back',
  arrowright: 'next' };
const WORDS = { keep: 'Kept.', relabel: 'It has another label now.', quarantine: 'In quarantine.',
  gone: 'Skipped: it is no longer there.', changed: 'Skipped: it is not the file that the audit saw.' };
const FIXED = ['quarantine', 'gone', 'changed']; // states in which nothing can be chosen
const SILENT = 'The notebook\'s kernel does not answer: it is busy with another cell, or it was stopped. What was '
  + 'chosen before is saved. If it was restarted, run the cells again.';

// What a key does: a label's number from 0 on, a name, or undefined.
export function keyAction({ code, key }) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(code); // where the key is: on a French keyboard 1 needs Shift
  return digit ? digit[1] - 1 : KEYS[key.toLowerCase()];
}

// How many of each kind are still to be asked, `{kind: n}` in the order of the suspects.
export function countKinds(kinds, states) {
  const counts = Object.fromEntries(kinds.map(kind => [kind, 0]));
  kinds.forEach((kind, i) => { counts[kind] += states[i] === ''; });
  return counts;
}

// The first of `n` places from `start` on, in steps of `step` and around the end, where `fits(place)`; -1 = none.
export function findPlace(n, start, step, fits) {
  const places = Array.from({ length: n }, (_, k) => ((start + k*step)%n + n)%n);
  return places.find(fits) ?? -1;
}

class View {
  constructor(model) {
    this.model = model;
    this.over = new AbortController(); // aborted when the view goes
    this.link = new Link(model, () => this.draw());
    this.i = -1; // the suspect that is shown, -1 = none
    this.kind = ''; // only these, '' = all
    this.chosen = 0; // which photo of a pair
    this.looks = new Map(); // what the kernel told of the suspect that is shown and of the next one
    this.build();
    this.listen();
    this.go(this.next(0));
  }

  get(name) { return this.model.get(name); }

  // ------------------------------------------------------------------------------------------------------ build

  build() {
    const ui = this.ui = {};
    const act = (words, key, name) => button([words, make('kbd', {}, key)], () => this.act(name));
    const kinds = ['', ...new Set(this.get('kinds'))].map(kind => make('option', { value: kind }));
    ui.filter = make('select', { 'aria-label': 'Which suspects', onchange: () => this.filter() }, ...kinds);
    ui.bar = make('progress', { max: 1, 'aria-label': 'Looked through' });
    ui.count = make('span', { className: 'dc-quiet' });
    ui.photos = [0, 1].map(which => {
      const img = make('img', { onload: () => URL.revokeObjectURL(img.src) }), text = make('span');
      return { img, text, node: button([img, text], () => this.choose(which), { className: 'rv-photo' }) };
    });
    ui.hint = make('div', { className: 'dc-hint', 'aria-hidden': 'true' }, 'click here to use the keys');
    const keys = 'Suspect. Keys: k keep, 1 to 9 label, q quarantine, z undo, s the other photo of two, arrows move';
    this.stage = make('div', { className: 'rv-stage', tabIndex: 0, role: 'group', 'aria-label': keys },
      ...ui.photos.map(photo => photo.node), ui.hint);
    ui.place = make('b');
    ui.why = make('span');
    ui.state = make('b');
    ui.labels = this.get('labels').map((label, n) => act(label, n < 9 ? String(n + 1) : '', n));
    ui.choices = [act('Keep', 'k', 'keep'), act('Quarantine', 'q', 'quarantine'),
      make('span', { className: 'dc-quiet' }, 'It shows'), group('It shows', ...ui.labels)];
    ui.status = make('p', { className: 'dc-status', role: 'status', 'aria-live': 'polite' });
    this.root = make('div', { className: 'digits-widget digits-review dc-live' }, make('div', { className: 'dc-frame' },
      make('div', { className: 'dc-row' }, ui.filter, ui.bar, ui.count), this.stage,
      make('p', { className: 'rv-why', 'aria-live': 'polite' }, ui.place, ui.why, ui.state),
      make('div', { className: 'dc-row' }, ...ui.choices),
      make('div', { className: 'dc-row' }, act('Back', '←', 'back'), act('Next', '→', 'next'), act('Undo', 'z', 'undo'),
        ui.status)));
  }

  listen() {
    const { signal } = this.over;
    const on = (name, call) => this.root.addEventListener(name, call, { signal });
    keepKeys(this.root, signal);
    on('keydown', event => this.keydown(event));
    on('click', event => event.detail && !isTyping(event.target) && this.stage.focus());
    on('focusin', () => this.root.classList.add('dc-active'));
    on('focusout', event => this.root.classList.toggle('dc-active', this.root.contains(event.relatedTarget)));
    this.model.on('change:states', this.changed = () => this.draw());
  }

  keydown(event) {
    if (isCommand(event)) return;
    event.stopPropagation(); // older notebooks and VS Code listen further out
    const name = keyAction(event);
    if (isTyping(event.target) || name === undefined) return;
    event.preventDefault();
    if (!event.repeat || event.key.startsWith('Arrow')) this.act(name); // any other key held down is one choice
  }

  // ---------------------------------------------------------------------------------------------------- choices

  act(name) {
    const { i, shown, chosen } = this;
    if (name === 'back' || name === 'next') return this.move(name === 'next' ? 1 : -1);
    if (name === 'swap') return this.choose(1 - chosen);
    if (name === 'undo') return this.ask({ do: 'undo' });
    const label = this.get('labels')[name];
    const open = shown && !FIXED.includes(this.get('states')[i]); // choices are about what is seen
    if (!open || (Number.isInteger(name) && !label)) return;
    this.ask({ do: label ? 'relabel' : name, i, path: shown.photos[chosen].path, ...(label && { label }) });
  }

  choose(which) {
    if (this.shown?.photos[which]) this.chosen = which;
    this.draw();
  }

  async ask(question) {
    if (this.busy) return;
    this.busy = true;
    const reply = await this.link.post(question);
    this.busy = false;
    if (['undo', 'relabel'].includes(question.do)) this.looks.clear(); // photos have other names now
    this.say(reply.message, reply.ok ? 'good' : 'bad');
    this.go(reply.i ?? (this.get('states')[this.i] === '' ? this.i : this.next(this.i + 1)));
  }

  // ------------------------------------------------------------------------------------------- what is looked at

  find(start, step, fits = () => true) {
    const kinds = this.get('kinds');
    return findPlace(kinds.length, start, step, i => (!this.kind || kinds[i] === this.kind) && fits(i));
  }

  next(start) { return this.find(start, 1, i => this.get('states')[i] === ''); }

  move(step) { this.go(this.find(this.i < 0 && step < 0 ? -1 : this.i + step, step)); }

  filter() {
    this.kind = this.ui.filter.value;
    this.stage.focus();
    this.go(this.next(Math.max(this.i, 0)));
  }

  // What the kernel tells of a suspect, asked once.
  look(i) {
    if (!this.looks.has(i)) this.looks.set(i, this.link.post({ do: 'look', i }));
    return this.looks.get(i);
  }

  async go(i) {
    Object.assign(this, { i, shown: null, chosen: 0 });
    this.draw();
    if (i < 0) return;
    const reply = await this.look(i);
    if (i !== this.i) return; // somebody has moved on
    this.shown = reply.ok ? reply : { why: '', photos: [{ path: '', label: '', trouble: reply.message }] };
    this.draw();
    const next = this.next(i + 1);
    for (const known of this.looks.keys()) if (known !== i && known !== next) this.looks.delete(known);
    if (next >= 0) this.look(next);
  }

  // ------------------------------------------------------------------------------------------------------- draw

  say(text, tone) {
    setText(this.ui.status, text);
    this.ui.status.dataset.tone = tone;
  }

  draw() {
    const { ui, i, shown } = this, kinds = this.get('kinds'), states = this.get('states');
    const counts = countKinds(kinds, states), n = states.length, left = states.filter(state => !state).length;
    for (const o of ui.filter.options) setText(o, `${o.value || 'all'}: ${o.value ? counts[o.value] : left} left`);
    ui.bar.value = n ? 1 - left/n : 1;
    setText(ui.count, `${n - left} of ${n} done`);
    setText(ui.place, i < 0 ? this.sayEnd(left) : `${i + 1} of ${n}: ${kinds[i]}.`);
    setText(ui.why, shown?.why ?? '');
    setText(ui.state, WORDS[states[i]] ?? '');
    const open = i >= 0 && !FIXED.includes(states[i]);
    for (const node of [...ui.choices.slice(0, 2), ...ui.labels]) enable(node, open, this.stage);
    this.drawPhotos();
    if (this.link.silent) this.say(SILENT, 'bad');
  }

  sayEnd(left) {
    if (!this.get('kinds').length) return 'There is nothing to look through.';
    return left ? `Nothing is left of this kind; ${left} of others.` : `All is looked through: ${this.get('summary')}.`;
  }

  drawPhotos() {
    const { ui, shown } = this, pair = shown?.photos.length === 2;
    this.stage.classList.toggle('rv-two', pair);
    ui.photos.forEach(({ node, img, text, drawn }, which) => {
      const photo = shown?.photos[which];
      hide(node, this.i < 0 || (which && !photo), this.stage);
      hide(img, !photo?.jpeg, this.stage);
      if (photo?.jpeg && photo !== drawn) img.src = URL.createObjectURL(new Blob([photo.jpeg], { type: 'image/jpeg' }));
      ui.photos[which].drawn = photo;
      img.alt = `labelled ${photo?.label}`;
      node.setAttribute('aria-pressed', pair && which === this.chosen);
      text.replaceChildren(make('b', {}, photo?.label ?? '…'), ` ${photo?.path ?? ''} ${photo?.trouble ?? ''}`,
        pair && which !== this.chosen ? make('kbd', { title: 'choose this one' }, 's') : '');
    });
    const label = shown?.photos[this.chosen].label;
    ui.labels.forEach((chip, n) => chip.setAttribute('aria-pressed', this.get('labels')[n] === label));
  }

  close() {
    this.over.abort();
    this.model.off('change:states', this.changed);
    this.link.stop();
  }
}

export default {
  render({ model, el }) {
    const view = new View(model);
    el.append(view.root);
    return () => view.close();
  },
};
