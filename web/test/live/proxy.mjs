// A proxy before a running `pepay-gateway dev`, as a shopper's network has them:
// it lets through what it is told to, cuts, stalls, and counts. It serves the
// pages of the tests, and plays the shop's backend for them.

import { createServer, request } from 'node:http';
import { connect } from 'node:net';

const apiKey = 'gwk_dev_local_only_0000000000'; // of dev

const page = (body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>test</title><link rel="icon" href="data:,">${body}`;
// As strict as a shop's policy can be.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const pages = {
  '/element': page('<link rel="stylesheet" href="/page.css"><script src="/client/v1/element.js"></script><main></main>'),
  '/page': page('<script src="/client/v1/pepay-gateway.js"></script><script src="/recorder.js"></script>'),
  '/other': page('<p>Another page of the shop.'),
};

const css = ':root { color-scheme: light dark; } body { margin: 0; padding: 1rem; }';

// Runs in the page: opens a stream and writes down what it is told.
const recorder = `
  window.start = (customer, { session, ttl, ...options } = {}) => {
    const seen = window.seen = { ids: [], statuses: [], controls: [], errors: [], tokens: 0 };
    const stream = window.stream = PepayGateway.connectCommerceEvents({
      url: location.origin,
      getToken: async () => {
        seen.tokens++;
        const res = await fetch('/mint', { method: 'POST', body: JSON.stringify({ customer_id: customer, session_seconds: session, ttl_seconds: ttl }) });
        if (!res.ok) throw new Error('mint: ' + res.status);
        return res.json();
      },
      ...options,
    });
    stream.on('event', (event) => seen.ids.push(event.id)).on('control', (control) => seen.controls.push(control.type));
    stream.on('status', (status) => seen.statuses.push(status.status)).on('error', (error) => seen.errors.push(error.code));
  };
  window.addEventListener('pageshow', (event) => { window.persisted = event.persisted; });
`;

export class Proxy {
  blocked = new Set(); // 'ws', 'sse', 'api': what does not get through
  busy = new Set(); // 'sse': what is answered 503
  page = ''; // the body of /printed
  script = ''; // /printed.js
  refusal = 0; // what the shop's backend answers who asks for a token
  #target;
  #streams = new Map(); // socket → 'ws' or 'sse'
  #server = createServer((req, res) => this.#serve(req, res));

  constructor(target) {
    this.#target = new URL(target);
  }

  async start() {
    this.#server.on('upgrade', (req, socket, head) => this.#upgrade(req, socket, head));
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  async stop() {
    this.cut();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  open(kind) {
    return [...this.#streams.values()].filter((k) => k === kind).length;
  }

  // Ends what is open without a word.
  cut() {
    for (const socket of this.#streams.keys()) socket.destroy();
  }

  // Puts a frame of the test's own into every WebSocket.
  say(frame) {
    for (const [socket, kind] of this.#streams) if (kind === 'ws') socket.write(textFrame(JSON.stringify(frame)));
  }

  // Keeps what is open, and lets nothing through any more.
  stall() {
    for (const socket of this.#streams.keys()) socket.stalled = true;
  }

  // Ends WebSockets with a close frame, after a frame that says why.
  closeWith(code, error) {
    for (const [socket, kind] of this.#streams) {
      if (kind !== 'ws') continue;
      socket.stalled = true;
      if (error) socket.write(textFrame(JSON.stringify({ object: 'ws_error', code: error, message: error })));
      socket.end(Buffer.from([0x88, 2, code >> 8, code & 0xff]));
    }
  }

  // The target knows its own origin only, so that is the one it is told.
  #headers(headers) {
    const given = { ...headers, host: this.#target.host };
    if (given.origin) given.origin = this.#target.origin;
    return given;
  }

  async #serve(req, res) {
    const { pathname } = new URL(req.url, this.url);
    if (pages[pathname]) {
      const strict = pathname === '/element' && { 'Content-Security-Policy': policy };
      return res.writeHead(200, { 'Content-Type': 'text/html', ...strict }).end(pages[pathname]);
    }
    if (pathname === '/printed') return res.writeHead(200, { 'Content-Type': 'text/html' }).end(page(this.page));
    if (pathname === '/printed.js') return res.writeHead(200, { 'Content-Type': 'text/javascript' }).end(this.script);
    if (pathname === '/page.css') return res.writeHead(200, { 'Content-Type': 'text/css' }).end(css);
    if (pathname === '/token' && this.refusal) return res.writeHead(this.refusal).end();
    if (pathname === '/recorder.js') return res.writeHead(200, { 'Content-Type': 'text/javascript' }).end(recorder);
    const sse = pathname.startsWith('/sse/');
    if (sse && this.busy.has('sse')) return res.writeHead(503).end();
    if (this.blocked.has(sse ? 'sse' : pathname.startsWith('/api/') ? 'api' : '')) return res.destroy();
    if (pathname === '/mint' || pathname === '/token') return this.#mint(req, res);
    const headers = this.#headers(req.headers);
    const out = request(new URL(req.url, this.#target), { method: req.method, headers }, (answer) => {
      res.writeHead(answer.statusCode, { ...answer.headers, ...(headers.origin && { 'access-control-allow-origin': req.headers.origin }) });
      if (!sse) return answer.pipe(res);
      this.#track(res.socket, 'sse');
      answer.on('data', (chunk) => res.socket?.stalled || res.write(chunk));
      answer.on('end', () => res.end()).on('error', () => res.destroy());
    });
    res.on('close', () => out.destroy());
    out.on('error', () => res.destroy());
    req.pipe(out);
  }

  // Plays the shop's backend. The addresses in a token are those of the target,
  // and become this proxy's.
  async #mint(req, res) {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    try {
      const answer = await fetch(new URL('/api/v1/ws/token', this.#target), { method: 'POST', headers: { 'x-api-key': apiKey }, body: Buffer.concat(chunks) });
      const { data } = await answer.json();
      res.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(JSON.stringify(data ?? {}).replaceAll(this.#target.host, new URL(this.url).host));
    } catch {
      res.destroy(); // the gateway restarts
    }
  }

  #upgrade(req, socket, head) {
    socket.on('error', () => {}); // the close that follows says enough
    if (this.blocked.has('ws')) return socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
    const out = connect(this.#target.port, this.#target.hostname, () => {
      const lines = Object.entries(this.#headers(req.headers)).map(([name, value]) => `${name}: ${value}\r\n`);
      out.write(`GET ${req.url} HTTP/1.1\r\n${lines.join('')}\r\n`);
      out.write(head);
    });
    this.#track(socket, 'ws');
    out.on('error', () => socket.destroy()).on('close', () => socket.stalled || socket.end());
    socket.on('close', () => out.destroy());
    out.on('data', (data) => socket.stalled || socket.write(data));
    socket.on('data', (data) => socket.stalled || out.write(data));
  }

  #track(socket, kind) {
    this.#streams.set(socket, kind);
    socket.on('close', () => this.#streams.delete(socket));
  }
}

function textFrame(text) {
  const payload = Buffer.from(text);
  const length = payload.length < 126 ? [payload.length] : [126, payload.length >> 8, payload.length & 0xff];
  return Buffer.concat([Buffer.from([0x81, ...length]), payload]);
}

// The shop's side: places orders, moves them, and knows what happened.
export class Shop {
  static #made = 0;
  customer = `cust_${process.pid}_${++Shop.#made}`;

  constructor(target) {
    this.target = target;
  }

  async post(path, body) {
    const res = await fetch(new URL(path, this.target), { method: 'POST', body: JSON.stringify(body) });
    if (!res.ok) throw new Error(`POST ${path}: ${res.status} ${await res.text()}`);
    return res.json();
  }

  async place() {
    return (await this.post('/demo/orders', { customer_id: this.customer })).order_id;
  }

  async move(order, ...transitions) {
    for (const transitionTo of transitions) await this.post(`/demo/orders/${order}/simulate`, { transitionTo });
  }

  async deliver(order) {
    await this.move(order, 'payment_confirmed', 'payment_settled', 'placed', 'shipped', 'delivery_confirmed');
  }

  // A gateway that cannot reach its log in time says 503, and is asked again.
  async list(page) {
    for (const end = Date.now() + 30_000; ;) {
      const res = await fetch(page, { headers: { 'x-api-key': apiKey } });
      if (res.ok) return res.json();
      if (res.status !== 503 || Date.now() > end) throw new Error(`GET ${page}: ${res.status} ${await res.text()}`);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }

  // The ids of everything that happened to this customer's orders.
  async ids() {
    const ids = [];
    for (let more = true; more;) {
      const page = new URL(`/api/v1/events?limit=100&customer_id=${this.customer}`, this.target);
      if (ids.length) page.searchParams.set('starting_after', ids.at(-1));
      const { data } = await this.list(page);
      ids.push(...data.data.map((event) => event.id));
      more = data.has_more;
    }
    return ids.sort();
  }
}
