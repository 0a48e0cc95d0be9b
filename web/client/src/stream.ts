import type { ConnectOptions, OrderState, PepayEvent, PepayEventStream, Status, StatusChange, StreamEvents } from '../pepay-gateway.js';
import { PepayGatewayError } from './errors.js';
import { createLine } from './line.js';
import { watch } from './liveness.js';
import { camelCase, createOrders } from './order.js';
import { read } from './reader.js';
import { canShare, joinTabs, type Tabs } from './tabs.js';
import type { Frame } from './wire.js';

const maxRecent = 50; // events that a tab which joins may not have had from its own node yet
const parameters = ['format', 'types', 'snapshot', 'customer_id', 'invoice_id', 'wallet_address', 'wallet_network'];

/**
 * One page's stream: its listeners, its orders and its place in the stream. The
 * frames come over a line of its own, or from the tab that leads.
 */
export function createStream(options: ConnectOptions, lineOf = createLine): PepayEventStream {
  const { signal, getToken, token, orderId, order_id, share } = options;
  if (!getToken && !token) throw new PepayGatewayError('BAD_OPTION', 'getToken is missing', false);
  const listeners: Partial<Record<keyof StreamEvents, Set<(value: any) => void>>> = {};
  const orders = createOrders();
  const filter = filterOf(options);
  let wanted = listOf(orderId ?? order_id); // empty: everything
  let said: StatusChange = { status: 'connecting', since: Date.now() };
  let cursor = options.since ?? ''; // where the stream goes on; '' while only its beginning will do
  let settled = false; // everything before the cursor has been taken, so that events move it
  let scope = ''; // as the gateway last named it
  let recent: PepayEvent[] = [];
  let tabs: Tabs | undefined;

  const line = lineOf(options, {
    asked,
    query() {
      const query = new URLSearchParams(filter);
      for (const order of asked()) query.append('order_id', order);
      if (cursor) query.set('since', cursor);
      return query;
    },
    frame,
    polled(events, from, whose) {
      if (isAnothers(whose)) return;
      // A place in the stream is kept: what happened since then comes once there
      // is a stream again.
      cursor ||= from;
      for (const event of events) {
        deliver(event);
        tabs?.repeat(event);
      }
    },
    say,
    complain: (error) => tell('error', error),
    end,
  });

  const unwatch = watch({
    wake: () => (tabs?.following ? tabs : line).wake(),
    lose: line.lose,
    suspend: leave,
    resume: () => line.running || tabs || line.start(),
    tick() {
      line.tick();
      tabs?.tick();
    },
  });

  function asked() {
    return tabs?.leading ? tabs.orders : wanted;
  }

  function tell<K extends keyof StreamEvents>(name: K, value: StreamEvents[K]) {
    for (const listener of [...(listeners[name] ?? [])]) {
      try {
        listener(value);
      } catch (err) {
        queueMicrotask(() => { throw err; }); // the page's own mistake must not stop the stream
      }
    }
  }

  /** Tells the page a status that is news. */
  function say(status: Status, transport?: StatusChange['transport'], reason?: string, since?: number) {
    const same = said.status === status;
    if (over() || (same && said.transport === transport && said.reason === reason)) return;
    said = { status, transport, reason, since: since ?? (same ? said.since : Date.now()) };
    tell('status', said);
    tabs?.repeat();
  }

  function over() {
    return said.status === 'ended';
  }

  function frame(frame: Frame) {
    const hello = frame.object === 'ws_control' && frame.type === 'hello';
    if (hello && isAnothers(frame.scope_id)) return;
    take(frame);
    tabs?.repeat(frame);
    // Not before what was missed has come: a tab that follows hears of new things only.
    const complete = frame.object === 'ws_control' && !hello && frame.cursor;
    if (complete && scope && !tabs && line.running && share !== false && canShare()) joinOthers();
  }

  // When the token is another shopper's, nothing of the one before may be shown,
  // or shared, or resumed from.
  function isAnothers(whose: string) {
    const before = scope;
    scope = whose || scope;
    if (!before || before === scope) return false;
    leave();
    take({ object: 'ws_control', type: 'reset', reason: 'scope_changed' });
    line.start();
    return true;
  }

  function take(frame: Frame) {
    if (frame.object === 'event') {
      if (settled) cursor = frame.id;
      return deliver(frame);
    }
    if (frame.object !== 'ws_control') return;
    const { type, cursor: to } = frame;
    if (type === 'reset') {
      orders.forget();
      recent = [];
    }
    if (type === 'reset' || type === 'hello') {
      if (!frame.resumed) cursor = '';
      settled = !!cursor;
    }
    // Without a cursor the snapshot left something out: the next connection repeats it.
    if (to) {
      cursor = to;
      settled = true;
    }
    tell('control', frame);
  }

  function deliver(event: PepayEvent) {
    recent = [...recent, event].slice(-maxRecent);
    if (tabs && wanted.length) {
      const order = orders.orderOf(event);
      if (order ? !wanted.includes(order) : `${tabs.orders}` !== `${wanted}`) return;
    }
    const changed = orders.apply(event);
    if (orders.fresh(event)) tell('event', event);
    const state = changed && orders.stateOf(changed);
    if (state) tell('state', state);
  }

  function joinOthers() {
    tabs = joinTabs(JSON.stringify([line.url, scope, filter]), {
      wanted: () => wanted,
      place: () => ({ cursor, settled }),
      recent: () => recent,
      status: () => said,
      heartbeatMS: () => line.heartbeatMS,
      lead: () => line.running || line.start(),
      connect: line.start,
      leave() {
        const led = tabs!.leading; // also for the orders of others
        part();
        if (led || !line.running) line.start();
      },
      wake: line.wake,
      follow(recent) {
        line.stop();
        for (const event of recent) if (orders.ahead(event)) deliver(event);
      },
      adopt({ place, status, frame }) {
        if (frame) take(frame);
        ({ cursor, settled } = place);
        say(status.status, 'shared', status.reason, status.since);
      },
    });
  }

  function leave() {
    line.stop();
    part();
  }

  function part() {
    tabs?.close();
    tabs = undefined;
  }

  function end(error?: PepayGatewayError) {
    if (over()) return;
    signal?.removeEventListener('abort', close);
    unwatch();
    leave();
    if (error) tell('error', error);
    say('ended', undefined, error?.code);
  }

  function close() {
    end();
  }

  signal?.addEventListener('abort', close);
  // Until then the page can add its listeners.
  queueMicrotask(() => signal?.aborted ? close() : over() || line.start());

  return {
    get status() { return said.status; },
    get since() { return said.since; },
    get transport() { return said.transport; },
    on(name, listener) {
      (listeners[name] ??= new Set()).add(listener);
      return this;
    },
    off(name, listener) {
      listeners[name]?.delete(listener);
      return this;
    },
    close,
    setOrders(ids) {
      wanted = listOf(ids);
      // A stream that resumes brings no snapshot, which orders new to it need.
      cursor = '';
      settled = false;
      if (tabs?.leading) return tabs.want();
      const away = !tabs && !line.running;
      part();
      if (!away) line.start();
    },
    getState: ((id?: string): OrderState | undefined | OrderState[] => id === undefined ? orders.all() : orders.stateOf(id)) as PepayEventStream['getState'],
    [Symbol.asyncIterator]() { return read(this); },
  };
}

/** What all who share a connection have in common. */
function filterOf(options: ConnectOptions): Record<string, string> {
  const filter: Record<string, string> = {};
  for (const name of parameters) {
    const value = options[name] ?? options[camelCase(name)];
    if (value !== undefined && value !== '') filter[name] = `${typeof value === 'boolean' ? +value : value}`;
  }
  return filter;
}

function listOf(v: string | string[] | undefined): string[] {
  return v ? [v].flat() : [];
}
