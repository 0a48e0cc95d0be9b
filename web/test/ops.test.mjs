// The operations page against OPS_URL, a running `pepay-gateway dev`, or else
// against the stand-in.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertFits, launch, open, screenshot } from './browser.mjs';
import { Fake } from './fake.mjs';
import { clusterStats } from './stats.mjs';

let browser;
let fake;
let ticker;
let url = process.env.OPS_URL;

before(async () => {
  if (!url) {
    fake = await new Fake().start();
    fake.stats = clusterStats(0);
    let tick = 0;
    ticker = setInterval(() => {
      fake.stats = clusterStats(++tick);
    }, 500);
    url = fake.opsURL;
  }
  browser = await launch();
});

after(async () => {
  clearInterval(ticker);
  await browser?.close();
  await fake?.stop();
});

test('the page shows the cluster and its rates', async (t) => {
  const page = await open(t, browser, url);
  await page.locator('#nodes tbody tr').first().waitFor();
  await page.waitForFunction(() => document.querySelector('#appended-rate').textContent !== '–');
  assert.match(await page.locator('#status').textContent(), /^(Live|Catching up|Stale)/);
  assert.notEqual(await page.locator('#leader').textContent(), '–', 'leader');
  assert.match(await page.locator('#connections').textContent(), /^[\d,]+$/);
  assert.ok(await page.locator('#nodes .mark').count() > 0, 'a node is marked as leader');
  await page.waitForFunction(() => document.querySelectorAll('.spark path[d]').length === 4);
  await page.waitForFunction(() => (document.querySelector('#appended-spark path:last-child').getAttribute('d').match(/,/g) ?? []).length > 4);
  await screenshot(page, 'ops');
});

for (const colorScheme of ['light', 'dark']) {
  test(`the page fits 320 px in ${colorScheme}`, async (t) => {
    const page = await open(t, browser, url, { viewport: { width: 320, height: 640 }, colorScheme });
    await page.waitForFunction(() => document.querySelector('#appended-rate').textContent !== '–');
    await assertFits(page);
    await screenshot(page, `ops-320-${colorScheme}`);
  });
}
