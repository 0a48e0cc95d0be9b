import type { OrderState, PepayEvent } from '../pepay-gateway.js';

type Fields = Record<string, any>;
type Version = [ms: number, seq: number];

interface Held {
  version: Version;
  value: Fields; // cleaned
  raw: Fields;
}

/** Memory is bounded: what came first is forgotten first. */
const maxObjects = 1_500;
const maxSeen = 4_096;

/**
 * The newest object of each kind of each order, made from events that may come
 * twice, late and out of order.
 */
export function createOrders() {
  const held = new Map<string, Held>(); // by kind and id: of the order, else of the invoice
  const links = new Map<string, string>(); // from invoice to order and back
  const seen = new Set<string>();

  /** The order of an event, as far as that is known. */
  function orderOf(event: PepayEvent): string | undefined {
    const [, id, order] = keysOf(event);
    return order ?? links.get(`invoice ${id}`);
  }

  /** Whether the event is newer than all that is held of its object. */
  function ahead(event: PepayEvent): boolean {
    const [kind, id] = keysOf(event);
    const [ms, seq] = held.get(`${kind} ${id}`)?.version ?? [-1, 0];
    const [newMS, newSeq] = versionOf(event);
    return newMS > ms || (newMS === ms && newSeq > seq);
  }

  function stateOf(id: string): OrderState | undefined {
    const invoice = links.get(`order ${id}`);
    const parts = [`order ${id}`, `invoice ${invoice}`, `invoice_payment ${invoice}`].map((key) => held.get(key));
    return parts[0] || parts[1] ? normalize(id, invoice, parts) : undefined;
  }

  return {
    orderOf,
    ahead,
    stateOf,
    /** Whether the event's id is new; it is not, the next time. */
    fresh: ({ id }: PepayEvent) => !seen.has(id) && !!bounded(seen.add(id), maxSeen),
    /** Takes an event over and returns the order that it changed. */
    apply(event: PepayEvent): string | undefined {
      const [kind, id, order, invoice] = keysOf(event);
      if (!id || !ahead(event)) return undefined;
      const key = `${kind} ${id}`;
      const raw = event.data.object;
      const old = held.get(key);
      held.delete(key); // to the end
      // Short events leave fields out; what those were last is the best we know.
      held.set(key, { version: versionOf(event), value: { ...old?.value, ...clean(raw) }, raw: { ...old?.raw, ...raw } });
      bounded(held, maxObjects);
      if (order && invoice) bounded(links.set(`invoice ${invoice}`, order).set(`order ${order}`, invoice), maxObjects);
      return orderOf(event);
    },
    /** Newest first. */
    all: () => [...held.keys()]
      .flatMap((key) => (key.startsWith('order ') && stateOf(key.slice(6))) || [])
      .sort((a, b) => (b.createdAt ?? 0) - (a.createdAt ?? 0)),
    forget() {
      held.clear();
      links.clear();
      seen.clear();
    },
  };
}

function bounded<T extends Map<string, unknown> | Set<string>>(memory: T, most: number): T {
  if (memory.size > most) memory.delete(memory.keys().next().value!);
  return memory;
}

/** The kind of an event's object, the id it is held by, its order and its invoice. */
function keysOf({ type, data }: PepayEvent): string[] {
  const o = clean(data.object);
  const name: string = o.object ?? type;
  if (/^commerce[_.]order/.test(name)) {
    const id = o.id ?? o.orderId;
    return ['order', id, id, o.invoiceId];
  }
  const [, kind = ''] = /^(invoice_payment|invoice)\b/.exec(name) ?? [];
  const invoice = kind && (kind === 'invoice' ? o.id : o.invoiceId);
  return [kind, invoice, o.commerceOrderId ?? o.orderId, invoice];
}

function versionOf({ id, created }: PepayEvent): Version {
  const [, ms, seq] = /^evt_(\d+)-(\d+)$/.exec(id) ?? [0, created * 1000, 0];
  return [+ms! || 0, +seq!];
}

function normalize(id: string, invoiceId: string | undefined, held: (Held | undefined)[]): OrderState {
  const [o = {}, invoice = {}, payment = {}] = held.map((h) => h?.value);
  const [order, ...raw] = held.map((h) => h?.raw);
  const paid = o.payment ?? {};
  const back = o.refund ?? {};
  const refund = o.refundStatus ?? back.status;
  return {
    id,
    status: o.status ?? '',
    substatus: o.substatus,
    invoiceId,
    customerId: o.customerId ?? invoice.customerId,
    createdAt: time(o.createdAt ?? invoice.createdAt),
    updatedAt: Math.max(...held.map((h) => h?.version[0] ?? 0)),
    expiresAt: time(invoice.expiresAt ?? o.expiresAt),
    total: o.totalAmountUsd ?? o.total,
    items: list(o.lineItems).map(({ title = '', quantity, price }) => ({ title, quantity: +quantity || 1, price })),
    shipments: list(o.fulfillment?.shipments).map((s) => ({
      carrier: s.carrier,
      trackingNumber: s.trackingNumber ?? s.retailerTrackingNumber,
      trackingUrl: link(s.carrierTrackingUrl) ?? link(s.retailerTrackingUrl),
      status: s.deliveryStatus,
    })),
    payment: {
      status: payment.status ?? paid.status,
      settlement: payment.settlementStatus ?? paid.settlement?.status,
    },
    invoice: { status: invoice.status },
    refund: refund && { status: refund, amount: back.amountUsd },
    cancellation: o.cancellationStatus,
    raw: { order, invoice: raw[0], payment: raw[1] },
  };
}

/**
 * The same with every name in camelCase, every leaf as text, and without what
 * says that there is nothing.
 */
function clean(v: any): any {
  if (Array.isArray(v)) return v.map(clean);
  if (typeof v !== 'object') return /^(none)?$/i.test(v) ? undefined : `${v}`;
  return v ? Object.fromEntries(Object.entries(v).map(([name, field]) => [camelCase(name), clean(field)])) : undefined;
}

export function camelCase(name: string): string {
  return name.replace(/_(\w)/g, (_, c) => c.toUpperCase());
}

/** Unix milliseconds of ISO text, seconds or milliseconds. */
function time(v: string): number | undefined {
  const at = +v || Date.parse(v);
  return at ? (at < 1e11 ? at * 1000 : at) : undefined;
}

/** A URL that is safe to link to. */
function link(v: string | undefined): string | undefined {
  return /^https?:\/\//i.test(v!) ? v : undefined;
}

function list(v: unknown): Fields[] {
  return Array.isArray(v) ? v.filter((item) => item?.constructor === Object) : [];
}
