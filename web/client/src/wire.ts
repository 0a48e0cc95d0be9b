import type { Control, MintedToken, PepayEvent, Status, Transport } from '../pepay-gateway.js';

import { about } from './backoff.js';
import { PepayGatewayError } from './errors.js';

export type Frame = PepayEvent | Control | { object: 'ws_error'; code?: string; message?: string };

/** What a wire needs to open. */
export interface Target {
  url: string; // of the gateway
  minted: MintedToken;
  query: URLSearchParams;
  orders: string[];
  /** A token that is still good, for wires that ask again and again. */
  token: () => Promise<MintedToken>;
}

/** What a wire tells. After closed it tells nothing more. */
export interface Sink {
  frame(frame: Frame): void;
  /** Tells what a wire without frames has found, all of one moment, whose it is, how fresh, and since when. */
  polled(events: PepayEvent[], cursor: string, scope: string, status: Status, since?: number): void;
  /** code is a WebSocket close code or an HTTP status; 1006 is what says nothing. */
  closed(code: number, retryMS?: number): void;
}

/** One connection. It is open once opened; nothing is told after close. */
export interface Wire {
  close(): void;
  /** Asks for a sign of life, where there is a way. False when there is none. */
  ping?(): boolean;
}

export type Open = (target: Target, sink: Sink) => Wire;

const path = 'commerce/events?';

export const openWS: Open = ({ url, minted, query }, sink) => {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws/${path}${query}`, ['pepay.v1', `bearer.${minted.token}`]);
  socket.onmessage = ({ data }) => pass(data, sink);
  socket.onclose = ({ code }) => sink.closed(code);
  return {
    close() {
      socket.onmessage = socket.onclose = null;
      socket.close(1000);
    },
    ping() {
      const open = socket.readyState === 1;
      if (open) socket.send('{"type":"ping"}');
      return open;
    },
  };
};

// An EventSource is never left to reconnect by itself: it would repeat a token
// that has expired, and one 503 closes it for good.
export const openSSE: Open = ({ url, minted, query }, sink) => {
  query.set('token', minted.token);
  const source = new EventSource(`${url}/sse/${path}${query}`);
  let code = 1006;
  const take = ({ data, lastEventId }: any) => {
    code = +(/^end_(\d+)$/.exec(lastEventId)?.[1] ?? code); // the client must not come back as it is
    pass(data, sink);
  };
  for (const name of ['message', 'control', 'error_frame']) source.addEventListener(name, take);
  source.onerror = () => {
    source.close();
    sink.closed(code);
  };
  return { close: () => source.close() };
};

const pollMS = 5_000;
const hiddenPollMS = 30_000;
const pollTimeoutMS = 10_000;

// Each order's state is asked for with its ETag. A stream that names no order
// polls the newest events instead, of those that it wants.
export const openPoll: Open = ({ url, orders, query, token }, sink) => {
  query.delete('order_id'); // each is asked for by itself
  const etags = new Map<string, string>();
  let open = true;
  const end = (code: number, retryMS?: number) => {
    if (open) sink.closed(code, retryMS);
    open = false;
  };
  const round = async () => {
    if (!open) return;
    const events: PepayEvent[] = [];
    let from: string | undefined; // the cursor of what was asked first: nothing of the rest is older
    let worst = 'live';
    let since: number | undefined;
    let scope = '';
    try {
      const minted = await token();
      for (const order of orders.length ? orders : ['']) {
        const path = order ? `orders/${encodeURIComponent(order)}/state` : 'events';
        const res = await fetch(`${url}/api/v1/${path}?limit=100&${query}`, {
          headers: { Authorization: `Bearer ${minted.token}`, 'If-None-Match': etags.get(order) ?? '' },
          signal: AbortSignal.timeout(pollTimeoutMS),
        });
        const { status } = res;
        const header = (name: string) => res.headers.get(name) ?? '';
        if (status >= 400 && (status !== 404 || !order)) return end(status, +header('Retry-After') * 1000);
        const { data, complete, cursor } = status === 200 ? (await res.json()).data : {} as any;
        if (data) {
          etags.set(order, header('ETag'));
          events.push(...(order ? data : data.reverse())); // lists are newest first
        }
        from ??= (complete && cursor || '') as string;
        scope = header('Stream-Scope');
        const freshness = header('Stream-Status');
        if (freshness !== 'live') {
          worst = freshness || worst;
          since = +header('Stream-Since') || since;
        }
      }
      if (!open) return;
      sink.polled(events, from!, scope, worst as Status, since);
      setTimeout(round, about(globalThis.document?.hidden ? hiddenPollMS : pollMS));
    } catch (err) {
      end(err instanceof PepayGatewayError ? 401 : 1006);
    }
  };
  void round();
  return { close: () => { open = false; } };
};

export const wires: Record<Transport, Open> = { ws: openWS, sse: openSSE, poll: openPoll };

function pass(text: string, sink: Sink) {
  let frame: any;
  try {
    frame = JSON.parse(text);
  } catch {
    return; // not ours
  }
  if (frame?.object === 'event' ? frame.data?.object && frame.id : frame?.object) sink.frame(frame);
}
