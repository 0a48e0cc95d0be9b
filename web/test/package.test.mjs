// The client as a package: installed by npm, loaded where there is no page.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const web = fileURLToPath(new URL('..', import.meta.url));

test('the package installs, and loads without a window', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'pepay-gateway-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const run = (command, ...args) => execFileSync(command, args, { cwd: dir, encoding: 'utf8' });
  const file = run(join(web, 'pack.sh'), dir).trim();
  writeFileSync(join(dir, 'package.json'), '{"name":"shop","private":true,"type":"module"}');
  run('npm', 'install', '--offline', '--no-audit', '--no-fund', '--silent', file);
  writeFileSync(join(dir, 'shop.js'), `
    import { ws } from 'pepay-gateway';
    import { fakeCommerceEvents } from 'pepay-gateway/testing';
    import 'pepay-gateway/element';
    if (typeof window !== 'undefined') throw new Error('there is a window');
    const fake = fakeCommerceEvents();
    console.log(typeof ws.connectCommerceEvents, fake.status);
    fake.close();
  `);
  assert.equal(run(process.execPath, 'shop.js').trim(), 'function connecting');

  // Its types are those that the documentation shows.
  writeFileSync(join(dir, 'shop.ts'), `
    import { connectCommerceEvents, type OrderState } from 'pepay-gateway';
    import type { PepayOrderElement } from 'pepay-gateway/element';
    import { fakeOrderEvent } from 'pepay-gateway/testing';
    const stream = connectCommerceEvents({ getToken: async () => 'token', orderId: 'o1' });
    stream.on('state', (state: OrderState) => console.log(state.shipments[0]?.carrier)).on('error', (error) => error.retry || error.code.length);
    for await (const event of stream) console.log(event.id);
    const element: PepayOrderElement | null = document.querySelector('pepay-order');
    element?.addEventListener('pepay-state', ({ detail }) => console.log(detail.raw.order, element.state?.refund?.amount));
    // @ts-expect-error there is no such event
    stream.on('open', () => {});
    fakeOrderEvent('o1', 'shipped').data.object.id;
  `);
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions: {
    strict: true, noEmit: true, module: 'nodenext', target: 'es2022', lib: ['es2022', 'dom'], types: [],
  }, files: ['shop.ts'] }));
  run(join(web, 'node_modules', '.bin', 'tsc'), '-p', dir);
});

test('the guide names parts, slots, variables and attributes that the element has', () => {
  const read = (name) => readFileSync(join(web, name), 'utf8');
  const [element, style, guide] = ['client/src/element.ts', 'client/src/style.ts', '../docs/browser.md'].map(read);
  const names = (row) => {
    const cell = guide.split('\n').find((line) => line.startsWith(`| ${row} |`)).split('|')[2];
    return [...cell.matchAll(/`([^`=]+)`/g)].flatMap(([, words]) => words.split(' '));
  };
  for (const part of names('Parts')) assert.match(element, new RegExp(`part: [^\\n]*['\` ]${part}['\` ]`), `the part ${part}`);
  for (const slot of names('Slots')) assert.match(element, new RegExp(`(name: |\\? |: )'${slot}'`), `the slot ${slot}`);
  for (const variable of names('Variables')) assert.match(style, new RegExp(`var\\(${variable}\\b`), `the variable ${variable}`);
  const [, observed] = /observedAttributes = \[(.*)\]/.exec(element);
  for (const [, name] of observed.matchAll(/'([a-z-]+)'/g)) assert.ok(names('Attributes').includes(name), `the attribute ${name}`);
});
