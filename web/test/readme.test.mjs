// The README's own lines for a page, in a real browser against a running
// `pepay-gateway dev`.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { launch, open } from './browser.mjs';

const url = process.env.STOREFRONT_URL;
const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
const snippets = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].map((m) => m[1]);

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

test('the README has a snippet for each transport', () => {
  assert.equal(snippets.length, 2);
  assert.match(snippets[0], /new EventSource\(sse_url\)/);
  assert.match(snippets[1], /new WebSocket\(ws_url/);
});

for (const [i, name] of url ? ['es', 'ws'].entries() : []) {
  test(`the README's lines bring an order's events: ${name}`, async (t) => {
    const page = await open(t, browser, url);
    await page.evaluate(`(async () => {
      const post = async (path, body) => (await fetch(path, { method: 'POST', body: JSON.stringify(body) })).json();
      const items = [{ product: 'mug', quantity: 1 }];
      await post('/checkout', { items }); // which makes the visitor a shopper
      const { sse_url, ws_url, token } = await post('/token', {});
      ${snippets[i]}
      globalThis.seen = [];
      ${name}.addEventListener('message', (m) => globalThis.seen.push(JSON.parse(m.data)));
      await new Promise((resolve) => ${name}.addEventListener('open', resolve));
      globalThis.placed = await post('/checkout', { items });
    })()`);
    await page.waitForFunction(() => globalThis.seen.some(
      (frame) => frame.type === 'commerce.order.created' && frame.data.object.id === globalThis.placed.order_id,
    ));
  });
}
