import type * as api from '../testing.js';
import type { PepayEvent } from '../pepay-gateway.js';
import type { Owner } from './line.js';
import { createStream } from './stream.js';

export const fakeCommerceEvents: typeof api.fakeCommerceEvents = ({ orderId } = {}) => {
  let owner!: Owner;
  const nothing = () => {};
  const stream = createStream({ token: 'fake', orderId, share: false }, (_, to) => {
    owner = to;
    return { running: false, heartbeatMS: 15_000, url: '', start: nothing, stop: nothing, wake: nothing, lose: nothing, tick: nothing };
  });
  return Object.assign(stream, {
    emit: (event: PepayEvent) => owner.frame(event),
    control: (control: { type: string }) => owner.frame({ object: 'ws_control', ...control }),
    setStatus: (status: api.FakeStream['status'], reason?: string) => owner.say(status, 'ws', reason),
    fail: owner.end,
  } as Omit<api.FakeStream, keyof typeof stream>);
};

let made = 0;

export const fakeOrderEvent: typeof api.fakeOrderEvent = (orderId, status, more = {}) => ({
  id: `evt_${Date.now()}-${++made}`,
  object: 'event',
  type: 'commerce.order.updated',
  created: Math.floor(Date.now() / 1000),
  data: { object: { object: 'commerce_order', id: orderId, status, ...more } },
});
