// The element in a real page with a strict policy, against a running
// `pepay-gateway dev`.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Rig } from './rig.mjs';

let rig;
before(async () => { rig = await new Rig(process.env.SESSIONS_URL).start(); });
after(() => rig?.stop());

// A page that has the element, and writes down what its policy forbade.
async function open(t, order, { attributes = {}, ...options } = {}) {
  const { context, shop } = await rig.shopper(t, options);
  const page = await context.newPage();
  const problems = [];
  page.on('console', (message) => {
    if (message.type() === 'error' && !/^Failed to load resource/.test(message.text())) problems.push(message.text());
  });
  page.on('dialog', (dialog) => problems.push(`dialog: ${dialog.message()}`));
  t.after(() => {
    rig.proxy.refusal = 0;
    assert.deepEqual(problems, [], 'errors of the page');
  });
  await page.goto(`${rig.proxy.url}/element`);
  await page.evaluate(([id, attrs, url]) => {
    const element = document.createElement('pepay-order');
    for (const [name, value] of Object.entries({ 'token-url': '/token', url, 'order-id': id, ...attrs })) element.setAttribute(name, value);
    document.querySelector('main').append(element);
  }, [order ?? (order = await shop.place()), attributes, rig.proxy.url]);
  return { page, shop, order, element: page.locator('pepay-order') };
}

async function screenshot(page, name) {
  const dir = process.env.SCREENSHOTS;
  if (!dir) return;
  await mkdir(dir, { recursive: true });
  await page.screenshot({ path: join(dir, `element-${name}.png`), fullPage: true });
}

async function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

const tracking = { carrier: 'UPS', trackingNumber: '1Z999AA10123456784', carrierTrackingUrl: 'https://track.test/1Z999AA10123456784', deliveryStatus: 'In Transit' };

function frame(order, object) {
  return {
    id: `evt_${Date.now() + 60_000}-1`, object: 'event', type: 'commerce.order.updated', created: 1,
    data: { object: { object: 'commerce_order', id: order, ...object } },
  };
}

test('an order is followed to its delivery, for the eye and for the ear', async (t) => {
  const { page, shop, order, element } = await open(t);
  await element.getByText('Waiting for your payment').first().waitFor();
  await element.getByText(/^Pay before/).waitFor();
  await element.getByText('Live', { exact: true }).waitFor();
  assert.equal(await element.locator('[aria-current="step"]').textContent(), 'Ordered');
  await screenshot(page, 'new');
  await shop.move(order, 'payment_confirmed', 'payment_settled', 'placed', 'shipped');
  await element.locator('[aria-current="step"]', { hasText: 'Shipped' }).waitFor();
  assert.equal(await element.getByRole('status').textContent(), 'On its way to you');
  assert.equal(await element.getByRole('listitem').filter({ hasText: '(done)' }).count(), 3);
  const link = element.getByRole('link');
  assert.match(await link.getAttribute('href'), /^https:/);
  await page.keyboard.press('Tab');
  assert.equal(await link.evaluate((a) => a.getRootNode().activeElement === a), true, 'focus on the tracking link');
  await screenshot(page, 'shipped');
  await shop.move(order, 'delivery_confirmed');
  await element.getByRole('status').getByText('Delivered').waitFor();
  assert.equal(await link.evaluate((a) => a.getRootNode().activeElement === a), true, 'focus after an update');
  await element.getByText(/^Last updated/).waitFor();
  assert.deepEqual(await page.evaluate(() => document.querySelector('pepay-order').state.status), 'delivered');
});

for (const [refusal, text] of [[401, 'Sign in to follow this order.'], [404, 'There is no such order.']]) {
  test(`the shop answers ${refusal}, and the element says so, in words of the page if it has some`, async (t) => {
    rig.proxy.refusal = refusal;
    const { page, shop, element } = await open(t);
    await element.getByText(text).first().waitFor();
    await page.evaluate((slot) => {
      const own = document.createElement('p');
      own.slot = slot;
      own.textContent = 'Words of the page';
      document.querySelector('pepay-order').append(own);
    }, refusal === 401 ? 'signed-out' : 'not-found');
    await page.getByText('Words of the page').waitFor();
    await screenshot(page, `refused-${refusal}`);
    rig.proxy.refusal = 0;
    await page.evaluate((id) => {
      const own = document.querySelector('pepay-order');
      own.setAttribute('order-id', id);
      own.reload();
    }, await shop.place());
    await element.getByText('Waiting for your payment').first().waitFor();
  });
}

test('a cancelled order, a refund, and a payment that came too late are told', async (t) => {
  const { order, element } = await open(t);
  await element.getByText('Live', { exact: true }).waitFor();
  rig.proxy.say(frame(order, { status: 'pending_payment', expiresAt: 1_600_000_000 }));
  rig.proxy.say({ ...frame(order, {}), type: 'invoice.updated', data: { object: { object: 'invoice', id: 'i1', commerce_order_id: order, status: 'expired' } } });
  await element.getByText('The time to pay has passed').first().waitFor();
  rig.proxy.say({ ...frame(order, { status: 'cancelled', refundStatus: 'REFUND_SENT', refund: { amountUsd: '9.00' } }), id: `evt_${Date.now() + 90_000}-1` });
  await element.getByText('Cancelled').first().waitFor();
  await element.getByText('Refund $9.00 refund sent').waitFor();
  assert.equal(await element.locator('ol').count(), 0, 'steps of a cancelled order');
});

test('nothing that an event says becomes markup, a script or a request', async (t) => {
  const { page, order, element } = await open(t);
  await element.getByText('Live', { exact: true }).waitFor();
  const requests = [];
  page.on('request', (request) => requests.push(request.url()));
  const evil = '<img src=x onerror=alert(1)></script><script>alert(2)</script>\u2028\u202e"\'&';
  rig.proxy.say(frame(order, {
    status: evil, refundStatus: evil, refund: { amountUsd: evil },
    fulfillment: { shipments: [{ carrier: evil, trackingNumber: evil, carrierTrackingUrl: 'javascript:alert(3)', deliveryStatus: evil }, { ...tracking, carrierTrackingUrl: 'https://track.test/"><img src=x>' }] },
  }));
  await element.getByText('<img src=x onerror=alert(1)>').first().waitFor();
  const found = await element.evaluate((own) => [...own.shadowRoot.querySelectorAll('img, script, a')].map((e) => `${e.localName} ${e.protocol}`));
  assert.deepEqual(found, ['a https:']);
  assert.deepEqual(requests, []);
});

test('all its words can be replaced, also as markup', async (t) => {
  const { page, element } = await open(t, undefined, { attributes: { texts: '{"status.pending_payment":"Wir warten auf Ihre Zahlung","live":"Aktuell"}' } });
  await element.getByText('Wir warten auf Ihre Zahlung').first().waitFor();
  await element.getByText('Aktuell').waitFor();
  await page.evaluate(() => { document.querySelector('pepay-order').texts = { title: 'Bestellung {time}' }; });
  await element.getByText('Bestellung', { exact: true }).waitFor();
});

for (const [name, { dir = 'ltr', width = 720, ...options }] of Object.entries({
  light: { colorScheme: 'light' }, dark: { colorScheme: 'dark' }, '320-light': { colorScheme: 'light', width: 320 }, '320-dark': { colorScheme: 'dark', width: 320 }, rtl: { dir: 'rtl' },
})) {
  test(`it fits and reads: ${name}`, async (t) => {
    const { page, order, element } = await open(t, undefined, { viewport: { width, height: 420 }, ...options });
    await element.getByText('Live', { exact: true }).waitFor();
    await page.evaluate((to) => { document.documentElement.dir = to; }, dir);
    rig.proxy.say(frame(order, { status: 'shipped', fulfillment: { shipments: [tracking, { carrier: 'Post', trackingNumber: 'RR123456785NL' }] } }));
    await element.getByText('In Transit').waitFor();
    assert.ok(await overflow(page) <= 0, `page is ${await overflow(page)} px too wide`);
    await screenshot(page, name);
  });
}

test('it shows the order whatever the page names as its language', async (t) => {
  const { element, page } = await open(t, undefined, { attributes: { lang: 'pt_BR' } });
  await element.getByText('Waiting for your payment').first().waitFor();
  await page.evaluate(() => document.querySelector('pepay-order').setAttribute('lang', 'no language'));
  await page.evaluate(() => { document.querySelector('pepay-order').texts = { live: 'Drawn anew' }; });
  await element.getByText('Drawn anew').waitFor();
});
