// The operations page against OPS_URL, a running `pepay-gateway dev`, or else
// against the stand-in.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { assertAccessible, assertFits, launch, open, screenshot } from './browser.mjs';
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

// Waits until the page knows the cluster and has compared two answers.
async function waitForNumbers(page) {
  await page.locator('#calm').getByText('All is well.').waitFor();
  await page.waitForFunction(() => document.querySelector('#appended-rate').textContent !== '–');
}

test('the page shows the cluster, its leader and its rates', async (t) => {
  const page = await open(t, browser, url);
  await waitForNumbers(page);
  assert.match(await page.locator('#status').textContent(), /^Live since /, 'status');
  const leader = await page.locator('#leader').textContent();
  assert.equal(await page.locator('#nodes .mark:visible').count(), 1, 'nodes marked as leader');
  assert.equal(await page.locator('#nodes tr:has(.mark:visible) .mono').textContent(), leader, 'marked node');
  assert.equal(await page.locator('#upstream-state').textContent(), 'Live', 'upstream');
  assert.match(await page.locator('#upstream-since').textContent(), /^since .+ · \d+ (s|min|h|days)$/, 'upstream since');
  for (const id of ['connections', 'connections-ws', 'connections-sse', 'log-seq', 'delivered-total']) {
    assert.match(await page.locator(`#${id}`).textContent(), /^[\d,]+$/, id);
  }
  const labels = await page.locator('#counters dt').allTextContents();
  assert.deepEqual(labels, ['Minted', 'Refused', 'Replays', 'Resets', 'Slow clients', 'Duplicates', 'Quarantined'], 'counters');
  for (const name of ['appended', 'delivered']) {
    assert.match(await page.locator(`#${name}-chart`).getAttribute('aria-label'), /now [\d,.]+ per second, highest [\d,.]+$/, `${name} chart`);
  }
  const before = await page.locator('#updated').textContent();
  await page.waitForFunction((old) => document.querySelector('#updated').textContent !== old, before);
});

test('a chart says what is under the pointer', async (t) => {
  const page = await open(t, browser, url);
  await waitForNumbers(page);
  await page.waitForFunction(() => {
    const chart = document.querySelector('#appended-chart .u-over').getBoundingClientRect();
    const move = { bubbles: true, clientX: chart.right - 3, clientY: chart.top + 20 };
    document.querySelector('#appended-chart .u-over').dispatchEvent(new MouseEvent('mousemove', move));
    return /^[\d,.]+\/s at \d\d:\d\d:\d\d$/.test(document.querySelector('#appended-readout').textContent);
  });
});

test('axe-core finds nothing serious', async (t) => {
  for (const colorScheme of ['light', 'dark']) {
    const page = await open(t, browser, url, { colorScheme });
    await waitForNumbers(page);
    await assertAccessible(page);
    await screenshot(page, `ops-${colorScheme}`);
  }
});

for (const colorScheme of ['light', 'dark']) {
  test(`the page fits 320 px in ${colorScheme}`, async (t) => {
    const page = await open(t, browser, url, { viewport: { width: 320, height: 640 }, colorScheme });
    await waitForNumbers(page);
    await assertFits(page);
    await assertAccessible(page);
    await screenshot(page, `ops-320-${colorScheme}`);
  });
}

test('the chart library is the one of npm, unchanged', async () => {
  for (const [ours, theirs] of [
    ['uPlot.iife.min.js', 'dist/uPlot.iife.min.js'], ['uPlot.min.css', 'dist/uPlot.min.css'], ['LICENSE', 'LICENSE'],
  ]) {
    const read = (path) => readFile(new URL(path, import.meta.url), 'utf8');
    assert.equal(await read(`../uplot/${ours}`), await read(`../node_modules/uplot/${theirs}`), ours);
  }
});
