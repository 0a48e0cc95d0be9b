// What a browser gives the client, in the hands of a test: sockets that do what
// it says, and time that stands still until it is moved.

import { mock } from 'node:test';

export const startMS = 1_790_000_000_000;

// Everything that does not wait for time happens in it.
export async function settle() {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

export class Env {
  sockets = [];
  sources = [];
  channels = [];
  requests = [];
  failing = new Set(); // 'ws', 'sse', 'poll': what does not get through
  answers = new Map(); // path → {status, body, headers}
  opened = () => {}; // is told of every socket

  // later says when what is on its way between processes arrives: what has the
  // same key in this order, and the rest in any.
  constructor(t, { locks = false, later = (key, arrive) => setImmediate(arrive) } = {}) {
    this.later = later;
    mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'], now: startMS });
    const saved = Object.fromEntries(names.map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]));
    t.after(() => {
      mock.timers.reset();
      for (const name of names) {
        delete globalThis[name];
        if (saved[name]) Object.defineProperty(globalThis, name, saved[name]);
      }
    });
    this.page = new EventTarget();
    this.page.hidden = false;
    const give = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    give('WebSocket', socketOf(this));
    give('EventSource', sourceOf(this));
    give('fetch', (url, init) => this.#fetch(url, init));
    give('document', this.page);
    give('addEventListener', this.page.addEventListener.bind(this.page));
    give('navigator', { onLine: true, locks: locks ? new Locks(later) : undefined });
    give('BroadcastChannel', locks ? channelOf(this) : undefined);
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get source() {
    return this.sources.at(-1);
  }

  get open() {
    return [...this.sockets, ...this.sources].filter((wire) => !wire.over);
  }

  async pass(ms) {
    for (let left = ms; left > 0; left -= 500) {
      mock.timers.tick(Math.min(left, 500));
      await settle();
    }
  }

  // The machine sleeps: time passes, nothing runs.
  async sleep(ms) {
    mock.timers.setTime(Date.now() + ms);
    mock.timers.tick(2_000);
    await settle();
  }

  async happen(name, more = {}) {
    this.page.dispatchEvent(Object.assign(new Event(name), more));
    await settle();
  }

  async #fetch(url, { headers }) {
    const { pathname, search } = new URL(url);
    this.requests.push({ path: pathname + search, headers });
    if (this.failing.has('poll')) throw new TypeError('fetch failed');
    const { status = 404, body = {}, headers: given = {} } = this.answers.get(pathname) ?? {};
    return { status, json: async () => body, headers: new Headers(given) };
  }
}

const names = ['WebSocket', 'EventSource', 'fetch', 'document', 'addEventListener', 'navigator', 'BroadcastChannel'];

class FakeWire {
  over = false;

  constructor(env, kind, url) {
    this.env = env;
    this.url = new URL(url);
    this.query = this.url.searchParams;
    if (env.failing.has(kind)) setImmediate(() => this.over || this.fail());
  }

  // The first words of a stream.
  async hello({ resumed = false, cursor = null, scope_id = 'scp_1', status = 'live', ...more } = {}) {
    await this.control({ type: 'hello', resumed, cursor, status, heartbeat_ms: 15_000, session_expires_at: startMS / 1000 + 3_600, scope_id, ...more });
  }

  // The first words of a stream that has nothing to send.
  async live(more) {
    await this.hello(more);
    await this.control({ type: 'replay_complete', cursor: more?.cursor ?? 'cur_0' });
  }

  async control(control) {
    await this.say({ object: 'ws_control', ...control });
  }

  async event(id, status = 'placed', more = {}) {
    await this.say(orderEvent(id, status, more));
  }
}

export function orderEvent(id, status, { order = 'o1', ...more } = {}) {
  return {
    id, object: 'event', type: 'commerce.order.updated', created: startMS / 1000,
    data: { object: { object: 'commerce_order', id: order, status, ...more } },
  };
}

function socketOf(env) {
  return class extends FakeWire {
    readyState = 0;
    sent = [];

    constructor(url, protocols) {
      super(env, 'ws', url);
      this.protocols = protocols;
      env.sockets.push(this);
      env.opened(this);
    }

    async say(frame) {
      if (this.over) return;
      this.readyState = 1;
      this.onmessage?.({ data: JSON.stringify(frame) });
      await settle();
    }

    async end(code) {
      if (this.over) return;
      this.over = true;
      this.readyState = 3;
      this.onclose?.({ code });
      await settle();
    }

    fail() { return this.end(1006); }

    send(text) { this.sent.push(JSON.parse(text)); }

    close() {
      this.over = true;
      this.readyState = 3;
    }
  };
}

function sourceOf(env) {
  return class extends FakeWire {
    #listeners = {};
    lastEventId = '';

    constructor(url) {
      super(env, 'sse', url);
      env.sources.push(this);
    }

    addEventListener(name, listener) { this.#listeners[name] = listener; }

    async say(frame, id = '') {
      const name = { event: 'message', ws_control: 'control', ws_error: 'error_frame' }[frame.object];
      if (!this.over) this.#listeners[name]?.({ data: JSON.stringify(frame), lastEventId: id });
      await settle();
    }

    async fail() {
      if (this.over) return;
      this.onerror?.();
      await settle();
    }

    close() { this.over = true; }
  };
}

// Locks as the specification has them, as far as they are used.
class Locks {
  #queues = new Map();
  #later;
  #requests = 0;

  constructor(later) {
    this.#later = later;
  }

  request(name, { signal, steal }, work) {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    const key = `lock ${++this.#requests}`;
    return new Promise((resolve, reject) => {
      const entry = { held: false, aborted: false, resolve, reject, grant: () => this.#later(key, async () => {
        if (entry.aborted) return this.#leave(queue, entry);
        await work({ name });
        this.#leave(queue, entry);
        resolve();
      }) };
      signal?.addEventListener('abort', () => {
        entry.aborted = true;
        if (entry.held) return;
        this.#leave(queue, entry);
        reject(new Error('aborted'));
      });
      this.#later(key, () => {
        if (entry.aborted) return;
        if (steal) {
          const [holder] = queue.splice(0, queue[0]?.held ? 1 : 0);
          holder?.reject(new Error('stolen'));
          queue.unshift(entry);
        } else queue.push(entry);
        this.#next(queue);
      });
    });
  }

  #leave(queue, entry) {
    const i = queue.indexOf(entry);
    if (i >= 0) queue.splice(i, 1);
    this.#next(queue);
  }

  #next(queue) {
    if (!queue[0] || queue[0].held) return;
    queue[0].held = true;
    queue[0].grant();
  }
}

// Opening, saying and closing go one after the other to the process that knows
// all channels; from there what was said goes to each, in this order.
function channelOf(env) {
  const open = new Set();
  return class {
    mute = false; // as of a page that does not run
    closed = false;

    constructor(name) {
      this.name = name;
      this.number = env.channels.push(this);
      this.#send(() => open.add(this));
    }

    postMessage(message) {
      if (this.mute) return;
      const data = structuredClone(message);
      this.#send(() => {
        for (const other of open) if (other !== this && other.name === this.name) env.later(`to ${other.number}`, () => other.hear(data));
      });
    }

    hear(data) {
      if (!this.closed && !this.mute) this.onmessage?.({ data });
    }

    close() {
      this.closed = true;
      this.#send(() => open.delete(this));
    }

    #send(act) { env.later(`from ${this.number}`, act); }
  };
}
