// The client as a package: installed by npm, loaded where there is no page.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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
    import * as pepay from 'pepay-gateway';
    import { fakeCommerceEvents } from 'pepay-gateway/testing';
    if (typeof window !== 'undefined') throw new Error('there is a window');
    const fake = fakeCommerceEvents();
    console.log(typeof pepay.ws.connectCommerceEvents, fake.status);
    fake.close();
  `);
  assert.equal(run(process.execPath, 'shop.js').trim(), 'function connecting');

  // Its types are those that the documentation shows.
  writeFileSync(join(dir, 'shop.ts'), `
    import { connectCommerceEvents, type OrderState } from 'pepay-gateway';
    import { fakeOrderEvent } from 'pepay-gateway/testing';
    const stream = connectCommerceEvents({ getToken: async () => 'token', orderId: 'o1' });
    stream.on('state', (state: OrderState) => console.log(state.shipments[0]?.carrier)).on('error', (error) => error.retry || error.code.length);
    for await (const event of stream) console.log(event.id);
    // @ts-expect-error there is no such event
    stream.on('open', () => {});
    fakeOrderEvent('o1', 'shipped').data.object.id;
  `);
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions: {
    strict: true, noEmit: true, module: 'nodenext', target: 'es2022', lib: ['es2022', 'dom'], types: [],
  }, files: ['shop.ts'] }));
  run(join(web, 'node_modules', '.bin', 'tsc'), '-p', dir);
});
