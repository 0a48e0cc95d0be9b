// Several tabs of one origin, in one process: locks and channels are the test's
// own, and time stands still until it is moved.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectCommerceEvents } from '../dist/pepay-gateway.mjs';
import { Env, settle } from './env.mjs';

const url = 'https://events.shop.test';

async function tab(t, options = {}) {
  const stream = connectCommerceEvents({ url, getToken: () => 'token', ...options });
  const events = [];
  stream.on('event', (event) => events.push(event.id));
  t.after(() => stream.close());
  await settle();
  return { stream, events };
}

// A tab that has joined the ones before it.
async function join(t, env, options) {
  const joined = await tab(t, options);
  await env.socket.live();
  await settle();
  return joined;
}

test('tabs share one connection, and each gets every event once', async (t) => {
  const env = new Env(t, { locks: true });
  const tabs = [await join(t, env), await join(t, env), await join(t, env)];
  assert.deepEqual(env.open, [env.sockets[0]]);
  assert.deepEqual(tabs.map(({ stream }) => stream.transport), ['ws', 'shared', 'shared']);
  await env.sockets[0].event('evt_1-1');
  await env.sockets[0].event('evt_2-1', 'shipped');
  for (const { stream, events } of tabs) {
    assert.deepEqual(events, ['evt_1-1', 'evt_2-1']);
    assert.equal(stream.getState('o1').status, 'shipped');
  }
});

test('the status of the one connection is that of every tab', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  const { stream } = await join(t, env);
  await env.sockets[0].control({ type: 'status', status: 'stale', reason: 'upstream_down', since_ms: 5 });
  assert.deepEqual([stream.status, stream.since, stream.transport], ['stale', 5, 'shared']);
  await env.sockets[0].end(1006);
  assert.equal(stream.status, 'connecting');
});

test('when the leader closes, another tab goes on from where it was', async (t) => {
  const env = new Env(t, { locks: true });
  const first = await join(t, env);
  const { events } = await join(t, env);
  const { events: others } = await join(t, env);
  await env.sockets[0].event('evt_1-1');
  first.stream.close();
  await env.pass(10);
  assert.equal(env.open.length, 1);
  assert.equal(env.socket.query.get('since'), 'evt_1-1');
  await env.socket.hello({ resumed: true, cursor: 'cur_1' });
  await env.socket.event('evt_2-1');
  assert.deepEqual(events, ['evt_1-1', 'evt_2-1']);
  assert.deepEqual(others, ['evt_1-1', 'evt_2-1']);
});

test('tabs of two scopes share nothing', async (t) => {
  const env = new Env(t, { locks: true });
  const alice = await tab(t);
  await env.socket.live({ scope_id: 'scp_alice' });
  const bob = await tab(t);
  await env.socket.live({ scope_id: 'scp_bob' });
  assert.equal(env.open.length, 2);
  await env.sockets[0].event('evt_1-1');
  assert.deepEqual([alice.events, bob.events], [['evt_1-1'], []]);
});

test('a tab whose token has become another shopper’s leaves the others', async (t) => {
  const env = new Env(t, { locks: true });
  const first = await join(t, env);
  const second = await join(t, env);
  await env.sockets[0].event('evt_1-1');
  await env.sockets[0].end(4401);
  await env.pass(10);
  await env.socket.live({ resumed: true, cursor: 'cur_9', scope_id: 'scp_other' });
  await env.pass(10);
  assert.deepEqual(first.stream.getState(), [], 'what the next shopper sees of the one before');
  assert.equal(second.stream.getState('o1').status, 'placed');
  assert.equal(env.open.length, 2, 'each has its own connection now');
});

test('tabs of several orders share a stream of all of them, and see their own', async (t) => {
  const env = new Env(t, { locks: true });
  const one = await join(t, env, { orderId: 'o1' });
  const two = await tab(t, { orderId: 'o2' });
  const own = env.socket;
  await own.live();
  const wide = env.socket;
  assert.deepEqual(env.open, [own, wide], 'the tab keeps its own until the leader has connected for both');
  assert.deepEqual(wide.query.getAll('order_id'), ['o1', 'o2']);
  assert.equal(wide.query.get('since'), 'cur_0');
  await wide.live({ resumed: true, cursor: 'cur_0' });
  assert.deepEqual(env.open, [wide]);
  await wide.event('evt_1-1', 'placed', { order: 'o1' });
  await wide.event('evt_1-2', 'placed', { order: 'o2' });
  assert.deepEqual([one.events, two.events], [['evt_1-1'], ['evt_1-2']]);

  one.stream.close();
  await env.pass(10);
  assert.deepEqual(env.socket.query.getAll('order_id'), ['o1', 'o2'], 'orders of the next leader');
});

test('a leader that says nothing loses its place to another tab', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  const { stream, events } = await join(t, env);
  env.channels[0].mute = true;
  for (let waited = 0; waited < 28_000; waited += 14_000) {
    await env.pass(14_000);
    await env.sockets[0].control({ type: 'tip', cursor: 'cur_1' }); // its connection is alive
  }
  assert.deepEqual([stream.transport, env.open.length], ['shared', 1]);
  await env.pass(12_000);
  await env.socket.live({ resumed: true, cursor: 'cur_1' });
  await env.socket.event('evt_1-1');
  assert.deepEqual([stream.transport, events], ['ws', ['evt_1-1']]);
});

test('a leader that does not answer loses its place once a tab is looked at', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  const { stream } = await join(t, env);
  await env.pass(5_000);
  await env.happen('visibilitychange');
  await env.pass(6_000);
  assert.equal(stream.transport, 'shared', 'after an answer');
  env.channels[0].mute = true;
  await env.happen('visibilitychange');
  await env.pass(6_000);
  await env.socket.live({ resumed: true, cursor: 'cur_0' });
  assert.equal(stream.transport, 'ws', 'after silence');
});

test('while the gateway is away the leader keeps its place', async (t) => {
  const env = new Env(t, { locks: true });
  const first = await join(t, env);
  const { stream } = await join(t, env);
  env.failing.add('ws').add('sse').add('poll');
  await env.sockets[0].end(1006);
  await env.pass(90_000);
  assert.equal(stream.status, 'connecting');
  env.failing.clear();
  const before = env.sockets.length;
  for (let waited = 0; env.sockets.length === before && waited < 60_000; waited += 500) await env.pass(500);
  await env.socket.live({ resumed: true, cursor: 'cur_0' });
  assert.deepEqual([first.stream.transport, stream.transport], ['ws', 'shared']);
});

test('a joining tab is given what the leader has had and its own node had not', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  await env.sockets[0].event('evt_1-1', 'placed');
  await env.sockets[0].event('evt_2-1', 'shipped');
  const late = await tab(t);
  await env.socket.hello();
  await env.socket.event('evt_1-1', 'placed');
  await env.socket.control({ type: 'replay_complete', cursor: 'cur_1' });
  await settle();
  assert.deepEqual(late.events, ['evt_1-1', 'evt_2-1']);
  assert.equal(late.stream.transport, 'shared');
});

test('a joining tab is given what the leader had before it led', async (t) => {
  const env = new Env(t, { locks: true });
  const early = await tab(t);
  await env.socket.hello();
  await env.socket.event('evt_1-1');
  await env.socket.control({ type: 'replay_complete', cursor: 'cur_1' });
  const late = await join(t, env); // its own node has yet to hear of the event
  assert.deepEqual([early.stream.transport, late.stream.transport], ['ws', 'shared']);
  assert.deepEqual([early.events, late.events], [['evt_1-1'], ['evt_1-1']]);
});

test('a tab that follows is given nothing of before a reset', async (t) => {
  const env = new Env(t, { locks: true });
  const first = await join(t, env);
  await env.socket.event('evt_1-1');
  await env.socket.control({ type: 'reset', reason: 'log_lost' });
  await env.socket.event('evt_2-1', 'placed', { order: 'o2' });
  await env.socket.control({ type: 'replay_complete', cursor: 'cur_2' });
  const late = await join(t, env);
  assert.deepEqual([first, late].map(({ stream }) => stream.getState().map(({ id }) => id)), [['o2'], ['o2']]);
});

test('a tab that is put away leaves, and joins again', async (t) => {
  const env = new Env(t, { locks: true });
  const { stream, events } = await join(t, env);
  await env.happen('freeze');
  assert.deepEqual(env.open, []);
  await env.happen('resume');
  await env.socket.live({ resumed: true, cursor: 'cur_0' });
  await env.socket.event('evt_1-1');
  assert.deepEqual([stream.status, events], ['live', ['evt_1-1']]);
});

test('without locks every tab has its own connection', async (t) => {
  const env = new Env(t);
  await join(t, env);
  await join(t, env);
  assert.equal(env.open.length, 2);
});

test('a tab that does not want to share does not', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  await join(t, env, { share: false });
  assert.equal(env.open.length, 2);
});

test('a leader that has lost its place tells nothing of the orders of other tabs', async (t) => {
  const env = new Env(t, { locks: true });
  const one = await join(t, env, { orderId: 'o1' });
  await join(t, env, { orderId: 'o2' });
  const wide = env.socket;
  await wide.live({ resumed: true, cursor: 'cur_0' });
  env.channels[0].mute = true;
  for (let waited = 0; waited < 40_000; waited += 10_000) {
    await env.pass(10_000);
    await wide.control({ type: 'tip', cursor: 'cur_0' });
  }
  await wide.event('evt_1-1', 'placed', { order: 'o2' });
  assert.deepEqual(one.events, [], 'events of the other tab’s order');
  assert.ok(wide.over, 'the connection for both is still open');
});

test('after a sleep a leader has time to answer', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  const { stream } = await join(t, env);
  await env.sleep(60_000);
  await env.pass(1_000);
  assert.equal(stream.transport, 'shared');
  assert.ok(!env.open.some((wire) => wire.query.get('since') === null && wire !== env.sockets[0]), 'a tab has begun anew');
});

test('a look at any tab is one at the connection', async (t) => {
  const env = new Env(t, { locks: true });
  await join(t, env);
  const { stream } = await join(t, env);
  const [, channel] = env.channels;
  let asks;
  const { postMessage } = Object.getPrototypeOf(channel);
  channel.postMessage = (message) => postMessage.call(channel, asks = message);
  await env.happen('visibilitychange'); // of both tabs
  await env.pass(9_000);
  env.sockets[0].sent.length = 0;
  channel.postMessage(asks); // the second alone
  await settle();
  assert.deepEqual(env.sockets[0].sent, [{ type: 'ping' }]);
  await env.sockets[0].end(4409);
  await env.pass(60_000);
  assert.deepEqual([stream.status, env.open.length], ['connecting', 0]);
  channel.postMessage(asks);
  await settle();
  await env.pass(10);
  assert.equal(env.open.length, 1);
});
