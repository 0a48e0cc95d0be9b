// From nothing to an order on the screen: PROGRAM, pepay-gateway, is started as
// dev, its shop is opened, and something is ordered.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { launch, placeOrder, wholeChromium } from '../browser.mjs';

test('from the start of dev to the first painted state of an order', async (t) => {
  const browser = await launch(wholeChromium);
  t.after(() => browser.close());
  const page = await browser.newPage();
  await page.addInitScript(() => {
    addEventListener('pepay-state', () => requestAnimationFrame(() => requestAnimationFrame(() => { // the frame before has been painted
      globalThis.painted ??= { asked: Math.round(performance.timeOrigin), at: Date.now(), headline: document.querySelector('pepay-order').shadowRoot.querySelector('[part="headline"]').textContent };
    })));
  });

  const started = Date.now();
  const dev = spawn(process.env.PROGRAM, ['dev', '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0', '--rate', '0']);
  t.after(async () => {
    dev.kill();
    await once(dev, 'exit');
  });
  let url;
  for await (const line of createInterface({ input: dev.stdout })) {
    [, url] = /^ +Storefront +(\S+)/.exec(line) ?? [];
    if (url) break;
  }
  const listening = Date.now();
  await page.goto(url);
  const opened = Date.now();
  await placeOrder(page);
  await page.waitForFunction(() => globalThis.painted);
  const { asked, at, headline } = await page.evaluate(() => painted);
  assert.equal(headline, 'Waiting for your payment');
  t.diagnostic(`first painted order state ${at - started} ms after dev started: it listened after ${listening - started} ms, the shop was open after ${opened - started} ms, the order was placed after ${asked - started} ms`);
});
