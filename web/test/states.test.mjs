// States of the shop that a running gateway is hard to bring into. Every test has
// a stand-in of its own.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, open, placeOrder, screenshot, statusOf, waitForState, waitForStatus, watchStates } from './browser.mjs';
import { Fake } from './fake.mjs';

let browser;
const fakes = []; // stopped last, for a page notices when its stream ends

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await Promise.all(fakes.map((fake) => fake.stop()));
});

async function start() {
  const fake = await new Fake().start();
  fakes.push(fake);
  return fake;
}

// Opens the orders of a shopper, or the page of one of them.
async function orders(t, fake, { customer = 'cust_1', id, ...options } = {}) {
  const page = await open(t, browser, fake.url, options);
  await page.context().addCookies([{ name: 'shopper', value: customer, url: fake.url }]);
  await page.goto(`${fake.url}order.html${id ? `?id=${id}` : ''}`);
  return { page, customer, element: page.locator('pepay-order') };
}

// The same with an order, once all is live.
async function live(t, fake, options) {
  const { id } = fake.placeOrder('cust_1');
  const opened = await orders(t, fake, { id, ...options });
  await waitForState(opened.page, 'live');
  return { ...opened, id };
}

// The status of an order in the list of them all.
function listed(page, id) {
  return page.locator(`#all [data-order="${id}"]`).getAttribute('data-status');
}

test('a shopper without orders is told so', async (t) => {
  const { page, element } = await orders(t, await start());
  await page.getByText('No orders yet').waitFor();
  assert.equal(await element.isVisible(), false, 'the element is shown');
  await screenshot(page, 'state-empty');
});

test('a shop that does not answer is told of, and comes back', async (t) => {
  const fake = await start();
  const page = await open(t, browser, fake.url, { faulty: true });
  fake.down = true;
  await page.getByRole('button', { name: 'Add to basket: coffee mug' }).click();
  await page.getByRole('button', { name: 'Place the order' }).click();
  await page.getByRole('alert').filter({ hasText: 'Your order was not placed: The shop is closed.' }).waitFor();
  fake.down = false;
  await page.getByRole('button', { name: 'Place the order' }).click();
  await page.waitForURL(/order\.html\?id=/);
  await waitForState(page, 'live');
  fake.down = true;
  await page.reload();
  await page.locator('#connection[data-state="connecting"]').waitFor();
  await page.locator('pepay-order').getByText('Loading your order…').waitFor();
  await page.locator('#frames li', { hasText: 'TOKEN FAILED' }).first().waitFor();
  await screenshot(page, 'state-unreachable');
  fake.down = false;
  await waitForState(page, 'live');
  await waitForStatus(page, 'pending_payment');
});

test('stale and catching up are shown', async (t) => {
  const fake = await start();
  const { page, element } = await live(t, fake);
  const since = new Date();
  since.setHours(12, 3, 4, 0);
  fake.setStatus('stale', since.getTime());
  await element.getByText(/^May be out of date since 12:03/).waitFor();
  await page.getByRole('status').filter({ hasText: 'May be out of date' }).waitFor();
  await screenshot(page, 'state-stale');
  await page.setViewportSize({ width: 320, height: 640 });
  await screenshot(page, 'state-stale-320');
  fake.setStatus('catching_up');
  await element.getByText('Still checking…').waitFor();
  await page.getByRole('status').filter({ hasText: 'Catching up' }).waitFor();
  fake.setStatus('live');
  await waitForState(page, 'live');
});

test('duplicates are ignored and an order never goes back', async (t) => {
  const fake = await start();
  const { page, customer } = await orders(t, fake, { id: 'order_1' });
  await page.locator('#connection[data-state="live"]').waitFor();
  const order = { object: 'commerce_order', id: 'order_1', invoice_id: 'inv_1' };
  fake.emit(customer, 'commerce.order.updated', { ...order, status: 'shipped' }, 'evt_1767225600123-10');
  fake.emit(customer, 'commerce.order.updated', { ...order, status: 'placed' }, 'evt_1767225600123-9');
  fake.emit(customer, 'commerce.order.updated', { ...order, status: 'placed' }, 'evt_1767225600123-10');
  fake.emit(customer, 'invoice.updated', { object: 'invoice', id: 'inv_1', status: 'paid', commerce_order_id: 'order_1' }, 'evt_1767225600123-11');
  fake.emit(customer, 'shop.party', { object: 'balloon', id: 'b_1', status: 'red' });
  fake.emit(customer, 'commerce.order.updated', { id: 'order_2', status: 'fulfilled' }); // no object: the type tells
  await page.locator('#all [data-order="order_2"]').getByText('fulfilled').waitFor();
  assert.equal(await listed(page, 'order_1'), 'shipped', 'listed status after older events');
  await waitForStatus(page, 'shipped');
  await page.waitForFunction(() => document.querySelector('pepay-order').state.invoice.status === 'paid');
  assert.equal(await page.locator('#all li').count(), 2, 'orders');
  const shown = await page.locator('#frames [data-object="event"] pre').allTextContents();
  const ids = shown.map((frame) => JSON.parse(frame).id);
  assert.equal(ids.length, new Set(ids).size, `frames of events: ${ids}`);
  assert.equal(await statusOf(page), 'shipped', 'status after all');
});

test('a reset replaces what was there', async (t) => {
  const fake = await start();
  const gone = fake.placeOrder('cust_1');
  const kept = fake.placeOrder('cust_1');
  const { page } = await orders(t, fake, { id: kept.id });
  await waitForState(page, 'live');
  await page.locator(`[data-order="${gone.id}"]`).waitFor();
  fake.forgetOrder(gone.id);
  fake.reset('upstream_gap');
  await page.locator(`[data-order="${gone.id}"]`).waitFor({ state: 'detached' });
  assert.equal(await listed(page, kept.id), 'pending_payment', 'status of the order that stays');
  await waitForStatus(page, 'pending_payment');
  await page.locator('#frames').getByText('upstream gap').first().waitFor();
});

test('endings that are final are kept apart', async (t) => {
  for (const other of ['EventSource', 'WebSocket']) { // what this browser lacks
    const fake = await start();
    const { id } = fake.placeOrder('cust_1');
    const page = await open(t, browser, fake.url, { faulty: true });
    await page.context().addInitScript((name) => { delete globalThis[name]; }, other);
    await page.context().addCookies([{ name: 'shopper', value: 'cust_1', url: fake.url }]);
    await page.goto(`${fake.url}order.html?id=${id}`);
    await waitForState(page, 'live');
    await fake.shared();

    const [tokens, streams] = [fake.tokens, fake.begun];
    fake.expel('cust_1', 4401);
    await fake.begins(streams + 1);
    await waitForState(page, 'live');
    assert.equal(fake.tokens, tokens + 1, `tokens after 4401 without ${other}`);

    fake.expel('cust_1', 4409);
    await page.locator('#connection[data-state="connecting"]').waitFor();
    const replaced = fake.begun;
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await fake.begins(replaced + 1);
    await waitForState(page, 'live');

    // The page's client and its element have a stream each to lose.
    fake.expel('cust_1', 4403);
    await fake.begins(replaced + 2);
    await fake.expelAll('cust_1', 4403);
    await page.locator('#connection[data-state="ended"]').waitFor();
    await page.locator('pepay-order').getByText('This order cannot be shown now.').first().waitFor();
    await screenshot(page, 'state-refused');
  }
});

test('a silent connection is given up', async (t) => {
  const fake = await start();
  const { page } = await live(t, fake);
  await fake.shared();
  const { begun } = fake;
  const cameBack = await watchStates(page);
  clearInterval(fake.tips);
  await fake.begins(begun + 1);
  await cameBack();
  await waitForState(page, 'live');
});

test('a session is renewed before it ends', async (t) => {
  const fake = await start();
  const { page, customer } = await live(t, fake);
  await fake.shared();
  const { begun, tokens } = fake;
  fake.control({ type: 'token_expiring', session_expires_at: Date.now() / 1000 + 2 });
  await fake.begins(begun + 1);
  await fake.shared();
  assert.equal(fake.tokens, tokens + 1, 'tokens');
  const order = fake.placeOrder(customer);
  await page.locator(`[data-order="${order.id}"]`).waitFor();
});

test('hostile text stays text', async (t) => {
  const fake = await start();
  const { page, customer, id, element } = await live(t, fake);
  const hostile = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>\u2028\u202e"\'><a href="javascript:alert(3)">';
  const order = { object: 'commerce_order', status: hostile, lineItems: [{ title: hostile, quantity: hostile }], totalAmountUsd: hostile, refundStatus: hostile, refund: { amountUsd: hostile } };
  const shipments = [{ carrier: hostile, trackingNumber: hostile, carrierTrackingUrl: 'javascript:alert(4)', deliveryStatus: hostile }];
  fake.emit(customer, `commerce.order.${hostile}`, { ...order, id, fulfillment: { shipments } }, `evt_${Date.now() + 60_000}-1`);
  fake.emit(customer, `commerce.order.${hostile}`, { ...order, id: `o${hostile}` });
  fake.control({ type: hostile, reason: hostile });
  await element.getByText('<img src=x').first().waitFor();
  await page.locator('#all').getByText('<img src=x').nth(1).waitFor();
  await page.locator('#frames li', { hasText: 'onerror' }).nth(2).waitFor();
  const made = await page.evaluate(() => [document.querySelector('main'), document.querySelector('aside'), document.querySelector('pepay-order').shadowRoot]
    .flatMap((root) => [...root.querySelectorAll('script, img, iframe, a')])
    .filter((node) => node.localName !== 'a' || node.protocol !== 'http:').map((node) => node.outerHTML));
  assert.deepEqual(made, [], 'elements made from text');
  await page.goto(`${fake.url}order.html?id=${encodeURIComponent(`o${hostile}`)}`);
  await element.getByText('<img src=x').first().waitFor();
});
