// What the widgets compute without a browser. By hand: node --test tests/frames.test.mjs
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { cameraMessage, cropBox, frameChange, thumbnail, transform } from '../digits_kit/static/camera.js';
import { advice } from '../digits_kit/static/capture.js';
import { Outbox } from '../digits_kit/static/link.js';
import { localTime, plural } from '../digits_kit/static/ui.js';

const [H, W] = [480, 640];

function picture(colour, w = W, h = H) {
  const rgba = new Uint8ClampedArray(4*w*h);
  for (let y = 0, i = 0; y < h; y++) for (let x = 0; x < w; x++, i += 4) rgba.set([...colour(x, y), 255], i);
  return rgba;
}

test('cropBox takes the largest centred box', () => {
  assert.deepEqual(cropBox(640, 480, W, H), [0, 0, 640, 480]);
  assert.deepEqual(cropBox(1280, 720, W, H), [160, 0, 960, 720]); // wide: the sides go
  assert.deepEqual(cropBox(720, 1280, W, H), [0, 370, 720, 540]); // a phone held upright: top and bottom go
  assert.deepEqual(cropBox(320, 240, W, H), [0, 0, 320, 240]); // small: all of it
});

test('cropBox never leaves the picture and keeps the shape', () => {
  for (const [vw, vh] of [[641, 480], [1919, 1081], [333, 777]]) {
    const [x, y, w, h] = cropBox(vw, vh, W, H);
    assert.ok(x >= 0 && y >= 0 && x + w <= vw + 1e-9 && y + h <= vh + 1e-9);
    assert.ok(Math.abs(w/h - W/H) < 1e-9);
    assert.ok(Math.min(Math.abs(w - vw), Math.abs(h - vh)) < 1e-9);
  }
});

test('transform maps left to right only when mirrored', () => {
  const at = ([a, b, c, d, e, f], x, y) => [a*x + c*y + e, b*x + d*y + f];
  assert.deepEqual(at(transform(false, W), 10, 20), [10, 20]);
  assert.deepEqual(at(transform(true, W), 10, 20), [630, 20]);
  assert.deepEqual(at(transform(true, W), ...at(transform(true, W), 10, 20)), [10, 20]); // twice is not at all
});

test('thumbnail is the grey mean of 24 x 32 blocks', () => {
  const grey = thumbnail(picture(() => [255, 0, 0]), W, H);
  assert.equal(grey.length, 24*32);
  assert.ok(grey.every(o => Math.abs(o - .299*255) < 1e-9));
  const halves = thumbnail(picture(x => x < W/2 ? [0, 0, 0] : [200, 200, 200]), W, H);
  assert.ok(halves.every((o, i) => Math.abs(o - (i%32 < 16 ? 0 : 200)) < 1e-9));
  const rows = thumbnail(picture((x, y) => [y, y, y], W, 240), W, 240); // 10 lines a block
  assert.ok(rows.every((o, i) => Math.abs(o - (10*Math.floor(i/32) + 4.5)) < 1e-9));
});

test('frameChange sees a hand that moves but not a lamp', () => {
  const disc = dx => (x, y) => (x - 200 - dx)**2 + (y - 240)**2 < 10000 ? [220, 180, 160] : [60, 60, 60];
  const hand = dx => thumbnail(picture(disc(dx)), W, H);
  const brighter = hand(0).map(o => o + 12);
  assert.equal(frameChange(hand(0), hand(0)), 0);
  assert.ok(frameChange(hand(0), brighter) < 1e-9);
  assert.ok(frameChange(hand(0), hand(10)) > 1);
  assert.ok(frameChange(hand(0), hand(40)) > frameChange(hand(0), hand(10)));
  assert.equal(frameChange(hand(0), hand(10)), frameChange(hand(10), hand(0)));
});

test('cameraMessage always names a way out', () => {
  const say = (name, message = '', where = {}) => cameraMessage({ name, message }, where);
  const refused = say('NotAllowedError', 'Permission denied');
  assert.match(refused, /sign beside the address.*"Allow".*"Try again".*VS Code.*through Python/);
  assert.match(say('NotAllowedError', 'Permission denied by system'), /operating system.*Settings/);
  assert.match(say('NotAllowedError', 'Permission denied', { vscode: true }), /VS Code.*through Python.*jupyter lab/);
  assert.match(say('NotFoundError'), /No camera was found.*Plug one in/);
  assert.match(say('OverconstrainedError'), /No camera was found/);
  assert.match(say('NotReadableError'), /another program.*Close Zoom/);
  const elsewhere = say('InsecureOrigin', '', { address: 'lab:8888' });
  assert.match(elsewhere, /lab:8888 without encryption.*http:\/\/localhost.*https/);
  assert.match(say('CameraLost'), /unplugged.*"Try again".*safe/);
  assert.match(say('PythonCamera', 'Camera 0 does not open.'), /Camera 0 does not open\. Then press/);
  assert.match(say('OddError', 'what'), /OddError: what.*"Try again"/);
});

test('advice names what is missing, one of each first', () => {
  const choices = { light: ['daylight', 'dim'], hand: ['left', 'right'] };
  assert.equal(advice(choices, {}, 'train'), 'Still missing in train: daylight, left hand and 2 more.');
  const covered = { train: { light: { daylight: 3 }, hand: { right: 1 } } };
  assert.equal(advice(choices, covered, 'train'), 'Still missing in train: dim light, left hand.');
  assert.equal(advice(choices, covered, 'valid'), 'Still missing in valid: daylight, left hand and 2 more.');
  assert.match(advice({ angle: ['palm'] }, {}, 'train'), /palm view/);
  const all = { train: { light: { daylight: 1, dim: 1 }, hand: { left: 1, right: 1 } } };
  assert.match(advice(choices, all, 'train'), /Everything is covered in train/);
});

test('localTime is the time on the wall', () => {
  assert.equal(localTime(new Date(2026, 10, 21, 1, 4, 9)), '2026-11-21T01:04:09');
});

test('plural', () => {
  assert.deepEqual([0, 1, 2].map(n => plural(n, 'picture')), ['0 pictures', '1 picture', '2 pictures']);
});

test('the outbox sends one message after the other', async () => {
  const sent = [];
  const outbox = new Outbox(question => sent.push(question));
  const replies = [1, 2, 3].map(n => outbox.post({ n }));
  assert.deepEqual(sent.map(o => o.n), [1]);
  assert.equal(outbox.length, 3);
  for (let i = 0; i < 3; i++) outbox.answer({ id: sent[i].id, ok: true, i });
  assert.deepEqual(sent.map(o => o.n), [1, 2, 3]);
  assert.equal(new Set(sent.map(o => o.id)).size, 3);
  assert.deepEqual((await Promise.all(replies)).map(o => o.i), [0, 1, 2]);
  assert.equal(outbox.length, 0);
});

test('a silent kernel is asked again with the same id, and nothing is dropped', async t => {
  const sent = [];
  const outbox = new Outbox(question => sent.push(question), () => {}, 20);
  t.after(() => outbox.stop()); // else a failure would wait for ever
  const reply = outbox.post({ n: 1 });
  outbox.post({ n: 2 });
  while (sent.length < 3) await new Promise(resolve => setTimeout(resolve, 10)); // a busy machine takes its time
  assert.ok(sent.every(o => o.n === 1 && o.id === sent[0].id));
  assert.equal(new Set(sent.map(o => o.attempt)).size, sent.length); // else the trait would not change
  assert.ok(outbox.silent);
  outbox.answer({ id: 'another widget', ok: true });
  assert.equal(outbox.length, 2);
  outbox.answer({ id: sent[0].id, ok: true });
  assert.ok((await reply).ok && !outbox.silent);
  assert.equal(sent.at(-1).n, 2);
  outbox.answer({ id: sent[0].id, ok: true }); // late, to an earlier attempt
  assert.equal(outbox.length, 1);
});

const alone = !process.env.DIGITS_FRAMES && 'run by tests/test_frames.py';
test('thumbnail and frameChange agree with Python', { skip: alone }, () => {
  const { pairs } = JSON.parse(readFileSync(process.env.DIGITS_FRAMES, 'utf-8'));
  for (const { w, h, rgb, thumbnails, change } of pairs) {
    const pixel = o => (x, y) => o.slice(3*(y*w + x), 3*(y*w + x) + 3);
    const mine = rgb.map(o => thumbnail(picture(pixel(o), w, h), w, h));
    mine.forEach((o, k) => o.forEach((x, i) => assert.ok(Math.abs(x - thumbnails[k][i]) < 1e-3)));
    assert.ok(Math.abs(frameChange(...mine) - change) < 1e-3);
  }
});
