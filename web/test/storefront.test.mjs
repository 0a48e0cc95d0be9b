// The shop against STOREFRONT_URL, a running `pepay-gateway dev`, or else
// against the stand-in.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertAccessible, assertFits, launch, open, placeOrder, screenshot, statusOf, waitForState, waitForStatus, watchStates } from './browser.mjs';
import { Fake } from './fake.mjs';

const happyPath = ['pending_payment', 'processing', 'placed', 'shipped', 'delivered'];

let browser;
let fake;
let url = process.env.STOREFRONT_URL;

before(async () => {
  if (!url) {
    fake = await new Fake().start();
    url = fake.url;
  }
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await fake?.stop();
});

// Opens the shop and orders a lamp.
async function order(t, options) {
  const page = await open(t, browser, url, options);
  const id = await placeOrder(page);
  await waitForState(page, 'live');
  return { page, id };
}

// Clicks the transitions one by one, each once the page offers it as the next.
async function move(page, ...transitions) {
  for (const transition of transitions) await page.locator(`[data-move="${transition}"].primary`).click();
}

async function deliver(page) {
  await move(page, 'payment_confirmed', 'payment_settled', 'placed', 'shipped', 'delivery_confirmed');
  await waitForStatus(page, 'delivered');
}

// Moves the order without its page.
async function moveBehind(page, id, transition) {
  const res = await page.request.post(new URL(`/demo/orders/${id}/simulate`, url).href, { data: { transitionTo: transition } });
  assert.equal(res.status(), 200, transition);
}

// Opens the shop in a browser that has this transport only, and counts what is
// opened over it.
async function openOver(t, transport, options) {
  const page = await open(t, browser, url, options);
  const opened = { WebSocket: 0, SSE: 0 };
  page.on('websocket', () => opened.WebSocket++);
  page.on('request', (request) => {
    if (new URL(request.url()).pathname.startsWith('/sse/')) opened.SSE++;
  });
  const other = transport === 'SSE' ? 'WebSocket' : 'EventSource';
  await page.context().addInitScript((name) => { delete globalThis[name]; }, other);
  return { page, opened };
}

for (const transport of ['WebSocket', 'SSE']) {
  test(`an order is followed from the basket to the door over ${transport}`, async (t) => {
    const { page, opened } = await openOver(t, transport);
    await page.getByRole('button', { name: 'Add to basket: desk lamp' }).click();
    await page.getByRole('button', { name: 'Add to basket: coffee mug' }).click();
    await page.getByRole('button', { name: 'One Coffee mug more' }).click();
    assert.equal(await page.locator('#sum').textContent(), '$74.00', 'sum of a lamp and two mugs');
    await screenshot(page, 'storefront-basket');
    await page.getByRole('button', { name: 'Place the order' }).click();
    await page.waitForURL(/order\.html\?id=/);
    const element = page.locator('pepay-order');
    await element.getByText('Waiting for your payment').first().waitFor();
    await waitForState(page, 'live');
    assert.ok(opened[transport] > 0, `connections over ${transport} = ${opened[transport]}`);
    assert.equal(opened.WebSocket + opened.SSE, opened[transport], 'connections over the other');
    await page.evaluate(() => {
      const tracker = document.querySelector('pepay-order');
      globalThis.seen = [tracker.state.status];
      tracker.addEventListener('pepay-state', ({ detail }) => {
        if (seen.at(-1) !== detail.status) seen.push(detail.status);
      });
    });
    await screenshot(page, `storefront-${transport.toLowerCase()}-new-order`);
    await deliver(page);
    assert.deepEqual(await page.evaluate(() => seen), happyPath, 'statuses seen');
    await element.getByText('1 × Desk lamp').waitFor();
    await element.getByText('2 × Coffee mug').waitFor();
    await element.getByText('Total $81.40').waitFor();
    const { invoice, payment } = await page.evaluate(() => document.querySelector('pepay-order').state);
    assert.deepEqual([invoice.status, payment.status, payment.settlement], ['paid', 'confirmed', 'settled']);
    await page.locator('#all [data-status="delivered"]').getByText('Desk lamp, Coffee mug').waitFor();
    await screenshot(page, `storefront-${transport.toLowerCase()}-delivered`);
  });
}

test('an order that fails, one that is cancelled, and a refund are shown', async (t) => {
  const { page } = await order(t);
  const element = page.locator('pepay-order');
  await move(page, 'payment_confirmed');
  await waitForStatus(page, 'processing');
  await page.getByRole('button', { name: 'Fail' }).click();
  await element.getByText('This order could not be placed').first().waitFor();
  await page.getByRole('button', { name: 'Refund' }).click();
  await element.getByText(/^Refund .*refunded/).waitFor();

  await page.goto(url);
  await placeOrder(page, 'mug');
  await move(page, 'payment_confirmed', 'payment_settled', 'placed');
  await waitForStatus(page, 'placed');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await element.getByText('Cancelled').first().waitFor();
});

test('the frames are shown as they came', async (t) => {
  const { page, id } = await order(t);
  await move(page, 'payment_confirmed');
  const frame = page.locator('#frames li', { hasText: 'invoice.updated' });
  await frame.locator('summary').click();
  const { object, type, data } = JSON.parse(await frame.locator('pre').textContent());
  assert.deepEqual([object, type, data.object.status], ['event', 'invoice.updated', 'paid']);
  assert.ok(JSON.stringify(data).includes(id), `an event of order ${id}: ${JSON.stringify(data)}`);
  assert.equal(await page.locator('#frames li', { hasText: 'replay_complete' }).count() > 0, true, 'controls among the frames');
});

test('two shoppers do not see each other', async (t) => {
  const [{ page: alice, id: hers }, { page: bob, id: his }] = [await order(t, { faulty: true }), await order(t, { faulty: true })];
  assert.equal(await alice.locator(`[data-order="${his}"]`).count(), 0, 'his order on her page');
  assert.equal(await bob.locator(`[data-order="${hers}"]`).count(), 0, 'her order on his page');
  await bob.goto(new URL(`order.html?id=${hers}`, url).href);
  await bob.locator('pepay-order').getByText('There is no such order.').first().waitFor();
  await bob.locator(`[data-order="${his}"]`).waitFor();
});

test('a reload keeps the shopper and the orders, one who signs out has none', async (t) => {
  const { page, id } = await order(t, { faulty: true });
  await page.reload();
  await waitForStatus(page, 'pending_payment');
  await page.goto(new URL('order.html', url).href); // no order is named: the newest
  await waitForStatus(page, 'pending_payment');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL(url);
  await page.goto(new URL('order.html', url).href);
  await page.getByText('No orders yet').waitFor();
  await page.goto(new URL(`order.html?id=${id}`, url).href);
  await page.getByText('Nobody is signed in.').waitFor();
  const other = await page.goto(url).then(() => placeOrder(page));
  await page.locator(`[data-order="${other}"]`).waitFor();
  assert.equal(await page.locator(`[data-order="${id}"]`).count(), 0, 'order of the shopper before');
});

for (const transport of ['WebSocket', 'SSE']) {
  test(`a cut connection comes back over ${transport} with nothing missed`, async (t) => {
    const { page, opened } = await openOver(t, transport, { faulty: true });
    const id = await placeOrder(page);
    await waitForState(page, 'live');
    const cameBack = await watchStates(page);
    const before = opened[transport];
    await page.getByRole('button', { name: 'Cut my connection' }).click();
    await moveBehind(page, id, 'payment_confirmed');
    await cameBack();
    assert.ok(opened[transport] > before, `connections over ${transport} = ${opened[transport]}, want more than ${before}`);
    const hello = await page.locator('#frames li', { hasText: 'hello' }).first().locator('pre').textContent();
    assert.equal(JSON.parse(hello).resumed, true, 'resumed');
    await move(page, 'payment_settled', 'placed', 'shipped', 'delivery_confirmed');
    await waitForStatus(page, 'delivered');
    await page.getByText('Cut. The page notices').waitFor();
  });
}

test('the gateway restarts and the page is right afterwards', async (t) => {
  const { page } = await order(t, { faulty: true });
  const cameBack = await watchStates(page);
  await page.getByRole('button', { name: 'Restart the gateway' }).click();
  await cameBack();
  await waitForState(page, 'live');
  await deliver(page);
});

test('what happened while Pepay was silent arrives later', async (t) => {
  const { page } = await order(t, { faulty: true });
  const stall = page.getByRole('button', { name: 'Stall Pepay for 60 s' });
  await stall.click();
  await page.getByText('Pepay says nothing for a minute').waitFor();
  assert.equal(await stall.getAttribute('aria-pressed'), 'true', 'pressed while it lasts');
  await move(page, 'payment_confirmed');
  if (!fake) assert.equal(await statusOf(page), 'pending_payment', 'status while Pepay is silent');
  await stall.click();
  await page.getByText('Pepay talks again').waitFor();
  await waitForStatus(page, 'processing');
  assert.equal(await stall.getAttribute('aria-pressed'), 'false', 'pressed afterwards');
});

test('a second tab shares the connection of the first', async (t) => {
  const sockets = [];
  const page = await open(t, browser, url);
  page.context().on('page', (tab) => tab.on('websocket', (socket) => sockets.push(socket)));
  page.on('websocket', (socket) => sockets.push(socket));
  await placeOrder(page);
  await waitForState(page, 'live');
  const opened = page.context().waitForEvent('page');
  await page.getByRole('link', { name: 'Open a second tab' }).click();
  const tab = await opened;
  await waitForState(tab, 'live');
  const connections = () => sockets.filter((socket) => !socket.isClosed());
  while (connections().length > 1) await Promise.race(connections().map((socket) => socket.waitForEvent('close')));
  await move(tab, 'payment_confirmed', 'payment_settled');
  await page.bringToFront();
  await move(page, 'placed', 'shipped', 'delivery_confirmed');
  for (const each of [page, tab]) await waitForStatus(each, 'delivered');
  assert.equal(connections().length, 1, 'connections of both tabs');
  assert.ok(sockets.length >= 2, `WebSockets that were opened = ${sockets.length}, want those of both tabs among them`);
});

test('what Pepay refuses is shown', async (t) => {
  const { page } = await order(t, { faulty: true });
  await page.getByRole('button', { name: 'Ship', exact: true }).click();
  await page.getByRole('alert').filter({ hasText: 'not allowed' }).waitFor();
  await screenshot(page, 'storefront-refused');
});

test('the shop works by keyboard', async (t) => {
  const page = await open(t, browser, url);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to your basket', 'first stop of the shop');
  await page.getByRole('button', { name: 'Add to basket: coffee mug' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'One Coffee mug less' }).focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'basket', 'focus after the line has gone');
  await page.keyboard.press('Tab'); // the button that does nothing yet can be found, too
  await page.keyboard.press('Enter');
  assert.equal(page.url(), url, 'address after ordering nothing');
  await page.getByRole('button', { name: 'Add to basket: coffee mug' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Place the order' }).focus();
  await page.keyboard.press('Enter');
  await page.waitForURL(/order\.html\?id=/);
  await waitForStatus(page, 'pending_payment');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to your orders', 'first stop of the order');
  const pay = page.getByRole('button', { name: 'Pay', exact: true });
  await pay.focus();
  await page.keyboard.press('Enter');
  await waitForStatus(page, 'processing');
  assert.equal(await pay.evaluate((button) => document.activeElement === button), true, 'focus after a change');
  await page.locator('#frames summary').first().focus();
  await page.keyboard.press('Enter');
  await page.locator('#frames details[open] pre').waitFor();
});

test('axe-core finds nothing serious', async (t) => {
  for (const colorScheme of ['light', 'dark']) {
    const page = await open(t, browser, url, { colorScheme, faulty: true });
    await assertAccessible(page);
    await page.getByRole('button', { name: 'Add to basket: coffee mug' }).click();
    await assertAccessible(page);
    await screenshot(page, `storefront-shop-${colorScheme}`);
    await page.goto(new URL('order.html', url).href);
    await page.getByText('No orders yet').waitFor();
    await assertAccessible(page);
    await page.goto(url);
    await placeOrder(page);
    await waitForState(page, 'live');
    await move(page, 'payment_confirmed', 'payment_settled', 'placed', 'shipped');
    await waitForStatus(page, 'shipped');
    await page.getByRole('button', { name: 'Pay', exact: true }).click(); // refused
    await page.getByRole('alert').filter({ hasText: 'not allowed' }).waitFor();
    await page.locator('#frames summary').first().click();
    await assertAccessible(page);
    await screenshot(page, `storefront-${colorScheme}`);
  }
});

for (const [name, { dir = 'ltr', width = 320, colorScheme = 'light' }] of Object.entries({
  '320 px in light': {}, '320 px in dark': { colorScheme: 'dark' }, 'right to left': { dir: 'rtl', width: 1280 }, '320 px right to left': { dir: 'rtl' },
})) {
  test(`the pages fit ${name}`, async (t) => {
    const page = await open(t, browser, url, { viewport: { width, height: 640 }, colorScheme, faulty: true });
    await page.context().addInitScript((to) => addEventListener('DOMContentLoaded', () => { document.documentElement.dir = to; }), dir);
    await page.reload();
    await page.getByRole('button', { name: 'Add to basket: coffee mug' }).click();
    await assertFits(page);
    if (dir === 'ltr') await assertAccessible(page);
    await screenshot(page, `storefront-shop-${width}-${colorScheme}-${dir}`);
    await placeOrder(page);
    await waitForState(page, 'live');
    await move(page, 'payment_confirmed', 'payment_settled', 'placed', 'shipped');
    await waitForStatus(page, 'shipped');
    await page.getByRole('button', { name: 'Pay', exact: true }).click(); // refused
    await page.getByRole('alert').filter({ hasText: 'not allowed' }).waitFor();
    await page.locator('#frames summary').first().click();
    await assertFits(page);
    if (dir === 'ltr') await assertAccessible(page);
    await screenshot(page, `storefront-${width}-${colorScheme}-${dir}`);
  });
}
