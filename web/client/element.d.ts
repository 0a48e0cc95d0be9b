import type { OrderState, PepayGatewayError, StatusChange } from './pepay-gateway.js';

/** All that the element says. `{time}`, `{status}` and `{amount}` are filled in. */
export interface PepayOrderTexts {
  title: string;
  'status.pending_payment': string;
  'status.processing': string;
  'status.placed': string;
  'status.shipped': string;
  'status.delivered': string;
  'status.cancelled': string;
  'status.failed': string;
  expired: string;
  expires: string;
  refund: string;
  'step.pending_payment': string;
  'step.processing': string;
  'step.placed': string;
  'step.shipped': string;
  'step.delivered': string;
  done: string;
  shipment: string;
  track: string;
  updated: string;
  connecting: string;
  live: string;
  catching_up: string;
  stale: string;
  offline: string;
  ended: string;
  loading: string;
  'signed-out': string;
  'not-found': string;
  error: string;
}

/**
 * `<pepay-order token-url="/token" order-id="…">`. `POST token-url` with
 * `{order_id}` and the shopper's cookies answers the `data` of a mint; 401 and
 * 404 have their own slots.
 *
 * Slots: `header`, `loading`, `signed-out`, `not-found`, `error`, and one
 * without a name below the order. Parts and CSS variables: docs/browser.md.
 */
export interface PepayOrderElement extends HTMLElement {
  texts: Partial<PepayOrderTexts>;
  readonly state: OrderState | undefined;
  /** Begins anew, such as after the shopper has signed in. */
  reload(): void;
}

declare global {
  interface HTMLElementTagNameMap {
    'pepay-order': PepayOrderElement;
  }
  interface HTMLElementEventMap {
    'pepay-state': CustomEvent<OrderState>;
    'pepay-status': CustomEvent<StatusChange>;
    /** Its code may be `SIGNED_OUT` or `NOT_FOUND` too. */
    'pepay-error': CustomEvent<PepayGatewayError>;
  }
}
