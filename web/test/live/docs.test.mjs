// What README.md and docs/browser.md print for pages, as printed, in a real page
// against a running `pepay-gateway dev`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Rig, until } from './rig.mjs';

const web = fileURLToPath(new URL('../..', import.meta.url));
const read = (name) => readFile(new URL(`../../../${name}`, import.meta.url), 'utf8');
const blocks = (text, language) => [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map((m) => m[1]);
const readme = await read('README.md');
const guide = await read('docs/browser.md');

const run = new Set(); // the blocks that a test has taken

// The one block that has the words.
function block(text, language, words) {
  const found = blocks(text, language).filter((b) => b.includes(words));
  assert.equal(found.length, 1, `blocks with ${words}`);
  run.add(found[0]);
  return found[0];
}

let rig;
before(async () => { rig = await new Rig(process.env.SESSIONS_URL).start(); });
after(() => rig?.stop());

const element = '<pepay-order token-url="/token" order-id="order_1"></pepay-order>';
for (const [name, html] of [
  ['the script tag and the element of README.md', block(readme, 'html', element)],
  ['the script tag and the element of docs/browser.md', block(guide, 'html', '<pepay-order')],
  ['the pinned script tag', block(guide, 'html', 'integrity=') + element],
]) {
  test(`${name} show the order`, async (t) => {
    const { context, shop } = await rig.shopper(t);
    const page = await context.newPage();
    // The names of the example are those of this run.
    rig.proxy.page = html.replaceAll('https://events.shop.com', rig.proxy.url).replace('order_1', await shop.place());
    await page.goto(`${rig.proxy.url}/printed`);
    await page.locator('pepay-order').getByText('Waiting for your payment').first().waitFor();
  });
}

const getToken = block(guide, 'js', 'async function getToken');

test('the lines of the client show the order', async (t) => {
  const { context, shop } = await rig.shopper(t);
  const page = await context.newPage();
  await page.goto(`${rig.proxy.url}/page`);
  const order = await shop.place();
  await page.evaluate(`
    const orderId = '${order}';
    const shown = window.shown = {};
    const show = (status) => { shown.order = status; }, showFreshness = (status) => { shown.status = status; }, showProblem = (code) => { shown.problem = code; };
    ${getToken}
    ${block(guide, 'js', 'PepayGateway.connectCommerceEvents')}
  `);
  await page.waitForFunction(() => shown.order === 'pending_payment' && shown.status === 'live' && !shown.problem);
});

// Each is given an order to follow, and says what it was brought to shown.
const plain = {
  'an EventSource, in README.md': `
    const token = () => getToken(orderId), show = (event) => shown.push(event), tell = (control) => told.push(control.type);
    ${block(readme, 'js', 'new EventSource')}`,
  'an EventSource, in docs/browser.md': `
    ${block(guide, 'js', 'new EventSource')}
    window.unfollow = follow(orderId, (event) => shown.push(event));`,
};

for (const [name, lines] of Object.entries(plain)) {
  test(`the lines for ${name}, bring the events, also after a 503`, async (t) => {
    const { context, shop } = await rig.shopper(t);
    const page = await context.newPage();
    await page.goto(`${rig.proxy.url}/page`);
    const order = await shop.place();
    await page.evaluate(`{
      const orderId = '${order}', shown = window.shown = [], told = window.told = [];
      Math.random = () => 0; // waits are random
      window.EventSource = class extends EventSource { constructor(url) { super(url); window.es = this; } };
      ${getToken}
      ${lines}
    }`);
    await page.waitForFunction(() => shown.length > 0);
    rig.proxy.busy.add('sse');
    rig.proxy.cut();
    await page.waitForFunction(() => es.readyState === EventSource.CLOSED);
    await shop.deliver(order);
    rig.proxy.busy.clear();
    await page.waitForFunction((id) => shown.some(({ data: { object } }) => object.id === id && object.status === 'delivered'), order);
    if (name.includes('README')) return assert.ok((await page.evaluate(() => told)).includes('hello'));
    const ids = await page.evaluate(() => shown.map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length, `events twice: ${ids}`);
    await page.evaluate(() => unfollow());
    await until('its stream is closed', () => rig.proxy.open('sse') === 0);
  });
}

test('the lines for a WebSocket bring the events', async (t) => {
  const { context, shop } = await rig.shopper(t);
  const page = await context.newPage();
  await page.goto(`${rig.proxy.url}/page`);
  const order = await shop.place();
  await page.evaluate(`(async () => {
    const shown = window.shown = [], show = (frame) => shown.push(frame);
    ${getToken}
    const token = () => getToken('${order}');
    ${block(readme, 'js', 'new WebSocket')}
  })()`);
  await shop.deliver(order);
  await page.waitForFunction((id) => shown.some((frame) => frame.object === 'event' && frame.data.object.id === id && frame.data.object.status === 'delivered'), order);
});

// A page of these files, bundled as shops do it.
function bundle(t, files) {
  const dir = mkdtempSync(join(tmpdir(), 'pepay-gateway-'));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  execFileSync('go', ['tool', '-modfile=../tools/go.mod', 'esbuild', join(dir, 'main.js'), '--bundle', '--jsx=automatic', '--log-level=error',
    '--define:process.env.NODE_ENV="development"', '--define:__VUE_OPTIONS_API__=true', '--define:__VUE_PROD_DEVTOOLS__=false',
    '--define:__VUE_PROD_HYDRATION_MISMATCH_DETAILS__=false', `--alias:pepay-gateway=${join(web, 'dist/pepay-gateway.mjs')}`,
    `--outfile=${join(dir, 'page.js')}`], { cwd: web, env: { ...process.env, NODE_PATH: join(web, 'node_modules') } });
  return readFileSync(join(dir, 'page.js'), 'utf8');
}

const frameworks = {
  React: {
    'order.jsx': block(guide, 'jsx', "from 'react'"),
    'main.js': `
      import { createElement, StrictMode } from 'react';
      import { createRoot } from 'react-dom/client';
      import { Order } from './order.jsx';
      const root = createRoot(document.querySelector('main'));
      window.render = (id) => root.render(createElement(StrictMode, null, createElement(Order, { id })));
      window.unmount = () => root.unmount();`,
  },
  Vue: {
    'order.js': block(guide, 'js', "from 'vue'"),
    'main.js': `
      import { createApp, h, ref } from 'vue';
      import { useOrder } from './order.js';
      const Order = { props: ['id'], setup(props) {
        const order = useOrder(() => props.id);
        return () => h('p', order.value?.status ?? 'connecting');
      } };
      const id = ref();
      const app = createApp({ render: () => id.value && h(Order, { id: id.value }) });
      app.mount('main');
      window.render = (order) => { id.value = order; };
      window.unmount = () => app.unmount();`,
  },
};

for (const [name, files] of Object.entries(frameworks)) {
  test(`the lines for ${name} show one order, then another, and leave nothing open`, async (t) => {
    const { context, shop } = await rig.shopper(t);
    rig.proxy.page = '<main></main><script src="/printed.js"></script>';
    rig.proxy.script = bundle(t, { ...files, 'token.js': `${getToken}export { getToken };` });
    const page = await context.newPage();
    const errors = [];
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && errors.push(message.text()));
    await page.goto(`${rig.proxy.url}/printed`);
    const [one, other] = [await shop.place(), await shop.place()];
    const shows = (status) => page.locator('p').getByText(status, { exact: true }).waitFor();
    await page.evaluate((id) => render(id), one);
    await shows('pending_payment');
    await shop.deliver(one);
    await shows('delivered');
    await page.evaluate((id) => render(id), other);
    await shows('pending_payment');
    await page.evaluate(() => unmount());
    await until('nothing is open', () => rig.proxy.open('ws') === 0);
    assert.deepEqual(errors, []);
  });
}

test("the lines for a shop's own tests print what they say", async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] }); // the fake's clock must not keep this process
  const log = t.mock.method(console, 'log', () => {});
  const lines = block(guide, 'js', 'fakeCommerceEvents').replace("'pepay-gateway/testing'", JSON.stringify(new URL('../../dist/testing.mjs', import.meta.url).href));
  await import(`data:text/javascript,${encodeURIComponent(lines)}`);
  assert.deepEqual(log.mock.calls.map((call) => call.arguments), [['shipped']]);
});

test('every block for pages is run by one of these tests', () => {
  const elsewhere = ["app.post('/token'", "import { ws } from 'pepay-gateway';"]; // by backends_test.go and package.test.mjs
  const all = [readme, guide].flatMap((text) => ['html', 'js', 'jsx'].flatMap((language) => blocks(text, language)));
  assert.deepEqual(all.filter((b) => !run.has(b) && !elsewhere.some((words) => b.startsWith(words))), []);
});
