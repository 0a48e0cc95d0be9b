// Takes pictures of the pages, as they are in a shop that runs well and in one
// that does not, into the folder named on the command line.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { launch, placeOrder, waitForState, waitForStatus } from './test/browser.mjs';
import { Fake } from './test/fake.mjs';
import { clusterStats, troubledStats } from './test/stats.mjs';

const [dir] = process.argv.slice(2);
const looks = {
  light: { viewport: { width: 1280, height: 900 }, colorScheme: 'light' },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: 'dark' },
  '320-light': { viewport: { width: 320, height: 640 }, colorScheme: 'light' },
  '320-dark': { viewport: { width: 320, height: 640 }, colorScheme: 'dark' },
};
const minutes = 5; // of traffic

await mkdir(dir, { recursive: true });
const fake = await new Fake().start();
const browser = await launch();
for (const [look, options] of Object.entries(looks)) {
  await take(`ops-${look}`, options, (page) => runCluster(page, (tick) => clusterStats(tick)));
  await take(`ops-trouble-${look}`, options, (page) => runCluster(page, troubledStats));
  await take(`shop-${look}`, options, fillBasket);
  await take(`storefront-${look}`, options, (page) => followOrder(page, look));
}
await browser.close();
await fake.stop();

async function take(name, options, play) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await play(page);
  await page.screenshot({ path: join(dir, `${name}.png`), fullPage: true });
  await context.close();
  console.log(`${join(dir, name)}.png`);
}

// The page's clock is ours, so that minutes pass in seconds.
async function runCluster(page, statsAt) {
  const end = Date.now();
  const begin = end - minutes * 60_000;
  await page.clock.install({ time: begin });
  for (let tick = 0; tick <= minutes * 60; tick += 2) {
    const stats = statsAt(tick);
    stats.now_ms = begin + tick * 1_000;
    for (const node of stats.nodes) node.at_ms = stats.now_ms;
    fake.stats = stats;
    const answered = page.waitForResponse('**/api/v1/stats');
    if (tick === 0) await page.goto(fake.opsURL);
    else await page.clock.runFor(2_000);
    await (await answered).finished();
    await page.waitForFunction((seq) => document.querySelector('#log-seq').textContent === seq, stats.log.seq.toLocaleString('en-US'));
  }
  await page.clock.runFor(100); // what is drawn with the next frame
}

async function fillBasket(page) {
  await page.goto(fake.url);
  for (const product of ['lamp', 'mug', 'mug']) await page.locator(`[data-product="${product}"] button`).click();
}

// Two orders, one at the door and one on its way, and a frame that is looked at.
async function followOrder(page, look) {
  const moves = ['payment_confirmed', 'payment_settled', 'placed', 'shipped', 'delivery_confirmed'];
  for (const [products, status, n] of [[['mug', 'mug'], 'delivered', 5], [['lamp', 'notebook'], 'shipped', 4]]) {
    await page.goto(fake.url);
    await placeOrder(page, ...products);
    await waitForState(page, 'live');
    for (const move of moves.slice(0, n)) await page.locator(`[data-move="${move}"].primary`).click();
    await waitForStatus(page, status);
  }
  await page.locator('pepay-order').screenshot({ path: join(dir, `element-${look}.png`) });
  console.log(`${join(dir, `element-${look}`)}.png`);
  await page.locator('#frames summary', { hasText: 'invoice_payment.updated' }).first().click();
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.activeElement.blur());
}
