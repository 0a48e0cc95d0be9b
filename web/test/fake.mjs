// A stand-in for `pepay-gateway dev`: the pages, the shop's backend, both
// streams and the numbers, all in memory, for page states that a real one is
// hard to bring into. It checks nothing that the gateway checks.

import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname } from 'node:path';

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'";
const contentTypes = { '.css': 'text/css', '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.svg': 'image/svg+xml' };
const products = { lamp: { title: 'Desk lamp', price: 49 }, mug: { title: 'Coffee mug', price: 12.5 }, notebook: { title: 'Notebook, dotted', price: 7.25 } };
const retryMS = 300;
const tipMS = 1_000;

const moves = {
  payment_confirmed: { from: ['pending_payment'], to: 'processing' },
  payment_settled: { from: ['processing'], to: 'processing' },
  placed: { from: ['processing'], to: 'placed' },
  shipped: { from: ['placed'], to: 'shipped' },
  delivery_confirmed: { from: ['shipped'], to: 'delivered' },
  failed: { from: ['processing'], to: 'failed' },
  cancelled: { from: ['placed'], to: 'cancelled' },
};

export class Fake {
  status = 'live';
  sinceMS = 0;
  down = false; // the backend answers 503
  stats = null; // null: 503
  tokens = 0; // minted
  begun = 0; // streams
  #log = []; // {customer, event}
  #orders = new Map();
  #streams = new Set();
  #waiting = [];
  #customers = 0;
  #seq = 0;
  #server = createServer((req, res) => this.#serve(req, res));

  async start() {
    this.#server.on('upgrade', (req, socket) => this.#upgrade(req, socket));
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}/`;
    this.opsURL = `${this.url}ops/`;
    this.tips = setInterval(() => this.control({ type: 'tip', cursor: this.cursor() }, true), tipMS);
    return this;
  }

  async stop() {
    clearInterval(this.tips);
    this.cut();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  cursor() {
    return `cur_${String(this.#log.length).padStart(22, '0')}`;
  }

  // Sends a control to every stream; with the cursor as SSE id where it moves.
  control(control, moves = false) {
    for (const stream of this.#streams) stream.control(control, moves ? this.cursor() : '');
  }

  setStatus(status, sinceMS = 0) {
    this.status = status;
    this.sinceMS = sinceMS;
    this.control({ type: 'status', status, since_ms: sinceMS });
  }

  cut(customer) {
    for (const stream of [...this.#streams]) if (!customer || stream.customer === customer) stream.end();
  }

  // Ends a customer's streams so that they must not come back as they are.
  expel(customer, code) {
    for (const stream of [...this.#streams]) if (stream.customer === customer) stream.error(code);
  }

  // The same until none comes back.
  async expelAll(customer, code) {
    for (; this.#streams.size > 0; await this.#change()) this.expel(customer, code);
  }

  // Waits until the page has one stream for all of it.
  async shared() {
    while (this.#streams.size !== 1) await this.#change();
  }

  // Waits until so many streams have begun.
  async begins(n) {
    while (this.begun < n) await this.#change();
  }

  // Waits until a stream begins or ends.
  #change() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #changed() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  // Says that continuity is lost, then sends the state of the orders.
  reset(reason) {
    for (const stream of this.#streams) {
      stream.control({ type: 'reset', reason });
      this.#snapshot(stream);
    }
  }

  emit(customer, type, object, id = this.nextID()) {
    const event = { id, object: 'event', type, created: Math.floor(Date.now() / 1000), data: { object } };
    this.#log.push({ customer, event });
    for (const stream of this.#streams) if (this.#sees(stream, { customer, event })) stream.event(event, this.cursor());
    return event;
  }

  #sees({ customer: whose, orders }, { customer, event: { data: { object } } }) {
    const order = object.object === 'commerce_order' ? object.id : object.commerce_order_id;
    return whose === customer && (orders.length === 0 || orders.includes(order));
  }

  nextID() {
    return `evt_${Date.now()}-${++this.#seq}`;
  }

  forgetOrder(id) {
    const order = this.#orders.get(id);
    this.#orders.delete(id);
    this.#log = this.#log.filter(({ event }) => ![order?.id, order?.invoice_id, `pay_${order?.invoice_id}`].includes(event.data.object.id));
  }

  placeOrder(customer, items = [{ product: 'lamp', quantity: 1 }]) {
    const order = { items, id: randomUUID(), invoice_id: randomUUID(), customer, status: 'pending_payment', invoice: 'unpaid', createdAt: Math.floor(Date.now() / 1000) };
    this.#orders.set(order.id, order);
    this.#emitOrder('commerce.order.created', order);
    this.emit(customer, 'invoice.created', { object: 'invoice', id: order.invoice_id, status: 'unpaid', commerce_order_id: order.id });
    return order;
  }

  #emitOrder(type, order) {
    this.emit(order.customer, type, {
      object: 'commerce_order', id: order.id, invoice_id: order.invoice_id, status: order.status, createdAt: order.createdAt,
      lineItems: order.items.map(({ product, quantity }) => ({ title: products[product].title, quantity })),
      totalAmountUsd: order.items.reduce((sum, { product, quantity }) => sum + 1.1 * products[product].price * quantity, 0).toFixed(2),
      fulfillment: { shipments: ['shipped', 'delivered'].includes(order.status) ? [{ carrier: 'UPS', trackingNumber: `1Z${order.id.slice(0, 8)}`, carrierTrackingUrl: 'https://carrier.invalid/1', deliveryStatus: order.status === 'shipped' ? 'In Transit' : 'Delivered' }] : [] },
      refundStatus: order.refunded ? 'REFUNDED' : 'NONE', refund: { status: 'NONE', destinationWalletAddressBsc: '0x00' },
    });
  }

  simulate(id, transition) {
    const order = this.#orders.get(id);
    if (!order) return [404, 'NOT_FOUND', 'Order not found'];
    const move = moves[transition];
    const allowed = transition === 'refunded' ? order.invoice === 'paid' && !order.refunded : move?.from.includes(order.status);
    if (!allowed) return [400, 'VALIDATION_ERROR', `transition ${transition} is not allowed: order is ${order.status}`];
    if (transition === 'refunded') order.refunded = true;
    else order.status = move.to;
    this.#emitOrder('commerce.order.updated', order);
    if (transition === 'payment_confirmed') {
      order.invoice = 'paid';
      this.emit(order.customer, 'invoice.updated', { object: 'invoice', id: order.invoice_id, status: 'paid', commerce_order_id: order.id });
      this.emit(order.customer, 'invoice_payment.created', { object: 'invoice_payment', id: `pay_${order.invoice_id}`, invoice_id: order.invoice_id, commerce_order_id: order.id, status: 'confirmed', settlement_status: 'pending' });
    }
    if (transition === 'payment_settled') {
      this.emit(order.customer, 'invoice_payment.updated', { object: 'invoice_payment', id: `pay_${order.invoice_id}`, invoice_id: order.invoice_id, commerce_order_id: order.id, status: 'confirmed', settlement_status: 'settled' });
    }
    return null;
  }

  async #serve(req, res) {
    const { pathname, searchParams } = new URL(req.url, this.url);
    if (req.method === 'POST') return this.#post(req, res, pathname);
    if (pathname === '/sse/commerce/events') return this.#openSSE(req, res, searchParams);
    if (pathname === '/api/v1/stats') return this.#serveStats(req, res);
    return serveFile(res, pathname);
  }

  #serveStats(req, res) {
    if (!this.stats) return answer(res, 503, { success: false, error: { code: 'UNAVAILABLE', message: 'down' } });
    const body = JSON.stringify(this.stats);
    const etag = `"${createHash('sha256').update(body).digest('hex').slice(0, 16)}"`;
    if (req.headers['if-none-match'] === etag) return res.writeHead(304, { ETag: etag }).end();
    res.writeHead(200, { 'Content-Type': 'application/json', ETag: etag }).end(body);
  }

  async #post(req, res, pathname) {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    if (this.down) return answer(res, 503, { success: false, error: { code: 'UNAVAILABLE', message: 'The shop is closed.' } });
    const [, id] = /^\/demo\/orders\/([^/]+)\/simulate$/.exec(pathname) ?? [];
    if (id) {
      const problem = this.simulate(id, body.transitionTo);
      if (!problem) return answer(res, 200, {});
      return answer(res, problem[0], { success: false, error: { code: problem[1], message: problem[2] } });
    }
    const shopper = /(?:^|; )shopper=([^;]+)/.exec(req.headers.cookie ?? '')?.[1];
    switch (pathname) {
      case '/token':
        if (!shopper) return answer(res, 401, {});
        if ((this.#orders.get(body.order_id)?.customer ?? shopper) !== shopper) return answer(res, 404, {});
        this.tokens++;
        return answer(res, 200, this.#minted(shopper));
      case '/checkout': {
        const customer = shopper ?? `cust_${++this.#customers}`;
        res.setHeader('Set-Cookie', `shopper=${customer}; Path=/; HttpOnly; SameSite=Strict`);
        return answer(res, 201, { order_id: this.placeOrder(customer, body.items).id });
      }
      case '/sign-out':
        res.setHeader('Set-Cookie', 'shopper=; Path=/; Max-Age=0');
        return answer(res, 200, {});
      case '/demo/faults/cut':
        this.cut(shopper);
        return answer(res, 200, {});
      case '/demo/faults/restart':
        this.cut();
        return answer(res, 200, {});
      case '/demo/faults/stall':
      case '/demo/faults/unstall':
        return answer(res, 200, {});
    }
    return answer(res, 404, { success: false, error: { code: 'NOT_FOUND', message: 'no such path' } });
  }

  #minted(customer) {
    const expires = Math.floor(Date.now() / 1000) + 3_600;
    return { token: customer, expires_at: expires, session_expires_at: expires, ws_url: `${this.url.replace('http', 'ws')}ws/commerce/events` };
  }

  #openSSE(req, res, params) {
    const last = req.headers['last-event-id'] ?? params.get('since') ?? '';
    if (last.startsWith('end_')) return res.writeHead(204).end();
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    res.write(`retry: ${retryMS}\n\n`);
    const stream = {
      customer: params.get('token'),
      event: (event, id) => res.write(`${id ? `id: ${id}\n` : ''}data: ${JSON.stringify(event)}\n\n`),
      control: (control, id) => res.write(`event: control\n${id ? `id: ${id}\n` : ''}data: ${JSON.stringify({ object: 'ws_control', ...control })}\n\n`),
      error: (code) => res.end(`event: error_frame\nid: end_${code}\ndata: ${JSON.stringify({ object: 'ws_error', code: String(code), message: 'ended' })}\n\n`),
      end: () => res.destroy(),
    };
    res.on('close', () => this.#over(stream));
    this.#begin(stream, last, params);
  }

  #upgrade(req, socket) {
    const { searchParams } = new URL(req.url, this.url);
    const token = /bearer\.([^,\s]+)/.exec(req.headers['sec-websocket-protocol'] ?? '')?.[1];
    const accept = createHash('sha1').update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: pepay.v1\r\n\r\n`);
    const send = (object) => socket.write(textFrame(JSON.stringify(object)));
    const stream = {
      customer: token,
      event: (event) => send(event),
      control: (control) => send({ object: 'ws_control', ...control }),
      error: (code) => {
        send({ object: 'ws_error', code: String(code), message: 'ended' });
        socket.end(closeFrame(code));
      },
      end: () => socket.destroy(),
    };
    socket.on('error', () => {}); // the close that follows says enough
    socket.on('data', (data) => {
      if ((data[0] & 0x0f) === 8) socket.end(closeFrame(1000));
    });
    socket.on('close', () => this.#over(stream));
    this.#begin(stream, searchParams.get('since') ?? '', searchParams);
  }

  #begin(stream, since, params) {
    stream.orders = params.getAll('order_id');
    let from = since.startsWith('cur_') ? Number(since.slice(4)) : this.#log.findIndex(({ event }) => event.id === since) + 1;
    const resumed = since !== '' && (since.startsWith('cur_') || from > 0);
    stream.control({ type: 'hello', resumed, cursor: this.cursor(), status: this.status, since_ms: this.sinceMS, heartbeat_ms: tipMS, scope_id: `scp_${stream.customer}` });
    this.#streams.add(stream);
    this.begun++;
    this.#changed();
    if (!resumed) return this.#snapshot(stream);
    for (const { customer, event } of this.#log.slice(from)) {
      from++;
      if (this.#sees(stream, { customer, event })) stream.event(event, `cur_${String(from).padStart(22, '0')}`);
    }
    stream.control({ type: 'replay_complete', cursor: this.cursor() }, this.cursor());
  }

  #over(stream) {
    this.#streams.delete(stream);
    this.#changed();
  }

  #snapshot(stream) {
    const newest = new Map();
    for (const { customer, event } of this.#log) {
      const { object, id } = event.data.object;
      if (this.#sees(stream, { customer, event })) newest.set(`${object}:${id}`, event);
    }
    stream.control({ type: 'snapshot', count: newest.size, complete: true, truncated: false });
    for (const event of newest.values()) stream.event(event, '');
    stream.control({ type: 'replay_complete', cursor: this.cursor() }, this.cursor());
  }
}

function answer(res, status, body) {
  res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
}

async function serveFile(res, pathname) {
  const [, site = 'storefront'] = /^\/(ops)\//.exec(pathname) ?? [];
  const name = pathname.replace(/^\/(ops\/|client\/v1\/)?/, '') || 'index.html';
  for (const dir of [site, 'shared', 'uplot', 'dist']) {
    const body = await readFile(new URL(`../${dir}/${name}`, import.meta.url)).catch(() => null);
    if (!body) continue;
    res.writeHead(200, { 'Content-Type': contentTypes[extname(name)], 'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff' }).end(body);
    return;
  }
  res.writeHead(404).end();
}

function textFrame(text) {
  const payload = Buffer.from(text);
  const header = payload.length < 126 ? Buffer.from([0x81, payload.length]) : Buffer.from([0x81, 126, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([header, payload]);
}

function closeFrame(code) {
  return Buffer.from([0x88, 2, code >> 8, code & 0xff]);
}
