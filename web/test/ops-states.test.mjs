// States of the operations page that a running gateway is hard to bring into.
// Every test has a stand-in of its own.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertAccessible, assertFits, launch, open, screenshot } from './browser.mjs';
import { Fake } from './fake.mjs';
import { clusterStats, troubledStats } from './stats.mjs';

let browser;
const fakes = [];

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await Promise.all(fakes.map((fake) => fake.stop()));
});

async function start(stats = null) {
  const fake = await new Fake().start();
  fakes.push(fake);
  fake.stats = stats;
  return fake;
}

function problem(page, what) {
  return page.locator('.problem').filter({ has: page.locator('.what', { hasText: what }) });
}

function column(page, n) {
  return page.locator(`#nodes tbody tr > :nth-child(${n})`).allTextContents();
}

test('without an answer, without nodes, and after a loss, the page says so', async (t) => {
  const fake = await start();
  const page = await open(t, browser, fake.opsURL, { faulty: true });
  await problem(page, 'The gateway answered 503').getByText('Trying again each second.').waitFor();
  assert.equal(await page.locator('#numbers').isVisible(), false, 'numbers before there are any');
  await page.locator('#announcer').getByText('The gateway answered 503').waitFor({ state: 'attached' });
  await screenshot(page, 'state-ops-unreachable');
  fake.stats = {};
  await page.getByText('No node has reported').waitFor();
  await assertAccessible(page);
  await screenshot(page, 'state-ops-empty');
  fake.stats = clusterStats(1);
  await page.getByText('All is well.').waitFor();
  assert.equal(await page.locator('#announcer').textContent(), 'The problem is over.', 'announced');
  assert.equal(await page.title(), 'Gateway operations', 'title');
  await fake.stop(); // closed now, and stopped again at the end
  await problem(page, 'The gateway does not answer').getByText('The numbers below are from').waitFor();
  assert.equal(await page.getByText('All is well.').isVisible(), false, 'well without an answer');
  assert.equal(await page.locator('#leader').textContent(), 'node-1', 'leader as last known');
  assert.equal(await page.title(), '(1) Gateway operations', 'title');
  await assertAccessible(page);
  await screenshot(page, 'state-ops-lost');
});

test('while the first answer is awaited, the page says so', async (t) => {
  const fake = await start(clusterStats(1));
  const page = await open(t, browser);
  let release;
  const released = new Promise((resolve) => {
    release = resolve;
  });
  await page.route('**/api/v1/stats', async (route) => {
    await released;
    await route.continue();
  });
  await page.goto(fake.opsURL);
  await page.getByText('Asking the cluster').waitFor();
  assert.equal(await page.locator('#status').textContent(), 'Loading…', 'status');
  await assertAccessible(page);
  release();
  await page.getByText('All is well.').waitFor();
  assert.equal(await page.getByText('Asking the cluster').isVisible(), false, 'loading once loaded');
});

test('only changes are asked for', async (t) => {
  const fake = await start(clusterStats(1));
  const page = await open(t, browser, fake.opsURL);
  const res = await page.waitForResponse((r) => r.url().endsWith('/stats') && r.status() === 304);
  assert.ok(res.request().headers()['if-none-match'], 'If-None-Match');
  assert.equal(await page.locator('#nodes tbody tr').count(), 3, 'nodes after 304');
});

test('a problem has a banner that says what, since when, and what to do', async (t) => {
  const fake = await start(clusterStats(0));
  fake.stats.nodes[1].age_ms = 42_000;
  fake.stats.nodes[2].draining = true;
  const page = await open(t, browser, fake.opsURL);
  const banner = problem(page, 'node-2 has stopped reporting');
  await banner.getByText('see whether its process runs').waitFor();
  assert.match(await banner.locator('.since').textContent(), /^since (.+, )?\d\d:\d\d:\d\d · 42 s$/, 'since');
  assert.deepEqual(await page.locator('.problem').evaluateAll((items) => items.map((item) => item.dataset.tone)), ['bad', 'warn'], 'tones');
  assert.equal(await page.title(), '(2) Gateway operations', 'title');
  assert.equal(await page.getByText('All is well.').isVisible(), false, 'all is well');
  const size = (locator) => locator.evaluate((element) => element.getBoundingClientRect().top);
  assert.ok(await size(banner) < await size(page.locator('#numbers')), 'problems stand above the numbers');
  await assertAccessible(page);
  fake.stats = clusterStats(1);
  await page.getByText('All is well.').waitFor();
  assert.equal(await page.locator('.problem').count(), 0, 'problems once they are over');
});

test('a problem is announced once, and its time is the first', async (t) => {
  const fake = await start(clusterStats(0));
  const page = await open(t, browser, fake.opsURL);
  await page.getByText('All is well.').waitFor();
  await page.evaluate(() => {
    globalThis.announced = [];
    new MutationObserver(() => globalThis.announced.push(document.querySelector('#announcer').textContent))
      .observe(document.querySelector('#announcer'), { childList: true });
  });
  let since;
  for (let tick = 1; tick <= 3; tick++) {
    fake.stats = clusterStats(tick);
    fake.stats.nodes[2].draining = true;
    await page.waitForFunction((want) => document.querySelector('#log-seq').textContent === want, fake.stats.log.seq.toLocaleString('en-US'));
    const text = (await problem(page, 'node-3 is draining').locator('.since').textContent()).split(' · ')[0];
    assert.equal(text, since ?? text, 'since');
    since = text;
  }
  assert.equal((await page.evaluate(() => globalThis.announced)).length, 1, 'announcements');
});

test('one node is enough', async (t) => {
  const fake = await start(clusterStats(1, 1));
  const page = await open(t, browser, fake.opsURL);
  await page.getByText('One node runs and leads.').waitFor();
  assert.deepEqual(await column(page, 1), ['node-1leader'], 'nodes');
});

test('thirty nodes: problems first, sorted by any column', async (t) => {
  const fake = await start(troubledStats(0));
  const page = await open(t, browser, fake.opsURL);
  await problem(page, 'node-6 has stopped reporting').waitFor();
  const states = await column(page, 2);
  assert.deepEqual(states.slice(0, 5), ['Silent', 'Not ready', 'Stale', 'Draining', 'Ready'], 'states');
  assert.deepEqual((await column(page, 1)).slice(0, 7), ['node-6leader', 'node-5leader', 'node-7leader', 'node-4leader', 'node-1leader', 'node-2leader', 'node-3leader'], 'nodes');
  assert.equal(await page.locator('#nodes .mark:visible').count(), 1, 'nodes marked as leader');
  const tones = await page.locator('.problem').evaluateAll((items) => items.map((item) => item.dataset.tone));
  assert.deepEqual(tones, [...tones].sort(), 'bad before warn');

  const sort = page.getByRole('button', { name: 'WebSocket' });
  await sort.focus();
  await page.keyboard.press('Enter');
  const sockets = (await column(page, 3)).map((text) => Number(text.replace(',', '')));
  assert.deepEqual(sockets, [...sockets].sort((a, b) => b - a), 'highest first');
  assert.equal(await page.getByRole('columnheader', { name: 'WebSocket' }).getAttribute('aria-sort'), 'descending');
  await page.keyboard.press('Enter');
  assert.equal(await page.getByRole('columnheader', { name: 'WebSocket' }).getAttribute('aria-sort'), 'ascending');
  await page.getByRole('button', { name: 'Node', exact: true }).click();
  assert.deepEqual((await column(page, 1)).map((text) => text.replace('leader', '')), Array.from({ length: 30 }, (_, i) => `node-${i + 1}`), 'by name');

  await page.getByRole('button', { name: 'State' }).click();
  await assertAccessible(page);
  await screenshot(page, 'ops-thirty');
  await page.setViewportSize({ width: 320, height: 640 });
  await assertFits(page);
  await assertAccessible(page);
  await screenshot(page, 'ops-thirty-320');
});

test('nothing moves and no row is made anew while numbers change', async (t) => {
  const fake = await start(clusterStats(0));
  const page = await open(t, browser, fake.opsURL);
  await page.waitForFunction(() => document.querySelectorAll('#nodes tbody tr').length === 3);
  const sequence = (tick) => (18_410 + tick * 45).toLocaleString('en-US');
  const next = async (tick) => {
    fake.stats = clusterStats(tick);
    await page.waitForFunction((want) => document.querySelector('#log-seq').textContent === want, sequence(tick));
  };
  for (const tick of [1, 2]) await next(tick);
  await page.evaluate(() => {
    globalThis.shifts = [];
    new PerformanceObserver((list) => globalThis.shifts.push(...list.getEntries().map((entry) => entry.value))).observe({ type: 'layout-shift' });
    for (const row of document.querySelectorAll('#nodes tbody tr')) row.kept = true;
  });
  for (const tick of [3, 4, 5]) await next(tick);
  // A digit that is wider than the last one may move its neighbour by a pixel; a line that jumps is 20 times as much.
  const moved = (await page.evaluate(() => globalThis.shifts)).reduce((sum, shift) => sum + shift, 0);
  assert.ok(moved < 0.002, `layout shifts: ${moved}, want less than 0.002`);
  assert.deepEqual(await page.locator('#nodes tbody tr').evaluateAll((rows) => rows.map((row) => row.kept)), [true, true, true], 'rows kept');
});

test('hostile text stays text', async (t) => {
  const hostile = [
    '<img src=x onerror="alert(1)">', '</script><script>alert(2)</script>', '<a href="javascript:alert(3)">x</a>', 'javascript:alert(4)',
    '\u2028\u2029line', '\u202e\u2066rtl', '<svg onload=alert(5)>', '"\'><style>*{display:none}</style>', '__proto__', 'x'.repeat(300),
  ];
  const stats = clusterStats(1, hostile.length);
  const text = hostile.join(' ');
  Object.assign(stats, { stream: text, leader: hostile[0], log: { seq: text, epoch: text } });
  Object.assign(stats.status, { state: text, reason: text });
  Object.assign(stats.upstream, { state: text, reason: text, frames: text });
  for (const [i, node] of stats.nodes.entries()) {
    Object.assign(node, { node: hostile[i], version: hostile[i], admin: hostile[i], epoch: hostile[i], draining: i % 2 === 0, ready: i % 3 === 0 });
    Object.assign(node.status, { state: hostile[i], reason: hostile[i] });
    node.lag_ms[hostile[i]] = { p50: 1, p99: 2 };
    node.counters[`refused_${hostile[i]}`] = 1;
  }
  const fake = await start(stats);
  const page = await open(t, browser, fake.opsURL); // which fails on dialogs, foreign requests and policy reports
  const requests = [];
  page.on('request', (request) => requests.push(new URL(request.url()).pathname));
  await page.locator('#nodes tbody tr', { hasText: 'onerror' }).waitFor();
  await page.waitForResponse((r) => r.url().endsWith('/stats') && r.status() === 304);
  assert.equal(await page.locator('main :is(script, a, img, svg, style, iframe)').count(), 0, 'elements made from text');
  assert.deepEqual([...new Set(requests)].filter((path) => path !== '/api/v1/stats' && !path.startsWith('/ops/')), [], 'requests');
  assert.equal(await page.locator('#nodes tbody tr').count(), hostile.length, 'nodes');
  assert.equal(await page.evaluate(() => document.documentElement.textContent.search(/[\u2028-\u202e\u2066-\u2069]/)), -1, 'place of a mark that turns the text around it');
  await assertFits(page);
  await screenshot(page, 'state-ops-hostile');
});
