// Rates and growth, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { History, windowMS } from '../ops/history.js';

function answer(now, ...nodes) {
  return { now_ms: now, log: { seq: now }, nodes };
}

function node(name, at, counters, started = 1) {
  return { node: name, at_ms: at, started_ms: started, counters };
}

function rates({ samples }) {
  return samples.map(({ appended, delivered }) => [appended, delivered]);
}

test('a rate is by the clock of the node, whenever it was asked', () => {
  const history = new History();
  history.add(answer(10_000, node('a', 500, { appended: 10, delivered: 100 })));
  history.add(answer(11_400, node('a', 1_500, { appended: 20, delivered: 300 })));
  history.add(answer(11_900, node('a', 1_500, { appended: 20, delivered: 300 }))); // the same report
  history.add(answer(13_100, node('a', 3_500, { appended: 40, delivered: 300 })));
  assert.deepEqual(rates(history), [[null, null], [10, 200], [10, 200], [10, 0]]);
});

test('the rates of the nodes add up, and a restarted node starts anew', () => {
  const history = new History();
  history.add(answer(1_000, node('a', 1_000, { appended: 5, delivered: 5 }), node('b', 1_000, { delivered: 7 })));
  history.add(answer(2_000, node('a', 2_000, { appended: 6, delivered: 15 }), node('b', 2_000, { delivered: 27 })));
  assert.deepEqual(rates(history).at(-1), [1, 30]);
  assert.deepEqual([...history.delivered], [['a', 10], ['b', 20]]);
  history.add(answer(3_000, node('a', 3_000, { appended: 7, delivered: 25 }), node('b', 3_000, { delivered: 2 }, 2_500)));
  assert.deepEqual(rates(history).at(-1), [1, 10]);
  assert.deepEqual([...history.delivered], [['a', 10]]);
  history.add(answer(4_000, node('a', 4_000, { appended: 7, delivered: 25 }), node('b', 4_000, { delivered: 5 }, 2_500)));
  assert.deepEqual(rates(history).at(-1), [0, 3]);
});

test('growth is that of the window, and says since when', () => {
  const history = new History();
  for (const i of [1, 2, 3, 4]) history.add(answer(i * 1_000, node('a', i * 1_000, { slow: Math.min(i, 3) })));
  assert.deepEqual(history.growth('slow'), { total: 2, since: 2_000 });
  assert.deepEqual(history.growth('resets'), { total: 0, since: 0 });
  history.add(answer(windowMS + 2_500, node('a', windowMS + 2_500, { slow: 3 })));
  assert.deepEqual(history.growth('slow'), { total: 1, since: 3_000 });
  assert.deepEqual(history.samples.map(({ at }) => at), [3_000, 4_000, windowMS + 2_500]);
});

test('samples stay in order when the clock is set back', () => {
  const history = new History();
  for (const at of [5_000, 6_000, 5_500]) history.add(answer(at));
  assert.deepEqual(history.samples.map(({ at }) => at), [5_000, 5_500]);
});

test('what was before is found', () => {
  const history = new History();
  for (const at of [1_000, 2_000, 3_000]) history.add(answer(at));
  assert.equal(history.before(1_000)?.seq, 2_000);
  assert.equal(history.before(1_500)?.seq, 1_000);
  assert.equal(history.before(2_001), undefined);
});
