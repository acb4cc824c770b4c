// What `review.js` computes without a browser. By hand: node --test tests/review.test.mjs
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { countKinds, findPlace, keyAction } from '../digits_kit/static/review.js';

test('keyAction knows digits by their place and letters by their name', () => {
  const press = (key, code = '') => keyAction({ key, code });
  assert.equal(press('1', 'Digit1'), 0);
  assert.equal(press('&', 'Digit1'), 0); // a French keyboard
  assert.equal(press('5', 'Numpad5'), 4);
  assert.deepEqual(['k', 'K', 'q', 'Delete', 'z', 's', 'ArrowLeft', 'ArrowRight'].map(key => press(key)),
    ['keep', 'keep', 'quarantine', 'quarantine', 'undo', 'swap', 'back', 'next']);
  assert.deepEqual(['0', 'x', ' ', 'Enter', 'Tab'].map(key => press(key)), Array(5).fill(undefined));
});

test('countKinds counts what is left, in the order of the suspects', () => {
  const counts = countKinds(['copy', 'dark', 'copy', 'blank'], ['', 'keep', '', 'gone']);
  assert.deepEqual(counts, { copy: 2, dark: 0, blank: 0 });
  assert.deepEqual(Object.keys(counts), ['copy', 'dark', 'blank']);
});

test('findPlace goes around the end, both ways, and says when there is none', () => {
  const odd = i => i%2 === 1;
  assert.deepEqual([0, 1, 2, 4].map(start => findPlace(5, start, 1, odd)), [1, 1, 3, 1]);
  assert.deepEqual([-1, 0, 2, 3].map(start => findPlace(5, start, -1, odd)), [3, 3, 1, 3]);
  assert.equal(findPlace(5, 2, 1, () => false), -1);
  assert.equal(findPlace(0, 0, 1, () => true), -1);
});
