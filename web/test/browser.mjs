// Chromium for the tests, and pages that remember what went wrong in them.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

// What Chromium logs when a request fails, which is what faults are for.
const networkNoise = /^Failed to load resource|net::ERR_|^WebSocket connection to|error during WebSocket|ERR_CONNECTION/;

// Chromium's engine without its browser: it takes half the processor time, and
// that is most of what these tests take.
export const shell = process.env.CHROMIUM_HEADLESS_SHELL ?? '/usr/bin/chromium-headless-shell';

export const wholeChromium = process.env.CHROMIUM ?? '/usr/bin/chromium';

export function launch(executablePath = shell) {
  return chromium.launch({
    executablePath,
    args: [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
}

// Opens a page in a context of its own, which is closed after the test. The
// test fails when the page logged an error, broke its policy, or asked another
// host for anything; faulty says that failed requests are part of the test.
export async function open(t, browser, url, { faulty = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (err) => problems.push(String(err)));
  page.on('request', (request) => {
    if (url && new URL(request.url()).host !== new URL(url).host) problems.push(`request to ${request.url()}`);
  });
  page.on('dialog', (dialog) => problems.push(`dialog: ${dialog.message()}`));
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    if (faulty && networkNoise.test(message.text())) return;
    problems.push(message.text());
  });
  await context.exposeFunction('reportViolation', (text) => problems.push(`policy: ${text}`));
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => globalThis.reportViolation(`${e.violatedDirective} ${e.blockedURI}`));
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(problems, [], 'errors logged by the page');
  });
  if (url) await page.goto(url);
  return page;
}

// Writes a screenshot to the directory in SCREENSHOTS, when there is one.
export async function screenshot(page, name) {
  const dir = process.env.SCREENSHOTS;
  if (!dir) return;
  await mkdir(dir, { recursive: true });
  await page.screenshot({ path: join(dir, `${name}.png`), fullPage: true });
}

export async function assertFits(page) {
  const { scroll, client } = await page.evaluate(() => ({
    scroll: document.documentElement.scrollWidth,
    client: document.documentElement.clientWidth,
  }));
  assert.ok(scroll <= client, `page width = ${scroll}, want at most ${client}`);
  // A word that is broken has more boxes than one; so has a label of several lines.
  const broken = await page.locator('.buttons button').evaluateAll((buttons) => buttons.map((button) => {
    const range = document.createRange();
    range.selectNodeContents(button);
    return range.getClientRects().length > 1 ? button.textContent : '';
  }).filter(Boolean));
  assert.deepEqual(broken, [], 'buttons with a broken label');
}

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// Fails on what axe-core calls serious or critical.
export async function assertAccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(', ')}`), [], 'serious findings of axe-core');
}

// Waits until the order page's stream and its element both say so.
export async function waitForState(page, state) {
  await page.locator(`#connection[data-state="${state}"]`).waitFor();
  await page.locator(`pepay-order [part="freshness ${state}"]`).waitFor();
}

// Writes down every state the order page's stream has from now on. What it returns
// waits until the stream was away, and is live again.
export async function watchStates(page) {
  await page.evaluate(() => {
    const connection = document.querySelector('#connection');
    globalThis.states = [];
    new MutationObserver(() => states.push(connection.dataset.state)).observe(connection, { attributes: true });
  });
  return () => page.waitForFunction(() => states.includes('connecting') && states.at(-1) === 'live');
}

// Puts things into the basket of a shop's page and orders them. The page that
// follows is that of the order, whose id is returned.
export async function placeOrder(page, ...products) {
  for (const product of products.length ? products : ['lamp']) await page.locator(`[data-product="${product}"] button`).click();
  await page.getByRole('button', { name: 'Place the order' }).click();
  await page.waitForURL(/order\.html\?id=/);
  const id = new URL(page.url()).searchParams.get('id');
  await page.locator('pepay-order').getByText('Waiting for your payment').first().waitFor();
  return id;
}

// The order's status, as the element has it.
export function statusOf(page) {
  return page.evaluate(() => document.querySelector('pepay-order').state?.status);
}

export function waitForStatus(page, status) {
  return page.waitForFunction((want) => document.querySelector('pepay-order').state?.status === want, status);
}
