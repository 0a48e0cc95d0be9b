/**
 * The browser client of pepay-gateway. The names and shapes are those of
 * Pepay's own SDK, so that moving over is one import.
 */

/** One of Pepay's events, as it came. */
export interface PepayEvent {
  id: string;
  object: 'event';
  type: string;
  created: number;
  data: { object: Record<string, any>; previous_attributes?: Record<string, any> };
  [field: string]: any;
}

/** What the gateway says of the stream: hello, snapshot, replay_complete, reset, status, tip, disconnect, … */
export interface Control {
  object: 'ws_control';
  type: string;
  [field: string]: any;
}

export type Status = 'connecting' | 'live' | 'catching_up' | 'stale' | 'offline' | 'ended';
export type Transport = 'ws' | 'sse' | 'poll';

export interface StatusChange {
  status: Status;
  /** When that began, in unix milliseconds. */
  since: number;
  /** Why, when that is known, such as `upstream_down` or `replaced`. */
  reason?: string;
  /** What brings the events; undefined until something does. `shared` is another tab's connection. */
  transport?: Transport | 'shared';
}

export interface Shipment {
  carrier?: string;
  trackingNumber?: string;
  /** http or https only. */
  trackingUrl?: string;
  status?: string;
}

export interface LineItem {
  title: string;
  quantity: number;
  price?: string;
}

/**
 * An order as its newest events have it, whatever the casing and the times they
 * were written in. Times are unix milliseconds. Statuses are Pepay's, also those
 * that are not known yet; `none` and empty are left out.
 */
export interface OrderState {
  id: string;
  status: string;
  substatus?: string;
  invoiceId?: string;
  customerId?: string;
  createdAt?: number;
  /** When its newest event was made. */
  updatedAt: number;
  /** Until when it can be paid. */
  expiresAt?: number;
  total?: string;
  items: LineItem[];
  shipments: Shipment[];
  payment: { status?: string; settlement?: string };
  invoice: { status?: string };
  refund?: { status: string; amount?: string };
  cancellation?: string;
  /** The newest objects as they came. */
  raw: { order?: Record<string, any>; invoice?: Record<string, any>; payment?: Record<string, any> };
}

export declare class PepayGatewayError extends Error {
  /** Such as `TOKEN_INVALID`; the gateway's, or one of `TOKEN_FAILED`, `BAD_OPTION`, `BEHIND`, `CLOSED_<code>`. */
  readonly code: string;
  /** Whether the stream tries again by itself. When not, it has ended. */
  readonly retry: boolean;
  /** The WebSocket close code or HTTP status, if there was one. */
  readonly closeCode?: number;
  constructor(code: string, message: string, retry: boolean, closeCode?: number);
}

/** The `data` of the gateway's `POST /api/v1/ws/token`. */
export interface MintedToken {
  token: string;
  expires_at?: number | string;
  ws_url?: string;
  [field: string]: any;
}

export interface ConnectOptions {
  /** The gateway, such as `https://events.shop.com`. Default: where `ws_url` of the token points, else this page's origin. */
  url?: string;
  /** Asked for every connection, and again before a session ends. Its failure is retried, unless the error has `retry: false`. */
  getToken?: () => Promise<string | MintedToken> | string | MintedToken;
  /** For a stream that is to end with the token. */
  token?: string | MintedToken;
  orderId?: string | string[];
  order_id?: string | string[];
  customerId?: string;
  customer_id?: string;
  invoiceId?: string;
  invoice_id?: string;
  walletAddress?: string;
  wallet_address?: string;
  walletNetwork?: string;
  wallet_network?: string;
  /** A list, or Pepay's comma-separated text: `commerce.order.*,invoice.*`. */
  types?: string | string[];
  /** A cursor or `event.id` to continue after. */
  since?: string;
  /** Begin with the state of the orders in scope; the default where there are some. */
  snapshot?: boolean;
  /** `auto`: WebSocket, else SSE, else polling, and back up again. */
  transport?: 'auto' | Transport;
  /** Share one connection with the other tabs of this origin and scope. Default true. */
  share?: boolean;
  /** Closes the stream. */
  signal?: AbortSignal;
  format?: 'event_v1';
  /** Other options of Pepay's SDK are accepted and have no effect. */
  [option: string]: unknown;
}

export interface StreamEvents {
  /** Each event once. */
  event: PepayEvent;
  control: Control;
  status: StatusChange;
  /** An order that has changed, never to an older state. */
  state: OrderState;
  error: PepayGatewayError;
}

export interface PepayEventStream extends AsyncIterable<PepayEvent> {
  readonly status: Status;
  /** When the status began, in unix milliseconds. */
  readonly since: number;
  readonly transport?: Transport | 'shared';
  on<K extends keyof StreamEvents>(name: K, listener: (value: StreamEvents[K]) => void): this;
  off<K extends keyof StreamEvents>(name: K, listener: (value: StreamEvents[K]) => void): this;
  /** Ends the stream for good. */
  close(): void;
  /** Changes which orders are followed; an empty list is everything the token allows. */
  setOrders(orderIds: string | string[]): void;
  /** The newest state of one order. */
  getState(orderId: string): OrderState | undefined;
  /** The newest state of every order seen, newest order first. */
  getState(): OrderState[];
}

export declare function connectCommerceEvents(options: ConnectOptions): PepayEventStream;

/** So that `pepay.ws.connectCommerceEvents(…)` becomes `ws.connectCommerceEvents(…)`. */
export declare const ws: { connectCommerceEvents: typeof connectCommerceEvents };

/** The client's version. */
export declare const version: string;
