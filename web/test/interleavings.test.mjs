// Tabs that open at the same moment, while what is on its way between tabs,
// browser and gateway arrives in any order. Time stands still in all of this:
// nothing may depend on somebody's asking again later.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectCommerceEvents } from '../dist/pepay-gateway.mjs';
import { Env, orderEvent } from './env.mjs';

const url = 'https://events.shop.test';
const seeds = 300; // orders of arrival that are tried

// What is on its way, in queues that keep their order. Which of them moves next
// is chosen by a number from 0 to 1.
class Ways {
  #queues = new Map();
  #choose;

  constructor(choose) {
    this.#choose = choose;
  }

  add = (key, arrive) => {
    if (!this.#queues.has(key)) this.#queues.set(key, []);
    this.#queues.get(key).push(arrive);
  };

  // Lets everything arrive, and what comes of it.
  async run() {
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve)); // what follows at once
      const ready = [...this.#queues.values()].filter((queue) => queue.length > 0);
      if (ready.length === 0) return;
      ready[Math.floor(this.#choose() * ready.length)].shift()();
    }
  }
}

// Numbers from 0 to 1 that are the same in every run (mulberry32).
function numbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), seed | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

// A gateway with a log of events: what a stream has not had comes first, as
// events after a cursor or as the state without one, then what happens.
function serve(env, ways) {
  const log = [];
  const live = new Map(); // socket → its number
  env.opened = (socket) => {
    const key = `socket ${env.sockets.length}`;
    const send = (say) => ways.add(key, () => socket.over || say());
    send(() => {
      const since = socket.query.get('since');
      const asked = socket.query.getAll('order_id');
      const mine = ({ data }) => !asked.length || asked.includes(data.object.id);
      const from = since?.startsWith('cur_') ? +since.slice(4) : log.findIndex(({ id }) => id === since) + 1;
      void socket.hello({ resumed: !!since, cursor: since });
      for (const event of log.slice(since ? from : 0).filter(mine)) send(() => socket.say(event));
      const cursor = `cur_${log.length}`;
      send(() => socket.control({ type: 'replay_complete', cursor }));
      live.set(socket, (event) => mine(event) && send(() => socket.say(event)));
    });
  };
  return (event) => {
    log.push(event);
    for (const tell of live.values()) tell(event);
  };
}

// Opens a tab for each of the orders, while something happens to each, and lets
// all arrive. Afterwards there is one connection, and everybody has had their own.
async function play(seed, orders, leaves) {
  const ends = [];
  const ways = new Ways(numbers(seed));
  const env = new Env({ after: (end) => ends.push(end) }, { locks: true, later: ways.add });
  try {
    const happen = serve(env, ways);
    const tabs = orders.map((order) => {
      const stream = connectCommerceEvents({ url, getToken: () => 'token', orderId: order });
      const tab = { order, stream, events: [] };
      stream.on('event', ({ id }) => tab.events.push(id));
      return tab;
    });
    const happened = [...new Set(orders)].map((order, i) => orderEvent(`evt_${i + 1}-1`, 'placed', { order }));
    for (const event of happened) ways.add('shop', () => happen(event));
    if (leaves) ways.add('shopper', () => tabs.shift().stream.close());
    await ways.run();
    const of = `seed ${seed}`;
    assert.equal(env.open.length, 1, `connections, ${of}`);
    const transports = tabs.map(({ stream }) => stream.transport);
    assert.deepEqual(transports.toSorted(), [...tabs.slice(1).map(() => 'shared'), 'ws'], `transports, ${of}`);
    for (const { order, stream, events } of tabs) {
      const mine = happened.filter(({ data }) => data.object.id === order).map(({ id }) => id);
      assert.deepEqual([stream.status, events], ['live', mine], `status and events, ${of}`);
      stream.close();
    }
  } finally {
    for (const end of ends) end();
  }
}

for (const [name, orders, leaves] of [
  ['two tabs', ['o1', 'o1']],
  ['two tabs, of two orders', ['o1', 'o2']],
  ['five tabs', ['o1', 'o1', 'o1', 'o1', 'o1']],
  ['four tabs, of three orders', ['o1', 'o2', 'o3', 'o1']],
  ['four tabs, of two orders, one of which is closed', ['o1', 'o1', 'o2', 'o2'], true],
]) {
  test(`${name} share one connection, whatever comes first`, async () => {
    for (let seed = 1; seed <= seeds; seed++) await play(seed, orders, leaves);
  });
}
