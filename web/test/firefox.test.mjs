// The same in Firefox: an order is placed and followed, and the operations page
// shows the leader. Puppeteer drives the Firefox of the system, which
// playwright-core cannot. Against STOREFRONT_URL and OPS_URL, a running
// `pepay-gateway dev`, or else against the stand-in.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import puppeteer from 'puppeteer-core';
import { Fake } from './fake.mjs';
import { clusterStats } from './stats.mjs';

let browser;
let fake;
let ticker;
let { STOREFRONT_URL: storefront, OPS_URL: ops } = process.env;

before(async () => {
  if (!storefront || !ops) {
    fake = await new Fake().start();
    let tick = 0;
    ticker = setInterval(() => {
      fake.stats = clusterStats(++tick);
    }, 500);
    [storefront, ops] = [fake.url, fake.opsURL];
  }
  browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr', headless: true });
});

after(async () => {
  clearInterval(ticker);
  await browser?.close();
  await fake?.stop();
});

// Opens a page; the test fails when the page logged an error, broke its policy,
// or asked another host for anything.
async function open(t, url) {
  const page = await browser.newPage();
  const problems = [];
  page.on('pageerror', (err) => problems.push(String(err)));
  page.on('dialog', (dialog) => problems.push(`dialog: ${dialog.message()}`));
  page.on('console', (message) => {
    if (['error', 'warn'].includes(message.type())) problems.push(message.text());
  });
  page.on('request', (request) => {
    if (new URL(request.url()).host !== new URL(url).host) problems.push(`request to ${request.url()}`);
  });
  await page.evaluateOnNewDocument(() => {
    addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
  });
  t.after(async () => {
    await page.close();
    assert.deepEqual(problems, [], 'errors logged by the page');
  });
  await page.goto(url);
  return page;
}

for (const [transport, other] of [['SSE', 'WebSocket'], ['WebSocket', 'EventSource']]) {
  test(`Firefox follows an order to delivered over ${transport}`, async (t) => {
    const page = await open(t, storefront);
    await page.evaluateOnNewDocument((name) => { delete globalThis[name]; }, other);
    await page.locator('[data-product="notebook"] button').click();
    await page.locator('#place-order').click();
    await page.waitForSelector('pepay-order');
    await page.waitForSelector('#connection[data-state="live"]');
    for (const transition of ['payment_confirmed', 'payment_settled', 'placed', 'shipped', 'delivery_confirmed']) {
      await page.locator(`[data-move="${transition}"].primary`).click();
    }
    await page.waitForFunction(() => document.querySelector('pepay-order').state?.status === 'delivered');
    await page.waitForSelector('#all [data-status="delivered"]');
    const shown = await page.$eval('pepay-order', (element) => element.shadowRoot.querySelector('[part="headline"]').textContent);
    assert.equal(shown, 'Delivered', 'headline');
  });
}

test('Firefox shows the operators who leads', async (t) => {
  const page = await open(t, ops);
  await page.waitForSelector('#calm:not([hidden])');
  await page.waitForFunction(() => document.querySelector('#appended-rate').textContent !== '–');
  const leader = await page.$eval('#leader', (element) => element.textContent);
  const marked = await page.$$eval('#nodes tbody tr', (rows) => rows.filter((row) => !row.querySelector('.mark').hidden)
    .map((row) => row.querySelector('.mono').textContent));
  assert.deepEqual(marked, [leader], 'node marked as leader');
  const drawn = await page.$eval('#appended-chart canvas', (canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0));
  assert.equal(drawn, true, 'chart drawn');
});
