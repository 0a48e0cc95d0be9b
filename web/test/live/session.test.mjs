// Sessions of 5 s for a minute, on both transports, against a running
// `pepay-gateway dev`: the page notices nothing of it.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertAll, delivered, is, Rig } from './rig.mjs';

const minuteMS = 60_000;

let rig;
before(async () => { rig = await new Rig(process.env.SESSIONS_URL).start(); });
after(() => rig?.stop());

test('tokens and sessions of 5 s, for a minute', async (t) => {
  const { shop, open } = await rig.shopper(t);
  const pages = [];
  for (const transport of ['ws', 'sse']) pages.push(await open({ session: 5, ttl: 5, transport, share: false }));
  for (const page of pages) await is(page, 'live');
  const end = Date.now() + minuteMS;
  while (Date.now() < end) {
    const tokens = await pages[0].evaluate(() => seen.tokens);
    const order = await shop.place();
    await shop.deliver(order);
    for (const page of pages) await delivered(page, order);
    await pages[0].waitForFunction((n) => seen.tokens > n, tokens);
  }
  for (const page of pages) {
    await assertAll(page, shop);
    const { tokens, errors } = await page.evaluate(() => seen);
    assert.ok(tokens > 10, `tokens = ${tokens}, want more than 10`);
    t.diagnostic(`${tokens} tokens, ${errors.length} sessions that ended before the next was up`);
  }
});
