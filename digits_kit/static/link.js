// The way to the kernel. Nothing is lost when the kernel is busy, or when an answer does not arrive.

// Questions, one at a time: the next goes out after the reply to the one before. A question without a reply is sent
// again and again with the same id; nothing is dropped.
export class Outbox {
  // `send(question)` sends it, `changed()` is called when one more or one less waits, `patience` is in ms.
  constructor(send, changed = () => {}, patience = 10000) {
    Object.assign(this, { send, changed, patience, waiting: [], silent: false, n: 0 });
    this.name = Math.random().toString(36).slice(2, 8);
  }

  get length() { return this.waiting.length; }

  // Queue a question; resolves to the kernel's reply.
  post(question) {
    return new Promise(resolve => {
      this.waiting.push({ resolve, tries: 0, question: { ...question, id: `${this.name}-${this.n++}` } });
      if (this.length === 1) this.next();
      this.changed();
    });
  }

  next() {
    clearTimeout(this.timer);
    if (!this.length) return;
    const first = this.waiting[0];
    this.timer = setTimeout(() => this.retry(), this.patience);
    this.send({ ...first.question, attempt: first.tries++ }); // a repeated value would not be sent
  }

  retry() {
    this.silent = true;
    this.next();
    this.changed();
  }

  answer(reply) {
    if (!this.length || reply.id !== this.waiting[0].question.id) return; // the reply to an earlier attempt
    const { resolve } = this.waiting.shift();
    this.silent = false;
    resolve(reply);
    this.next();
    this.changed();
  }

  stop() { clearTimeout(this.timer); }
}

// The outbox of a widget: questions go out as its trait `ask`, replies come in as its trait `reply`.
export class Link extends Outbox {
  constructor(model, changed) {
    super(question => this.set('ask', question), changed);
    this.model = model;
    this.replied = () => this.answer(model.get('reply'));
    model.on('change:reply', this.replied);
  }

  // Set a trait, here and in the kernel.
  set(name, value) {
    this.model.set(name, value);
    try {
      this.model.save_changes();
    } catch (error) {
      this.silent = true; // the connection is gone; what waits is tried again
    }
  }

  answer(reply) {
    if (!this.length || !reply.id?.startsWith(`${this.name}-`)) return; // another page shows this widget too
    super.answer(reply);
    if (this.length) return;
    // a notebook that stores its widgets must not store a picture
    for (const name of ['ask', 'reply']) this.model.set(name, {});
  }

  stop() {
    super.stop();
    this.model.off('change:reply', this.replied);
  }
}
