// The shop against STOREFRONT_URL, a running `pepay-gateway dev`, or else
// against the stand-in.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertAccessible, assertFits, launch, open, screenshot, waitForState } from './browser.mjs';
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

async function placeOrder(page) {
  const answered = page.waitForResponse((res) => new URL(res.url()).pathname === '/demo/orders');
  await page.getByRole('button', { name: 'Place an order' }).click();
  const { order_id: id, data } = await (await answered).json();
  const card = page.locator(`[data-order="${id ?? data?.order_id}"]`);
  await card.locator('..').locator(`[data-order="${id ?? data?.order_id}"]:not([data-status=""])`).waitFor();
  return card;
}

// Clicks an action that may be gone by then: orders in dev also move by themselves.
async function act(card, transition) {
  await card.locator(`[data-transition="${transition}"]`).click({ timeout: 1_000 }).catch(() => {});
}

async function waitForStatus(card, status) {
  await card.page().waitForFunction(
    ([id, want]) => document.querySelector(`[data-order="${id}"]`)?.dataset.status === want,
    [await card.getAttribute('data-order'), status],
  );
}

async function deliver(card) {
  const want = [
    ['payment_confirmed', 'processing'], ['payment_settled', 'processing'], ['placed', 'placed'],
    ['shipped', 'shipped'], ['delivery_confirmed', 'delivered'],
  ];
  for (const [transition] of want) await act(card, transition);
  await waitForStatus(card, 'delivered');
}

for (const transport of ['SSE', 'WebSocket']) {
  test(`an order moves through its life live over ${transport}`, async (t) => {
    const page = await open(t, browser, url);
    await waitForState(page, 'live');
    await page.getByRole('radio', { name: transport }).check({ force: true });
    await waitForState(page, 'live');
    const card = await placeOrder(page);
    await card.evaluate((element) => {
      const seen = [element.dataset.status];
      element.seen = seen;
      new MutationObserver(() => {
        if (seen.at(-1) !== element.dataset.status) seen.push(element.dataset.status);
      }).observe(element, { attributes: true, attributeFilter: ['data-status'] });
    });
    await screenshot(page, `storefront-${transport.toLowerCase()}-new-order`);
    await deliver(card);
    assert.deepEqual(await card.evaluate((element) => element.seen), happyPath, 'statuses seen');
    await card.getByText('Paid', { exact: true }).waitFor();
    await card.getByText('Confirmed · Settled').waitFor();
    await screenshot(page, `storefront-${transport.toLowerCase()}-delivered`);
  });
}

test('two shoppers do not see each other', async (t) => {
  const [alice, bob] = [await open(t, browser, url), await open(t, browser, url)];
  await waitForState(alice, 'live');
  await waitForState(bob, 'live');
  assert.notEqual(await alice.locator('#shopper').textContent(), await bob.locator('#shopper').textContent(), 'shoppers');
  const hers = await (await placeOrder(alice)).getAttribute('data-order');
  const his = await (await placeOrder(bob)).getAttribute('data-order');
  assert.equal(await alice.locator(`[data-order="${his}"]`).count(), 0, 'his order on her page');
  assert.equal(await bob.locator(`[data-order="${hers}"]`).count(), 0, 'her order on his page');
});

test('a reload keeps the shopper and the orders, a new shopper has none', async (t) => {
  const page = await open(t, browser, url);
  await waitForState(page, 'live');
  const shopper = await page.locator('#shopper').textContent();
  const id = await (await placeOrder(page)).getAttribute('data-order');
  await page.reload();
  await page.locator(`[data-order="${id}"]:not([data-status=""])`).waitFor();
  assert.equal(await page.locator('#shopper').textContent(), shopper, 'shopper after reload');
  await page.getByRole('button', { name: 'New shopper' }).click();
  await page.getByText('No orders yet').waitFor();
  await page.waitForFunction((old) => !['…', old].includes(document.querySelector('#shopper').textContent), shopper);
  assert.equal(await page.locator(`[data-order="${id}"]`).count(), 0, 'old order after new shopper');
});

for (const transport of ['SSE', 'WebSocket']) {
  test(`a cut connection comes back over ${transport} with nothing missed`, async (t) => {
    const page = await open(t, browser, url, { faulty: true });
    await waitForState(page, 'live');
    await page.getByRole('radio', { name: transport }).check({ force: true });
    await waitForState(page, 'live');
    const card = await placeOrder(page);
    const id = await card.getAttribute('data-order');
    let sessions = 0;
    page.on('request', (req) => {
      if (req.url().endsWith('/demo/session')) sessions++;
    });
    await page.getByRole('button', { name: 'Cut my connection' }).click();
    await waitForState(page, 'reconnecting');
    await screenshot(page, `storefront-${transport.toLowerCase()}-reconnecting`);
    await page.request.post(new URL(`/demo/orders/${id}/simulate`, url).href, { data: { transitionTo: 'payment_confirmed' } });
    await waitForState(page, 'live');
    await deliver(card);
    if (transport === 'SSE') assert.equal(sessions, 0, 'sessions opened while EventSource came back');
    await page.getByText('Over. Your orders should be right.').waitFor();
  });
}

test('the gateway restarts and the page is right afterwards', async (t) => {
  const page = await open(t, browser, url, { faulty: true });
  await waitForState(page, 'live');
  const card = await placeOrder(page);
  await page.getByRole('button', { name: 'Restart the gateway' }).click();
  assert.ok(await page.getByRole('button', { name: 'Cut my connection' }).isDisabled(), 'fault buttons enabled while one runs');
  await page.getByText('Over. Your orders should be right.').waitFor();
  await waitForState(page, 'live');
  await deliver(card);
});

test('what happened while Pepay was silent arrives later', async (t) => {
  const page = await open(t, browser, url, { faulty: true });
  await waitForState(page, 'live');
  const card = await placeOrder(page);
  await page.getByRole('button', { name: 'Silence Pepay for 10 s' }).click();
  await page.getByText('Pepay is silent for 10 seconds…').waitFor();
  await act(card, 'payment_confirmed');
  await waitForStatus(card, 'processing');
  await page.getByText('Over. Your orders should be right.').waitFor();
});

test('what the shop refuses is shown on the order', async (t) => {
  const page = await open(t, browser, url, { faulty: true });
  await waitForState(page, 'live');
  const card = await placeOrder(page);
  await card.locator('[data-transition="shipped"]').evaluate((button) => button.click()); // hidden: not allowed yet
  await card.getByRole('alert').filter({ hasText: 'not allowed' }).waitFor();
  await screenshot(page, 'storefront-refused');
});

test('the page works by keyboard', async (t) => {
  const page = await open(t, browser, url);
  await waitForState(page, 'live');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to your orders', 'first stop');
  await page.getByRole('button', { name: 'Place an order' }).focus();
  await page.keyboard.press('Enter');
  await page.locator('[data-order]:not([data-status=""])').first().waitFor();
  const card = page.locator('[data-order]').first();
  await card.locator('[data-transition="payment_confirmed"]').focus();
  await page.keyboard.press('Enter');
  await waitForStatus(card, 'processing');
  await page.waitForFunction(() => document.activeElement.closest('[data-order]') !== null);
  assert.equal(await page.evaluate(() => document.activeElement.hidden), false, 'focus on a hidden button');
});

test('axe-core finds nothing serious', async (t) => {
  for (const colorScheme of ['light', 'dark']) {
    const page = await open(t, browser, url, { colorScheme });
    await waitForState(page, 'live');
    await page.getByText('No orders yet').waitFor();
    await assertAccessible(page);
    const card = await placeOrder(page);
    await act(card, 'payment_confirmed');
    await waitForStatus(card, 'processing');
    await assertAccessible(page);
    await screenshot(page, `storefront-${colorScheme}`);
  }
});

for (const colorScheme of ['light', 'dark']) {
  test(`the page fits 320 px in ${colorScheme}`, async (t) => {
    const page = await open(t, browser, url, { viewport: { width: 320, height: 640 }, colorScheme });
    await waitForState(page, 'live');
    await placeOrder(page);
    await assertFits(page);
    await assertAccessible(page);
    await screenshot(page, `storefront-320-${colorScheme}`);
  });
}
