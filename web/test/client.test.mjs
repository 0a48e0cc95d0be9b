// The client as it is shipped, against sockets and a clock of the test's own.

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { connectCommerceEvents, PepayGatewayError, version, ws } from '../dist/pepay-gateway.mjs';
import { fakeCommerceEvents, fakeOrderEvent } from '../dist/testing.mjs';
import { Env, orderEvent, settle, startMS } from './env.mjs';

const url = 'https://events.shop.test';

// A stream whose page writes down what it was told.
async function connect(t, options = {}) {
  let tokens = 0;
  const stream = connectCommerceEvents({ url, getToken: async () => `t${++tokens}`, ...options });
  const seen = { events: [], states: [], controls: [], statuses: [], errors: [], get tokens() { return tokens; } };
  stream.on('event', (event) => seen.events.push(event.id)).on('state', (state) => seen.states.push(state.status));
  stream.on('control', (control) => seen.controls.push(control.type)).on('status', ({ status }) => seen.statuses.push(status));
  stream.on('error', (error) => seen.errors.push(error.code));
  t.after(() => stream.close());
  await settle();
  return { stream, seen };
}

test('it opens a WebSocket with its token in the subprotocol, not in the address', async (t) => {
  const env = new Env(t);
  const { stream, seen } = await connect(t, { orderId: ['o1', 'o2'], customer_id: 'cust_1', types: 'invoice.*,commerce.order.*' });
  assert.equal(env.socket.url.origin + env.socket.url.pathname, 'wss://events.shop.test/ws/commerce/events');
  assert.deepEqual(env.socket.protocols, ['pepay.v1', 'bearer.t1']);
  assert.deepEqual([...env.socket.query], [['types', 'invoice.*,commerce.order.*'], ['customer_id', 'cust_1'], ['order_id', 'o1'], ['order_id', 'o2']]);
  await env.socket.live();
  await env.socket.event('evt_1-1', 'placed');
  assert.deepEqual(seen.events, ['evt_1-1']);
  assert.deepEqual(seen.states, ['placed']);
  assert.deepEqual([stream.status, stream.transport], ['live', 'ws']);
  assert.equal(stream.getState('o1').status, 'placed');
});

test('the gateway is found by the ws_url of the token', async (t) => {
  const env = new Env(t);
  await connect(t, { url: undefined, getToken: () => ({ success: true, data: { token: 'x', ws_url: 'ws://127.0.0.1:8080/ws/commerce/events' } }) });
  assert.equal(env.socket.url.href, 'ws://127.0.0.1:8080/ws/commerce/events?');
});

test('a cut connection goes on after the last event, with a new token', async (t) => {
  const env = new Env(t);
  const { seen } = await connect(t);
  await env.socket.live();
  await env.socket.event('evt_1-1');
  await env.socket.end(1006);
  assert.equal(seen.statuses.at(-1), 'connecting');
  await env.pass(1_000);
  assert.equal(env.socket.query.get('since'), 'evt_1-1');
  assert.deepEqual(env.socket.protocols, ['pepay.v1', 'bearer.t2']);
  await env.socket.hello({ resumed: true, cursor: 'cur_1' });
  await env.socket.event('evt_1-1');
  await env.socket.event('evt_2-1', 'shipped');
  assert.deepEqual(seen.events, ['evt_1-1', 'evt_2-1']);
});

test('a tip moves the cursor of a quiet stream', async (t) => {
  const env = new Env(t);
  await connect(t);
  await env.socket.live();
  await env.socket.control({ type: 'tip', cursor: 'cur_9' });
  await env.socket.end(1006);
  await env.pass(1_000);
  assert.equal(env.socket.query.get('since'), 'cur_9');
});

test('a connection that dies within a snapshot gets the whole of it again', async (t) => {
  const env = new Env(t);
  const { seen } = await connect(t);
  await env.socket.hello();
  await env.socket.control({ type: 'snapshot', count: 2, complete: true, truncated: false });
  await env.socket.event('evt_1-1');
  await env.socket.end(1006);
  await env.pass(1_000);
  assert.equal(env.socket.query.get('since'), null);
  await env.socket.hello();
  await env.socket.event('evt_1-1');
  await env.socket.event('evt_1-2', 'placed', { order: 'o2' });
  assert.deepEqual(seen.events, ['evt_1-1', 'evt_1-2']);
});

test('reset takes the cursor and the orders away, and what follows is the state', async (t) => {
  const env = new Env(t);
  const { stream, seen } = await connect(t);
  await env.socket.live();
  await env.socket.event('evt_5-1', 'shipped');
  await env.socket.control({ type: 'reset', reason: 'trimmed' });
  assert.equal(stream.getState('o1'), undefined);
  await env.socket.event('evt_5-1', 'shipped');
  assert.deepEqual(seen.states, ['shipped', 'shipped']);
  await env.socket.end(1006);
  await env.pass(1_000);
  assert.equal(env.socket.query.get('since'), null, 'cursor after a snapshot cut short');
});

test('an older event that comes late is told, and changes no state', async (t) => {
  const env = new Env(t);
  const { stream, seen } = await connect(t);
  await env.socket.live();
  for (const [id, status] of [['evt_9-2', 'shipped'], ['evt_9-1', 'placed'], ['evt_8-7', 'processing'], ['evt_9-10', 'delivered']]) await env.socket.event(id, status);
  assert.deepEqual(seen.events, ['evt_9-2', 'evt_9-1', 'evt_8-7', 'evt_9-10']);
  assert.deepEqual(seen.states, ['shipped', 'delivered']);
  assert.equal(stream.getState()[0].status, 'delivered');
});

test('where WebSocket does not open, SSE is tried, then polling, and WebSocket again later', async (t) => {
  const env = new Env(t);
  env.failing.add('ws').add('sse');
  const path = '/api/v1/orders/o1/state';
  env.answers.set(path, { status: 200, headers: { ETag: '"a"', 'Stream-Status': 'live' }, body: { data: { complete: true, cursor: 'cur_5', data: [orderEvent('evt_5-1', 'placed')] } } });
  const { stream, seen } = await connect(t, { orderId: 'o1' });
  await env.pass(1_500);
  assert.equal(env.source.query.get('token'), 't2');
  assert.deepEqual([stream.status, stream.transport], ['live', 'poll']);
  assert.deepEqual(seen.events, ['evt_5-1']);

  env.answers.set(path, { status: 304, headers: { ETag: '"a"', 'Stream-Status': 'stale' } });
  await env.pass(6_000);
  assert.equal(env.requests.at(-1).headers['If-None-Match'], '"a"');
  assert.equal(stream.status, 'stale');

  env.failing.clear();
  for (let waited = 0; !env.open.length && waited < 100_000; waited += 2_000) await env.pass(2_000);
  assert.equal(env.socket.query.get('since'), 'cur_5', 'where the stream goes on');
  await env.socket.hello({ resumed: true, cursor: 'cur_5' });
  await env.socket.event('evt_6-1', 'shipped');
  assert.deepEqual([stream.status, stream.transport], ['live', 'ws']);
  assert.deepEqual(seen.events, ['evt_5-1', 'evt_6-1']);
  const polls = env.requests.length;
  await env.pass(60_000);
  assert.equal(env.requests.length, polls, 'polls after the WebSocket is up');
});

test('a WebSocket that has worked is given three tries before SSE', async (t) => {
  const env = new Env(t);
  await connect(t);
  await env.socket.live();
  await env.pass(6_000);
  env.failing.add('ws');
  await env.socket.end(1006);
  await env.pass(40_000);
  assert.equal(env.sockets.length, 4);
  assert.equal(env.sources.length, 1);
});

test('an EventSource that gives up is made anew, from the last event on', async (t) => {
  const env = new Env(t);
  const { seen } = await connect(t, { transport: 'sse' });
  await env.source.live();
  await env.source.event('evt_1-1');
  await env.source.fail();
  await env.pass(1_000);
  assert.equal(env.sources.length, 2);
  assert.deepEqual([env.source.query.get('since'), env.source.query.get('token')], ['evt_1-1', 't2']);
  await env.source.live({ resumed: true, cursor: 'cur_1' });
  assert.equal(seen.statuses.at(-1), 'live');
});

test('a node that sends its clients away says when to come back', async (t) => {
  const env = new Env(t);
  await connect(t);
  await env.socket.live();
  await env.socket.control({ type: 'disconnect', code: 1012, reconnect: true, retry_ms: 7_000 });
  await env.socket.end(1012);
  await env.pass(6_500);
  assert.equal(env.sockets.length, 1);
  await env.happen('visibilitychange');
  assert.equal(env.sockets.length, 1, 'connections before retry_ms, though the page was looked at');
  await env.pass(1_000);
  assert.equal(env.sockets.length, 2);
});

for (const [code, told, want] of [
  [1000, '', 'again'], [1001, '', 'again'], [1011, 'INTERNAL_SERVER_ERROR', 'again'], [1012, '', 'again'], [1013, '', 'again'],
  [4408, 'TOO_SLOW', 'again'], [4429, 'RATE_LIMIT_EXCEEDED', 'again'], [4401, 'SESSION_EXPIRED', 'at once'], [4409, 'REPLACED', 'when seen'],
  [1008, 'TOO_MANY_MESSAGES', 'never'], [1009, '', 'never'], [4400, 'BAD_MESSAGE', 'never'], [4403, 'OUT_OF_SCOPE', 'never'],
]) {
  test(`after close code ${code} it comes back: ${want}`, async (t) => {
    const env = new Env(t);
    const { stream, seen } = await connect(t);
    await env.socket.live();
    if (told) await env.socket.say({ object: 'ws_error', code: told, message: 'because' });
    await env.socket.end(code);
    if (want === 'never') {
      assert.deepEqual([stream.status, seen.errors], ['ended', [told || `CLOSED_${code}`]]);
      await env.pass(120_000);
      await env.happen('online');
      assert.equal(env.sockets.length, 1);
      return;
    }
    await env.pass(want === 'at once' ? 1 : 1_100);
    if (want === 'when seen') {
      await env.pass(60_000);
      assert.equal(env.sockets.length, 1);
      await env.happen('visibilitychange');
      await env.pass(1);
    }
    assert.equal(env.sockets.length, 2);
    assert.equal(seen.tokens, 2, 'tokens asked for');
  });
}

test('tokens that are refused again and again end the stream', async (t) => {
  const env = new Env(t);
  t.mock.method(Math, 'random', () => 0); // no wait
  const { stream, seen } = await connect(t);
  for (let i = 0; i < 6; i++) {
    await env.socket.say({ object: 'ws_error', code: 'TOKEN_INVALID', message: 'no' });
    await env.socket.end(4401);
    await env.pass(1);
  }
  assert.equal(stream.status, 'ended');
  assert.equal(seen.errors.length, 6);
});

test('a token given as text ends the stream when it is refused', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t, { getToken: undefined, token: 'once' });
  const errors = [];
  stream.on('error', (error) => errors.push([error.code, error.retry, error.closeCode]));
  await env.socket.live();
  await env.socket.end(4401);
  assert.deepEqual(errors, [['CLOSED_4401', false, 4401]]);
  assert.equal(stream.status, 'ended');
});

test('a getToken that fails is asked again, unless it says that there is no use', async (t) => {
  const env = new Env(t);
  let failure = new Error('the shop is closed');
  const { stream, seen } = await connect(t, { getToken: async () => { throw failure; } });
  await env.pass(10_000);
  assert.ok(seen.errors.length > 2 && seen.errors.every((code) => code === 'TOKEN_FAILED'), `errors = ${seen.errors}`);
  assert.equal(stream.status, 'connecting');
  failure = Object.assign(new Error('not yours'), { code: 'NOT_YOURS', retry: false });
  await env.pass(31_000);
  assert.deepEqual([stream.status, seen.errors.at(-1)], ['ended', 'NOT_YOURS']);
});

test('silence beyond two heartbeats is a dead connection, replaced without a wait', async (t) => {
  const env = new Env(t);
  await connect(t);
  await env.socket.live();
  await env.pass(20_000);
  await env.socket.control({ type: 'tip', cursor: 'cur_2' });
  await env.pass(34_000);
  assert.equal(env.sockets.length, 1);
  await env.pass(4_000);
  assert.equal(env.sockets.length, 2);
  assert.equal(env.socket.query.get('since'), 'cur_2');
});

for (const [name, more] of [['visibilitychange'], ['online'], ['clock jump']]) {
  test(`${name}: the connection is asked, and replaced when it does not answer`, async (t) => {
    const env = new Env(t);
    await connect(t);
    await env.socket.live();
    await env.pass(9_000);
    const wake = () => name === 'clock jump' ? env.sleep(12_000) : env.happen(name, more);
    await wake();
    assert.deepEqual(env.socket.sent, [{ type: 'ping' }]);
    await env.socket.control({ type: 'tip', cursor: 'cur_1' });
    await env.pass(6_000);
    assert.equal(env.sockets.length, 1, 'connections after an answer');
    await wake();
    await env.pass(6_500);
    assert.equal(env.sockets.length, 2, 'connections after silence');
  });
}

test('an SSE stream is checked by a new one, and closed only once that is up', async (t) => {
  const env = new Env(t);
  await connect(t, { transport: 'sse' });
  await env.source.live();
  await env.pass(9_000);
  await env.happen('visibilitychange');
  assert.equal(env.open.length, 2);
  await env.source.live({ resumed: true, cursor: 'cur_1' });
  assert.deepEqual(env.open, [env.source]);
});

test('what the browser calls offline is told, until a frame knows better', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  await env.socket.live();
  await env.happen('offline');
  assert.equal(stream.status, 'offline');
  await env.socket.control({ type: 'tip', cursor: 'cur_1' });
  assert.equal(stream.status, 'live');
});

test('a page that is put away holds nothing open, and goes on where it was', async (t) => {
  const env = new Env(t);
  const { seen } = await connect(t);
  await env.socket.live();
  await env.socket.event('evt_1-1');
  await env.happen('pagehide', { persisted: true });
  assert.deepEqual(env.open, []);
  await env.pass(100_000);
  assert.deepEqual(env.open, [], 'connections of a page that is away');
  await env.happen('pageshow', { persisted: true });
  assert.equal(env.socket.query.get('since'), 'evt_1-1');
  await env.socket.live({ resumed: true, cursor: 'cur_1' });
  assert.equal(seen.statuses.at(-1), 'live');
});

test('before the session ends a stream with a new token takes over', async (t) => {
  const env = new Env(t);
  const { seen } = await connect(t);
  await env.socket.live();
  await env.socket.control({ type: 'token_expiring', session_expires_at: startMS / 1000 + 5 });
  await env.pass(3_000);
  assert.equal(env.open.length, 2);
  assert.equal(seen.tokens, 2);
  await env.socket.live({ resumed: true, cursor: 'cur_1' });
  assert.deepEqual(env.open, [env.socket]);
  assert.ok(!seen.statuses.slice(seen.statuses.indexOf('live')).includes('connecting'), `statuses = ${seen.statuses}`);
});

test("another shopper's token: nothing of the one before is shown or resumed", async (t) => {
  const env = new Env(t);
  const { stream, seen } = await connect(t);
  await env.socket.live();
  await env.socket.event('evt_1-1');
  await env.socket.end(1006);
  await env.pass(1_100);
  await env.socket.hello({ resumed: true, cursor: 'cur_1', scope_id: 'scp_2' });
  assert.equal(seen.controls.at(-1), 'reset');
  assert.deepEqual(stream.getState(), []);
  assert.equal(env.open.length, 1);
  assert.equal(env.socket.query.get('since'), null);
});

test('setOrders begins anew with a snapshot', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t, { orderId: 'o1' });
  await env.socket.live();
  stream.setOrders(['o1', 'o2']);
  await settle();
  assert.deepEqual(env.socket.query.getAll('order_id'), ['o1', 'o2']);
  assert.equal(env.socket.query.get('since'), null);
  assert.deepEqual(env.open, [env.socket]);
});

test('a loop reads every event from its beginning on, and ends with the stream', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  const ids = [];
  const loop = (async () => { for await (const event of stream) ids.push(event.id); })();
  await env.socket.live();
  await env.socket.event('evt_1-1');
  await env.socket.event('evt_2-1');
  stream.close();
  await loop;
  assert.deepEqual(ids, ['evt_1-1', 'evt_2-1']);
});

test('a loop ends with the error that ended the stream', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  const failed = assert.rejects(stream[Symbol.asyncIterator]().next(), { code: 'CLOSED_4403', retry: false });
  await env.socket.live();
  await env.socket.end(4403);
  await failed;
});

test('a signal closes the stream, also before it began', async (t) => {
  const env = new Env(t);
  const stop = new AbortController();
  const { stream } = await connect(t, { signal: stop.signal });
  stop.abort();
  assert.equal(stream.status, 'ended');
  assert.deepEqual(env.open, []);
  const { stream: never } = await connect(t, { signal: AbortSignal.abort() });
  assert.equal(never.status, 'ended');
  assert.equal(env.sockets.length, 1);
});

test("a page's own mistake does not stop the stream", async (t) => {
  const env = new Env(t);
  const { stream, seen } = await connect(t);
  const thrown = mock.fn();
  const queue = globalThis.queueMicrotask;
  globalThis.queueMicrotask = (task) => queue(() => { try { task(); } catch (err) { thrown(err.message); } });
  t.after(() => { globalThis.queueMicrotask = queue; });
  const mistake = () => { throw new Error('mine'); };
  stream.on('event', mistake);
  await env.socket.live();
  await env.socket.event('evt_1-1');
  stream.off('event', mistake);
  await env.socket.event('evt_2-1');
  assert.deepEqual(seen.events, ['evt_1-1', 'evt_2-1']);
  assert.deepEqual(thrown.mock.calls.map((call) => call.arguments[0]), ['mine']);
});

test('orders are the same from either casing and any form of time', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  await env.socket.live();
  await env.socket.event('evt_1790000001000-1', 'shipped', {
    order: 'camel', invoiceId: 'i1', customerId: 'cust_1', createdAt: 1_790_000_000, totalAmountUsd: '10.00', substatus: null, refundStatus: 'NONE', cancellationStatus: 'none',
    lineItems: [{ title: 'Lamp', quantity: 2, price: '5.00' }], payment: { status: 'paid', settlement: { status: 'settled' } },
    fulfillment: { shipments: [{ carrier: 'UPS', trackingNumber: '1Z', carrierTrackingUrl: 'https://track.test/1Z', deliveryStatus: 'In Transit' }] },
  });
  await env.socket.event('evt_1790000001000-2', 'shipped', {
    order: 'snake', invoice_id: 'i2', customer_id: 'cust_1', created_at: '2026-09-21T14:13:20.000Z', total_amount_usd: 10, refund_status: 'none',
    line_items: [{ title: 'Lamp', quantity: '2', price: '5.00' }], payment: { status: 'paid', settlement: { status: 'settled' } },
    fulfillment: { shipments: [{ carrier: 'UPS', tracking_number: '1Z', carrier_tracking_url: 'https://track.test/1Z', delivery_status: 'In Transit' }] },
  });
  const { raw, ...camel } = JSON.parse(JSON.stringify(stream.getState('camel')));
  assert.deepEqual(camel, {
    id: 'camel', status: 'shipped', invoiceId: 'i1', customerId: 'cust_1', createdAt: 1_790_000_000_000, updatedAt: 1_790_000_001_000, total: '10.00',
    items: [{ title: 'Lamp', quantity: 2, price: '5.00' }], payment: { status: 'paid', settlement: 'settled' }, invoice: {},
    shipments: [{ carrier: 'UPS', trackingNumber: '1Z', trackingUrl: 'https://track.test/1Z', status: 'In Transit' }],
  });
  assert.equal(raw.order.totalAmountUsd, '10.00');
  const { raw: _, ...snake } = JSON.parse(JSON.stringify(stream.getState('snake')));
  assert.deepEqual(snake, { ...camel, id: 'snake', invoiceId: 'i2', total: '10' });
});

test('an invoice and a payment find their order, whichever comes first', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  const of = (id, object) => env.socket.say({ id, object: 'event', type: `${object.object}.updated`, created: 1, data: { object } });
  await env.socket.live();
  await of('evt_3-1', { object: 'invoice_payment', id: 'p1', invoice_id: 'i1', status: 'confirmed', settlement_status: 'pending' });
  await of('evt_3-2', { object: 'invoice', id: 'i1', status: 'paid', expires_at: 1_790_001_800 });
  assert.deepEqual(stream.getState(), []);
  await env.socket.event('evt_2-1', 'processing', { invoice_id: 'i1' });
  const { payment, invoice, expiresAt, updatedAt } = stream.getState('o1');
  assert.deepEqual(payment, { status: 'confirmed', settlement: 'pending' });
  assert.deepEqual([invoice.status, expiresAt, updatedAt], ['paid', 1_790_001_800_000, 3]);
  await of('evt_4-1', { object: 'invoice_payment', id: 'p1', invoice_id: 'i1', settlement_status: 'settled' });
  assert.deepEqual(stream.getState('o1').payment, { status: 'confirmed', settlement: 'settled' }, 'what a short event left out');
});

test('values that are not what they should be do no harm', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  await env.socket.live();
  await env.socket.event('evt_1-1', 'constructor', {
    order: '__proto__', lineItems: 'none', fulfillment: { shipments: [null, 7, { carrierTrackingUrl: 'javascript:alert(1)', trackingNumber: 9 }] }, refund: null, payment: null, createdAt: 'soon',
  });
  await env.socket.say({ object: 'event', id: 'evt_2-1', data: null });
  await env.socket.say({ object: 'something' });
  const state = stream.getState('__proto__');
  assert.deepEqual([state.status, state.items, state.createdAt], ['constructor', [], undefined]);
  assert.deepEqual(JSON.parse(JSON.stringify(state.shipments)), [{ trackingNumber: '9' }]);
});

test('many orders: the oldest are forgotten, the seen ids are bounded', async (t) => {
  const env = new Env(t);
  const { stream, seen } = await connect(t);
  await env.socket.live();
  const socket = env.socket;
  for (let i = 0; i < 5_000; i++) socket.onmessage({ data: JSON.stringify(orderEvent(`evt_${i + 1}-1`, 'placed', { order: `o${i}` })) });
  assert.equal(seen.events.length, 5_000);
  assert.equal(stream.getState().length, 1_500);
  assert.equal(stream.getState('o4999').status, 'placed');
});

test('options that cannot work are refused at once', () => {
  assert.throws(() => connectCommerceEvents({ url }), (err) => err instanceof PepayGatewayError && err.code === 'BAD_OPTION' && !err.retry);
  assert.equal(ws.connectCommerceEvents, connectCommerceEvents);
  assert.match(version, /^\d+\.\d+\.\d+$/);
});

test('a fake stream does what a test of the shop says', async (t) => {
  new Env(t);
  const stream = fakeCommerceEvents({ orderId: 'o1' });
  const seen = [];
  stream.on('status', ({ status }) => seen.push(status)).on('state', (state) => seen.push(state.status)).on('error', (error) => seen.push(error.code));
  stream.setStatus('live');
  const event = fakeOrderEvent('o1', 'shipped', { fulfillment: { shipments: [{ carrier: 'UPS' }] } });
  stream.emit(event);
  stream.emit(event);
  stream.control({ type: 'reset', reason: 'test' });
  assert.equal(stream.getState('o1'), undefined);
  stream.fail(new PepayGatewayError('OUT_OF_SCOPE', 'no', false));
  assert.deepEqual(seen, ['live', 'shipped', 'OUT_OF_SCOPE', 'ended']);
});

test('a stream that opens while Pepay is away says since when', async (t) => {
  const env = new Env(t);
  const { stream } = await connect(t);
  const statuses = [];
  stream.on('status', ({ status, reason, since }) => statuses.push([status, reason, since]));
  await env.socket.hello({ status: 'stale', reason: 'upstream_down', since_ms: 5 });
  assert.deepEqual(statuses, [['stale', 'upstream_down', 5]]);
});

const shown = (order, headers = {}) => [`/api/v1/orders/${order}/state`, { status: 200, headers, body: { data: { complete: true, cursor: 'cur_5', data: [orderEvent(`evt_5-${order.slice(1)}`, 'placed', { order })] } } }];

test('polling tells the worst of what it hears, also of an order that is not there', async (t) => {
  const env = new Env(t);
  env.answers.set(...shown('o1', { 'Stream-Status': 'live' })).set('/api/v1/orders/o2/state', { status: 404, headers: { 'Stream-Status': 'stale', 'Stream-Since': '7' } });
  const { stream } = await connect(t, { orderId: ['o1', 'o2'], transport: 'poll' });
  assert.deepEqual([stream.status, stream.since], ['stale', 7]);
  env.answers.set(...shown('o1', { 'Stream-Status': 'live' })).set(...shown('o2', { 'Stream-Status': 'catching_up' }));
  await env.pass(6_000);
  assert.equal(stream.status, 'catching_up');
});

test('polling goes on after a token that never came', async (t) => {
  const env = new Env(t);
  env.answers.set(...shown('o1'));
  let asked = 0;
  const getToken = () => ++asked === 2 ? new Promise(() => {}) : { token: `t${asked}`, expires_at: Date.now() / 1000 + 6 };
  const { stream, seen } = await connect(t, { orderId: 'o1', transport: 'poll', getToken });
  assert.equal(stream.status, 'live');
  await env.pass(8_000);
  assert.equal(asked, 2);
  env.answers.set('/api/v1/orders/o1/state', { status: 200, body: { data: { data: [orderEvent('evt_6-1', 'shipped')] } } });
  await env.pass(20_000);
  assert.deepEqual([stream.status, seen.states.at(-1)], ['live', 'shipped']);
});

test('from polling it comes back to SSE where WebSocket stays blocked', async (t) => {
  const env = new Env(t);
  env.failing.add('ws').add('sse');
  env.answers.set(...shown('o1'));
  const { stream } = await connect(t, { orderId: 'o1' });
  await env.pass(1_500);
  assert.equal(stream.transport, 'poll');
  env.failing.delete('sse');
  for (let waited = 0; !env.open.length && waited < 100_000; waited += 2_000) await env.pass(2_000);
  await env.source.live({ resumed: true, cursor: 'cur_5' });
  assert.deepEqual([stream.transport, env.open], ['sse', [env.source]]);
});

test('polling asks for what the stream would bring, and no more', async (t) => {
  const env = new Env(t);
  env.answers.set('/api/v1/events', { status: 200, body: { data: { data: [] } } });
  await connect(t, { customerId: 'cust_1', types: 'invoice.*', transport: 'poll' });
  env.answers.set(...shown('o1'));
  await connect(t, { orderId: ['o1'], types: 'invoice.*', transport: 'poll' });
  const asked = env.requests.map(({ path }) => [path.split('?')[0], ...new URLSearchParams(path.split('?')[1])].join(' '));
  assert.deepEqual(asked, [
    '/api/v1/events limit,100 types,invoice.* customer_id,cust_1',
    '/api/v1/orders/o1/state limit,100 types,invoice.*',
  ]);
});

test("polling with another shopper's token: nothing of the one before is shown", async (t) => {
  const env = new Env(t);
  env.answers.set('/api/v1/events', { status: 200, headers: { 'Stream-Scope': 'scp_1' }, body: { data: { data: [orderEvent('evt_5-1', 'placed')] } } });
  const { stream, seen } = await connect(t, { transport: 'poll' });
  assert.equal(stream.getState().length, 1);
  env.answers.set('/api/v1/events', { status: 200, headers: { 'Stream-Scope': 'scp_2' }, body: { data: { data: [orderEvent('evt_6-1', 'shipped', { order: 'o2' })] } } });
  await env.pass(7_000);
  assert.deepEqual([stream.getState().map(({ id }) => id), seen.controls], [['o2'], ['reset']]);
  assert.equal(stream.status, 'live');
});

test('a hidden page whose timers are held back is not taken for one that slept', async (t) => {
  const env = new Env(t);
  const { seen } = await connect(t, { transport: 'sse' });
  await env.source.live();
  env.page.hidden = true;
  for (let minute = 0; minute < 3; minute++) {
    await env.pass(8_000);
    await env.source.control({ type: 'tip', cursor: 'cur_1' });
    await env.sleep(12_000);
    await env.source.control({ type: 'tip', cursor: 'cur_1' });
  }
  assert.deepEqual([env.sources.length, seen.tokens], [1, 1]);
});

test('a look at a page that has just been looked at does not begin again', async (t) => {
  const env = new Env(t);
  await connect(t, { transport: 'sse' });
  await env.source.live();
  await env.pass(9_000);
  for (let i = 0; i < 3; i++) await env.happen('visibilitychange');
  assert.equal(env.sources.length, 2);
});
