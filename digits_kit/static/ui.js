// Small things that every widget is built of: elements, focus, keys, words, pauses. Nothing here knows about cameras.

// ------------------------------------------------------------------------------------------------------- elements

export function make(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

export const button = (text, click, props = {}) =>
  make('button', { type: 'button', onclick: click, ...props }, ...[text].flat());

export const group = (name, ...children) =>
  make('div', { className: 'dc-group', role: 'group', 'aria-label': name }, ...children);

// Change a text only when it differs: a screen reader reads every change aloud.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Start a CSS animation from its beginning.
export function replay(node, name) {
  node.classList.remove(name);
  void node.offsetWidth;
  node.classList.add(name);
}

// ---------------------------------------------------------------------------------------------------------- focus

export const focused = node => node.getRootNode().activeElement;

// What is switched off or hidden under the focus would pass the keys on to the notebook; so `refuge` gets the focus.
export function enable(node, on, refuge) {
  if (!on && node === focused(node)) refuge.focus();
  node.disabled = !on;
}

export function hide(node, hidden, refuge) {
  if (hidden && node.contains(focused(node))) refuge.focus();
  node.hidden = Boolean(hidden);
}

// ----------------------------------------------------------------------------------------------------------- keys

export const isTyping = node => node.matches('input, select, textarea');
export const isCommand = event => event.ctrlKey || event.metaKey || event.altKey;

// JupyterLab leaves keys alone below an element with this attribute; Ctrl+S shall still save the notebook.
export function keepKeys(root, signal) {
  const mine = event => root.toggleAttribute('data-lm-suppress-shortcuts', !isCommand(event));
  window.addEventListener('keydown', mine, { signal, capture: true });
}

// ----------------------------------------------------------------------------------------------------------- time

// Resolves after `ms`, or as soon as `signal` is aborted.
export function pause(ms, signal) {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, Math.max(0, ms));
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
    if (signal.aborted) resolve();
  });
}

// A `Date` as local time without zone, to the second, as it stands in the manifest.
export function localTime(date) {
  return new Date(date.getTime() - date.getTimezoneOffset()*60000).toISOString().slice(0, 19);
}

export const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;
