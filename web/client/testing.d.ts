import type { Control, PepayEvent, PepayEventStream, PepayGatewayError, Status } from './pepay-gateway.js';

/** A stream for a shop's own unit tests: it connects to nothing, and does what the test says. */
export interface FakeStream extends PepayEventStream {
  /** Delivers an event, as the gateway would: once, and to the order's state. */
  emit(event: PepayEvent): void;
  control(control: Partial<Control> & { type: string }): void;
  setStatus(status: Exclude<Status, 'ended'>, reason?: string): void;
  /** Ends the stream with an error. */
  fail(error: PepayGatewayError): void;
}

export declare function fakeCommerceEvents(options?: { orderId?: string | string[] }): FakeStream;

/** An event with what is left out filled in: a new id, and a `commerce_order` of that id and status. */
export declare function fakeOrderEvent(orderId: string, status: string, more?: Record<string, any>): PepayEvent;
