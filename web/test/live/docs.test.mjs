// What README.md and docs/browser.md print for pages and backends, as printed,
// in a real page against a running `pepay-gateway dev`.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { Rig } from './rig.mjs';

const read = (name) => readFile(new URL(`../../../${name}`, import.meta.url), 'utf8');
const blocks = (text, language) => [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map((m) => m[1]);
const readme = await read('README.md');
const guide = await read('docs/browser.md');

// The one block that has the words.
function block(text, language, words) {
  const found = blocks(text, language).filter((b) => b.includes(words));
  assert.equal(found.length, 1, `blocks with ${words}`);
  return found[0];
}

let rig;
before(async () => { rig = await new Rig(process.env.SESSIONS_URL).start(); });
after(() => rig?.stop());

for (const [name, text] of [['README.md', readme], ['docs/browser.md', guide]]) {
  test(`the script tag and the element of ${name} show the order`, async (t) => {
    const { context, shop } = await rig.shopper(t);
    const page = await context.newPage();
    // The names of the example are those of this run.
    rig.proxy.page = block(text, 'html', '<pepay-order').replaceAll('https://events.shop.com', rig.proxy.url).replace('order_1', await shop.place());
    await page.goto(`${rig.proxy.url}/printed`);
    await page.locator('pepay-order').getByText('Waiting for your payment').first().waitFor();
  });
}

test('the lines of the client show the order', async (t) => {
  const { context, shop } = await rig.shopper(t);
  const page = await context.newPage();
  await page.goto(`${rig.proxy.url}/page`);
  const order = await shop.place();
  await page.evaluate(`
    const orderId = '${order}';
    const shown = window.shown = {};
    const show = (status) => { shown.order = status; }, showFreshness = (status) => { shown.status = status; }, showProblem = (code) => { shown.problem = code; };
    ${block(guide, 'js', 'PepayGateway.connectCommerceEvents')}
  `);
  await page.waitForFunction(() => shown.order === 'pending_payment' && shown.status === 'live' && !shown.problem);
});

test('the lines without the client bring the events', async (t) => {
  const { context, shop } = await rig.shopper(t);
  const page = await context.newPage();
  await page.goto(`${rig.proxy.url}/page`);
  const order = await shop.place();
  await page.evaluate(`
    const orderId = '${order}';
    window.ids = [];
    ${block(guide, 'js', 'new EventSource')}
    follow((event) => ids.push(event.id));
  `);
  await page.waitForFunction(() => ids.length > 0);
});

test("the backend's lines answer the element", async () => {
  const routes = {};
  const app = { post: (path, handler) => { routes[path] = handler; } };
  const process = { env: { GATEWAY_URL: rig.target.replace(/\/$/, ''), GATEWAY_API_KEY: 'gwk_dev_local_only_0000000000' } };
  let shopper = 'alice';
  new Function('app', 'process', 'signedInShopper', 'orderIsOf', block(guide, 'js', "app.post('/token'"))(
    app, process, async () => shopper, async (who, order) => who === 'alice' && order === 'order_1');
  const ask = async (order_id) => {
    const answer = {};
    const res = { status: (code) => ({ end: () => { answer.status = code; } }), json: (body) => { answer.body = body; } };
    await routes['/token']({ body: { order_id } }, res);
    return answer;
  };
  assert.ok((await ask('order_1')).body.token, 'a token for her own order');
  assert.equal((await ask('order_2')).status, 404);
  shopper = '';
  assert.equal((await ask('order_1')).status, 401);
});

test("the lines for a shop's own tests print what they say", async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] }); // the fake's clock must not keep this process
  const log = t.mock.method(console, 'log', () => {});
  const lines = block(guide, 'js', 'fakeCommerceEvents').replace("'pepay-gateway/testing'", JSON.stringify(new URL('../../dist/testing.mjs', import.meta.url).href));
  await import(`data:text/javascript,${encodeURIComponent(lines)}`);
  assert.deepEqual(log.mock.calls.map((call) => call.arguments), [['shipped']]);
});
