// A browser and a network for the tests, before a running `pepay-gateway dev`.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { shell } from '../browser.mjs';
import { Proxy, Shop } from './proxy.mjs';

export class Rig {
  constructor(target) {
    this.target = target;
  }

  async start(executablePath = shell) {
    this.proxy = await new Proxy(this.target).start();
    this.browser = await chromium.launch({
      executablePath,
      args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update'],
      ignoreDefaultArgs: ['--disable-back-forward-cache'], // drivers switch it off
    });
    return this;
  }

  async stop() {
    await this.browser?.close();
    await this.proxy?.stop();
  }

  // A shopper's browser: a context of its own, with pages that must not throw.
  async shopper(t, options) {
    const context = await this.browser.newContext(options);
    const shop = new Shop(this.target);
    const problems = [];
    context.on('weberror', (err) => problems.push(String(err.error())));
    t.after(async () => {
      this.proxy.blocked.clear();
      this.proxy.busy.clear();
      await context.close();
      assert.deepEqual(problems, [], 'errors of the pages');
    });
    const open = async (options) => {
      const page = await context.newPage();
      await page.goto(`${this.proxy.url}/page`);
      await page.evaluate(([customer, opts]) => start(customer, opts), [shop.customer, options]);
      return page;
    };
    return { context, shop, open };
  }
}

export async function until(what, ok) {
  for (const end = Date.now() + 30_000; Date.now() < end;) {
    if (await ok()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  assert.fail(`not within 30 s: ${what}`);
}

export function is(page, status, transport) {
  return page.waitForFunction(([s, t]) => stream.status === s && (!t || stream.transport === t), [status, transport]);
}

export function delivered(page, order) {
  return page.waitForFunction((id) => stream.getState(id)?.status === 'delivered', order);
}

// What the page was told is what happened, each once.
export async function assertAll(page, shop) {
  const want = await shop.ids();
  assert.ok(want.length > 5, `events = ${want}`);
  await until('all events are told', async () => (await page.evaluate(() => seen.ids.length)) >= want.length);
  assert.deepEqual((await page.evaluate(() => seen.ids)).sort(), want);
}
