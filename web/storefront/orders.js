/**
 * The shopper's orders, made from events. Events may come twice, late and out
 * of order: an object never goes back to an older version.
 *
 * @typedef {object} Order
 * @property {string} id
 * @property {string} status '' until its first event
 * @property {string} invoiceStatus '' when unknown
 * @property {string} paymentStatus '' when unknown
 * @property {string} settlement '' when unknown
 * @property {boolean} refunded
 * @property {string} items
 * @property {string} total
 * @property {string[]} transitions what may happen to it next
 *
 * @typedef {{ms: number, seq: number}} Version
 * @typedef {{version: Version, value: any}} Held
 */

const maxSeen = 5_000;

const kinds = [
  ['commerce_order', 'commerce.order.'],
  ['invoice', 'invoice.'],
  ['invoice_payment', 'invoice_payment.'],
];

export class Orders {
  /** @type {Map<string, Held>} by kind and id */ #objects = new Map();
  /** @type {Set<string>} event ids */ #seen = new Set();
  /** @type {Map<string, {invoice: string, at: number}>} placed, first event not here yet */ #expected = new Map();
  /** @type {Map<string, {at: number, n: number}>} when an order was first known */ #known = new Map();
  /** @type {{left: number, replace: boolean, objects: Map<string, Held>, seen: Set<string>}|null} */ #snapshot = null;

  /** Makes room for an order whose first event is still on its way. @param {string} id @param {string} invoice */
  expect(id, invoice) {
    if (!this.#objects.has(key('commerce_order', id))) this.#expected.set(id, { invoice, at: Date.now() });
  }

  /** @param {any} event @returns {boolean} whether it was news of an order */
  apply(event) {
    if (this.#snapshot) {
      const news = keep(event, this.#snapshot.objects, this.#snapshot.seen);
      if (--this.#snapshot.left <= 0) this.#finish();
      return news;
    }
    return keep(event, this.#objects, this.#seen);
  }

  /** Follows snapshots; what is half received when a connection ends is dropped. @param {any} control */
  control(control) {
    switch (control.type) {
      case 'hello':
      case 'reset':
        this.#snapshot = null;
        break;
      case 'snapshot':
        this.#snapshot = {
          left: control.count ?? 0,
          replace: control.complete !== false && control.truncated !== true,
          objects: new Map(),
          seen: new Set(),
        };
        if (this.#snapshot.left === 0) this.#finish();
        break;
      case 'replay_complete':
        this.#finish();
        break;
    }
  }

  // A complete snapshot replaces everything. An incomplete one says nothing of
  // what it leaves out, so that stays.
  #finish() {
    const snapshot = this.#snapshot;
    if (!snapshot) return;
    this.#snapshot = null;
    if (snapshot.replace) {
      this.#objects = snapshot.objects;
      this.#seen = snapshot.seen;
      return;
    }
    for (const [name, held] of snapshot.objects) {
      const old = this.#objects.get(name);
      if (!old || !newer(old.version, held.version)) this.#objects.set(name, held);
    }
    for (const id of snapshot.seen) this.#seen.add(id);
  }

  /** @returns {Order[]} newest first */
  list() {
    const byOrder = new Map();
    const byInvoice = new Map();
    for (const [name, { value }] of this.#objects) {
      if (!name.startsWith('commerce_order:')) continue;
      this.#expected.delete(value.id);
      byOrder.set(value.id, { order: value, invoice: null, payment: null });
      byInvoice.set(value.invoice_id ?? value.invoiceId, value.id);
    }
    for (const [id, { invoice, at }] of this.#expected) {
      byOrder.set(id, { order: { id, status: '', createdAt: at / 1000 }, invoice: null, payment: null });
      byInvoice.set(invoice, id);
    }
    for (const [name, { value }] of this.#objects) {
      const kind = name.slice(0, name.indexOf(':'));
      if (kind === 'commerce_order') continue;
      const id = value.commerce_order_id ?? value.order_id ?? byInvoice.get(kind === 'invoice' ? value.id : value.invoice_id);
      const parts = byOrder.get(id);
      if (parts) parts[kind === 'invoice' ? 'invoice' : 'payment'] = value;
    }
    return [...byOrder.values()].map(({ order, invoice, payment }) => ({
      view: view(order, invoice, payment),
      since: this.#since(order),
    })).sort((a, b) => b.since.at - a.since.at || b.since.n - a.since.n).map(({ view }) => view);
  }

  /** @param {any} order */
  #since(order) {
    let since = this.#known.get(order.id);
    if (!since) {
      since = { at: seconds(order.createdAt) || Math.floor(Date.now() / 1000), n: this.#known.size };
      this.#known.set(order.id, since);
    }
    return since;
  }
}

/** @param {string} kind @param {string} id */
function key(kind, id) {
  return `${kind}:${id}`;
}

/** @param {any} event @param {Map<string, Held>} objects @param {Set<string>} seen */
function keep(event, objects, seen) {
  const value = event?.data?.object;
  const kind = kindOf(event, value);
  if (!kind || typeof value.id !== 'string' || seen.has(event.id)) return false;
  if (seen.size >= maxSeen) seen.delete(seen.values().next().value ?? '');
  seen.add(event.id);
  const version = versionOf(event);
  const old = objects.get(key(kind, value.id));
  if (old && newer(old.version, version)) return false;
  // A short event leaves fields out; what they were last is the best we know.
  objects.set(key(kind, value.id), { version, value: { ...old?.value, ...value } });
  return true;
}

/** @param {any} event @param {any} value */
function kindOf(event, value) {
  if (typeof value !== 'object' || value === null) return '';
  const found = kinds.find(([kind, prefix]) => (value.object ? value.object === kind : event.type?.startsWith(prefix)));
  return found?.[0] ?? '';
}

/** @param {any} event @returns {Version} */
function versionOf(event) {
  const [, ms, seq] = /^evt_(\d+)-(\d+)$/.exec(event.id) ?? [];
  return ms ? { ms: Number(ms), seq: Number(seq) } : { ms: (event.created || 0) * 1000, seq: 0 };
}

/** @param {Version} a @param {Version} b */
function newer(a, b) {
  return a.ms > b.ms || (a.ms === b.ms && a.seq > b.seq);
}

/** @param {any} time unix seconds, or milliseconds, or ISO 8601 @returns {number} whole unix seconds, 0 when unknown */
function seconds(time) {
  if (typeof time === 'string') return Math.floor(Date.parse(time) / 1000) || 0;
  if (typeof time !== 'number') return 0;
  return Math.floor(time > 1e11 ? time / 1000 : time);
}

/** @param {any} order @param {any} invoice @param {any} payment @returns {Order} */
function view(order, invoice, payment) {
  const invoiceStatus = text(invoice?.status ?? order.payment?.status);
  const settlement = text(payment?.settlement_status ?? (invoiceStatus === 'paid' ? order.payment?.settlement?.status : ''));
  const refunded = order.status === 'refunded' || !['', 'none'].includes(text(order.refundStatus ?? order.refund?.status).toLowerCase());
  return {
    id: order.id,
    status: text(order.status),
    invoiceStatus,
    paymentStatus: text(payment?.status),
    settlement,
    refunded,
    items: items(order.lineItems),
    total: order.totalAmountUsd ? `$${order.totalAmountUsd}` : '',
    transitions: transitions(order, invoiceStatus, settlement, refunded),
  };
}

/** @param {any} order @param {string} invoiceStatus @param {string} settlement @param {boolean} refunded */
function transitions(order, invoiceStatus, settlement, refunded) {
  const next = [];
  switch (order.status) {
    case 'pending_payment':
      if (!invoiceStatus || invoiceStatus === 'unpaid') next.push('payment_confirmed');
      break;
    case 'processing':
      if (settlement !== 'settled') next.push('payment_settled');
      if (settlement === 'settled' || settlement === '') next.push('placed');
      next.push('failed');
      break;
    case 'placed':
      next.push('shipped', 'cancelled');
      break;
    case 'shipped':
      next.push('delivery_confirmed');
      break;
  }
  const refundable = order.refund?.destinationWalletAddressBsc !== null;
  if (invoiceStatus === 'paid' && !refunded && refundable) next.push('refunded');
  return next;
}

/** @param {any} lines */
function items(lines) {
  if (!Array.isArray(lines)) return '';
  return lines.map((line) => (line.quantity > 1 ? `${line.quantity} × ${line.title}` : text(line.title))).join(', ');
}

/** @param {any} value */
function text(value) {
  return typeof value === 'string' ? value : '';
}
