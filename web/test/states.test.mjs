// States of the pages that a running gateway is hard to bring into. Every test
// has a stand-in of its own.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, open, screenshot, waitForState } from './browser.mjs';
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

async function shop(t, fake, options) {
  const page = await open(t, browser, fake.url, options);
  await waitForState(page, 'live');
  return { page, customer: await page.locator('#shopper').textContent() };
}

function status(page, id) {
  return page.locator(`[data-order="${id}"]`).getAttribute('data-status');
}

test('an empty shop says so', async (t) => {
  const { page } = await shop(t, await start());
  await page.getByText('No orders yet').waitFor();
  await screenshot(page, 'state-empty');
});

test('an unreachable shop says so and recovers', async (t) => {
  const fake = await start();
  fake.down = true;
  const page = await open(t, browser, fake.url, { faulty: true });
  await page.getByRole('alert').filter({ hasText: 'The shop is closed. Trying again…' }).waitFor();
  await waitForState(page, 'reconnecting');
  await screenshot(page, 'state-unreachable');
  fake.down = false;
  await waitForState(page, 'live');
  await page.locator('#notice').waitFor({ state: 'hidden' });
});

test('stale and catching up are shown', async (t) => {
  const fake = await start();
  const { page, customer } = await shop(t, fake);
  fake.placeOrder(customer);
  const since = new Date(2026, 0, 2, 12, 3, 4).getTime();
  fake.setStatus('stale', since);
  await page.getByRole('status').filter({ hasText: 'Stale since 12:03:04 — what you see may be old' }).waitFor();
  await screenshot(page, 'state-stale');
  await page.setViewportSize({ width: 320, height: 640 });
  await screenshot(page, 'state-stale-320');
  fake.setStatus('catching_up');
  await page.getByRole('status').filter({ hasText: 'Catching up…' }).waitFor();
  fake.setStatus('live');
  await waitForState(page, 'live');
});

test('duplicates are ignored and an order never goes back', async (t) => {
  const fake = await start();
  const { page, customer } = await shop(t, fake);
  const order = { object: 'commerce_order', id: 'order_1', invoice_id: 'inv_1' };
  fake.emit(customer, 'commerce.order.updated', { ...order, status: 'shipped' }, 'evt_1767225600123-10');
  fake.emit(customer, 'commerce.order.updated', { ...order, status: 'placed' }, 'evt_1767225600123-9');
  fake.emit(customer, 'commerce.order.updated', { ...order, status: 'placed' }, 'evt_1767225600123-10');
  fake.emit(customer, 'invoice.updated', { object: 'invoice', id: 'inv_1', status: 'paid' }, 'evt_1767225600123-11');
  fake.emit(customer, 'shop.party', { object: 'balloon', id: 'b_1', status: 'red' });
  fake.emit(customer, 'commerce.order.updated', { id: 'order_2', status: 'fulfilled' }); // no object: the type tells
  await page.locator('[data-order="order_2"]').getByText('Fulfilled').waitFor();
  assert.equal(await status(page, 'order_1'), 'shipped', 'status after older events');
  assert.equal(await page.locator('[data-order="order_1"] dl').getByText('Paid').count(), 1, 'invoice joined by its id');
  assert.equal(await page.locator('[data-order]').count(), 2, 'orders');
  assert.equal(await page.locator('#log tbody tr', { hasText: 'balloon' }).count(), 0, 'unknown types in the log');
});

test('a reset replaces what was there', async (t) => {
  const fake = await start();
  const { page, customer } = await shop(t, fake);
  const gone = fake.placeOrder(customer);
  const kept = fake.placeOrder(customer);
  await page.locator(`[data-order="${gone.id}"]`).waitFor();
  fake.forgetOrder(gone.id);
  fake.reset('upstream_gap');
  await page.locator(`[data-order="${gone.id}"]`).waitFor({ state: 'detached' });
  assert.equal(await status(page, kept.id), 'pending_payment', 'status of the order that stays');
  await page.locator('#log').getByText('upstream gap').waitFor();
});

test('endings that are final are kept apart', async (t) => {
  const fake = await start();
  const { page, customer } = await shop(t, fake, { faulty: true });
  for (const transport of ['SSE', 'WebSocket']) {
    await page.getByRole('radio', { name: transport }).check({ force: true });
    await waitForState(page, 'live');
    const before = fake.sessions;
    fake.expel(customer, 4401);
    await waitForState(page, 'reconnecting');
    await waitForState(page, 'live');
    assert.equal(fake.sessions, before + 1, `sessions after 4401 over ${transport}`);
  }
  fake.expel(customer, 4409);
  await waitForState(page, 'replaced');
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await waitForState(page, 'live');
  fake.expel(customer, 4403);
  await waitForState(page, 'refused');
  await screenshot(page, 'state-refused');
});

test('a silent connection is given up', async (t) => {
  const fake = await start();
  const { page } = await shop(t, fake);
  clearInterval(fake.tips);
  await waitForState(page, 'reconnecting');
  await waitForState(page, 'live');
});

test('a session is renewed before it ends', async (t) => {
  const fake = await start();
  const { page, customer } = await shop(t, fake);
  fake.control({ type: 'token_expiring' });
  await page.waitForFunction(() => document.querySelectorAll('#log tbody tr').length >= 2); // connected twice
  assert.equal(fake.sessions, 2, 'sessions');
  const order = fake.placeOrder(customer);
  await page.locator(`[data-order="${order.id}"]`).waitFor();
});

test('hostile text stays text', async (t) => {
  const fake = await start();
  const { page, customer } = await shop(t, fake);
  const hostile = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>\u2028\u202e"\'><a href="javascript:alert(3)">';
  fake.emit(customer, `commerce.order.${hostile}`, { object: 'commerce_order', id: `o${hostile}`, status: hostile, lineItems: [{ title: hostile }], totalAmountUsd: hostile });
  fake.control({ type: 'reset', reason: hostile });
  await page.locator('#log tbody tr', { hasText: 'onerror' }).first().waitFor();
  assert.equal(await page.locator('main :is(script, a, img), aside :is(script, a, img)').count(), 0, 'elements made from text');
});
