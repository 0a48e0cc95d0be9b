// The client in real pages, against a running `pepay-gateway dev` that nothing
// else uses. In each test nothing is missing and nothing comes twice.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { wholeChromium } from '../browser.mjs';
import { assertAll, delivered, is, Rig, until } from './rig.mjs';
import { Shop } from './proxy.mjs';

const target = process.env.STOREFRONT_URL;
const admin = process.env.OPS_URL;

let rig;
before(async () => { rig = await new Rig(target).start(); });
after(() => rig?.stop());

// Streams open at the gateway.
async function atGateway(transport) {
  const text = await (await fetch(new URL('/metrics', admin))).text();
  const [, n] = new RegExp(`^pepay_gateway_connections\\{[^}]*transport="${transport}"[^}]*\\} (\\d+)`, 'm').exec(text);
  return Number(n);
}

for (const transport of ['ws', 'sse', 'poll']) {
  test(`an order is followed from its placing to its delivery: ${transport}`, async (t) => {
    const { shop, open } = await rig.shopper(t);
    const page = await open({ transport });
    await page.waitForFunction((want) => stream.status === 'live' && stream.transport === want, transport);
    const order = await shop.place();
    await shop.deliver(order);
    await delivered(page, order);
    await assertAll(page, shop);
  });
}

test('eight tabs are live over one connection; its tab closes, and another takes over', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const tabs = await Promise.all(Array.from({ length: 8 }, () => open()));
  for (const tab of tabs) await is(tab, 'live');
  await until('one connection at the gateway', async () => (await atGateway('ws')) === 1);
  const order = await shop.place();
  await shop.move(order, 'payment_confirmed', 'payment_settled');
  for (const tab of tabs) await tab.waitForFunction((id) => stream.getState(id)?.substatus === 'PROVIDER_PLACEMENT_SUBMITTED', order);

  const transports = await Promise.all(tabs.map((tab) => tab.evaluate(() => stream.transport)));
  const leader = transports.indexOf('ws');
  assert.deepEqual(transports.toSorted(), ['shared', 'shared', 'shared', 'shared', 'shared', 'shared', 'shared', 'ws']);
  await tabs.splice(leader, 1)[0].close();
  await shop.move(order, 'placed', 'shipped', 'delivery_confirmed');
  for (const tab of tabs) {
    await delivered(tab, order);
    await assertAll(tab, shop);
  }
  await until('one connection at the gateway', async () => (await atGateway('ws')) === 1);
});

for (const [count, rounds] of [[2, 10], [8, 3]]) {
  test(`${count} tabs that begin at the very same moment share one connection, ${rounds} times`, async (t) => {
    const { open } = await rig.shopper(t);
    const tabs = [];
    for (let i = 0; i < count; i++) tabs.push(await open());
    const all = (act, ...args) => Promise.all(tabs.map((tab) => tab.evaluate(act, ...args)));
    for (let round = 1; round <= rounds; round++) {
      await all(() => stream.close());
      const shop = new Shop(target);
      await all(([customer, at]) => new Promise((resolve) => {
        setTimeout(() => resolve(start(customer)), at - Date.now());
      }), [shop.customer, Date.now() + 20 * count]);
      const order = await shop.place();
      await all((id) => new Promise((resolve) => {
        stream.on('state', look);
        function look() { if (stream.getState(id)) resolve(); }
        look();
      }), order);
      for (const ids of await all(() => seen.ids)) assert.equal(new Set(ids).size, ids.length, `events twice: ${ids}`);
      await until(`one leads, and the others follow, round ${round}`, async () => {
        const transports = await all(() => stream.transport);
        return transports.toSorted().join() === [...Array(count - 1).fill('shared'), 'ws'].join();
      });
      await until('one connection at the gateway', async () => (await atGateway('ws')) === 1);
    }
  });
}

test('tabs that show two orders share one connection, and see their own', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const orders = [await shop.place(), await shop.place()];
  const tabs = [await open({ orderId: orders[0] }), await open({ orderId: orders[1] })];
  for (const tab of tabs) await is(tab, 'live');
  await until('one connection at the gateway', async () => (await atGateway('ws')) === 1);
  for (const order of orders) await shop.deliver(order);
  for (const [i, tab] of tabs.entries()) {
    await delivered(tab, orders[i]);
    assert.deepEqual(await tab.evaluate(() => stream.getState().map(({ id }) => id)), [orders[i]]);
  }
});

test('a log-out and log-in as another shopper share nothing', async (t) => {
  const { context, shop, open } = await rig.shopper(t);
  const mine = await open();
  await is(mine, 'live');
  const order = await shop.place();
  await mine.waitForFunction((id) => stream.getState(id), order);
  const theirs = await context.newPage();
  await theirs.goto(`${rig.proxy.url}/page`);
  const other = new Shop(target);
  await theirs.evaluate((customer) => start(customer), other.customer);
  await is(theirs, 'live', 'ws');
  await shop.deliver(order);
  await other.deliver(await other.place());
  await delivered(mine, order);
  await theirs.waitForFunction(() => stream.getState()[0]?.status === 'delivered');
  await assertAll(mine, shop);
  await assertAll(theirs, other);
});

test('the network goes and comes back', async (t) => {
  const { context, shop, open } = await rig.shopper(t);
  const page = await open();
  await is(page, 'live');
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  await context.setOffline(true);
  rig.proxy.cut();
  await page.waitForFunction(() => stream.status === 'offline');
  await shop.deliver(order);
  await context.setOffline(false);
  await delivered(page, order);
  await assertAll(page, shop);
});

test('a connection that only looks open is found out when the page is looked at', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const page = await open();
  await is(page, 'live');
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  rig.proxy.stall();
  await shop.deliver(order);
  await until('it is asked, and found silent', async () => {
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    return page.evaluate(([id]) => stream.getState(id)?.status === 'delivered', [order]);
  });
  await assertAll(page, shop);
});

test('a page is frozen, and thawed', async (t) => {
  const { context, shop, open } = await rig.shopper(t);
  const tabs = await Promise.all([open(), open()]);
  for (const tab of tabs) await is(tab, 'live');
  const leads = (tab) => tab.evaluate(() => stream.transport === 'ws');
  await until('one leads', async () => (await leads(tabs[0])) !== (await leads(tabs[1])));
  const [page, other] = (await leads(tabs[0])) ? tabs : tabs.toReversed();
  const cdp = await context.newCDPSession(page);
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
  await shop.deliver(order);
  await delivered(other, order); // it has taken over
  await cdp.send('Page.setWebLifecycleState', { state: 'active' });
  await delivered(page, order);
  await assertAll(page, shop);
  await assertAll(other, shop);
});

test('a tab that hangs loses its place to one that is looked at', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const hangs = await open();
  await is(hangs, 'live');
  const page = await open();
  await is(page, 'live', 'shared');
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  const begun = hangs.waitForEvent('console', (message) => message.text() === 'hanging');
  const hanging = hangs.evaluate(() => {
    console.log('hanging');
    for (const end = Date.now() + 9_000; Date.now() < end;);
  });
  await begun;
  await shop.deliver(order);
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await page.waitForFunction(() => stream.transport === 'ws');
  await delivered(page, order);
  await hanging;
  await is(hangs, 'live', 'shared');
  await assertAll(page, shop);
  await assertAll(hangs, shop);
});

test('a page comes back from the back-forward cache', async (t) => {
  const rig = await new Rig(target).start(wholeChromium); // the engine alone has no such cache
  t.after(() => rig.stop());
  const { shop, open } = await rig.shopper(t);
  const page = await open();
  await is(page, 'live');
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  await page.goto(`${rig.proxy.url}/other`);
  await shop.deliver(order);
  await page.goBack({ waitUntil: 'commit' }); // nothing is loaded
  assert.equal(await page.evaluate(() => persisted), true, 'persisted');
  await delivered(page, order);
  await assertAll(page, shop);
});

test('the gateway restarts', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const page = await open();
  await is(page, 'live');
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  await shop.post('/demo/faults/restart', {});
  await page.waitForFunction(() => stream.status !== 'live');
  await page.waitForFunction(() => stream.status === 'live');
  await shop.deliver(order);
  await delivered(page, order);
  await assertAll(page, shop);
});

test('WebSocket is blocked, then SSE too, and both come back', async (t) => {
  const { shop, open } = await rig.shopper(t);
  rig.proxy.blocked.add('ws');
  const page = await open();
  await page.waitForFunction(() => stream.transport === 'sse');
  const order = await shop.place();
  await page.waitForFunction((id) => stream.getState(id), order);
  rig.proxy.blocked.add('sse');
  rig.proxy.cut();
  await page.waitForFunction(() => stream.transport === 'poll');
  await shop.move(order, 'payment_confirmed', 'payment_settled');
  await page.waitForFunction((id) => stream.getState(id)?.substatus === 'PROVIDER_PLACEMENT_SUBMITTED', order);
  rig.proxy.blocked.clear();
  await page.evaluate(() => dispatchEvent(new Event('online'))); // else within two minutes
  await page.waitForFunction(() => stream.transport === 'ws');
  await shop.move(order, 'placed', 'shipped', 'delivery_confirmed');
  await delivered(page, order);
  await assertAll(page, shop);
});

test('after every close code that allows it the stream goes on', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const page = await open();
  await is(page, 'live');
  await page.evaluate(() => { Math.random = () => 0.01; }); // waits are random, up to half a minute
  const order = await shop.place();
  const moves = ['payment_confirmed', 'payment_settled', 'placed', 'shipped', 'delivery_confirmed'];
  for (const [code, error] of [
    [1000], [1001], [1011, 'INTERNAL_SERVER_ERROR'], [1012], [1013], [4401, 'SESSION_EXPIRED'], [4408, 'TOO_SLOW'], [4429, 'RATE_LIMIT_EXCEEDED'], [4409, 'REPLACED'],
  ]) {
    await is(page, 'live');
    const hellos = await page.evaluate(() => seen.controls.filter((type) => type === 'hello').length);
    rig.proxy.closeWith(code, error);
    if (moves.length) await shop.move(order, moves.shift());
    if (code === 4409) {
      await page.waitForFunction(() => stream.status === 'connecting');
      await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    }
    await page.waitForFunction((n) => seen.controls.filter((type) => type === 'hello').length > n, hellos);
  }
  await delivered(page, order);
  await assertAll(page, shop);
});

test('after every close code that forbids it the stream has ended', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const page = await open();
  await page.evaluate(() => stream.close());
  for (const [code, error] of [[1008, 'TOO_MANY_MESSAGES'], [1009], [4400, 'BAD_MESSAGE'], [4403, 'OUT_OF_SCOPE']]) {
    await page.evaluate((customer) => start(customer), shop.customer);
    await is(page, 'live');
    rig.proxy.closeWith(code, error);
    await page.waitForFunction((want) => stream.status === 'ended' && seen.errors.join() === want, error ?? `CLOSED_${code}`);
    await until('nothing is open', () => rig.proxy.open('ws') === 0);
  }
});
