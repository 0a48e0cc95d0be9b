import type { PepayEvent, PepayEventStream } from '../pepay-gateway.js';
import { PepayGatewayError } from './errors.js';

/** How far behind a reader may be. */
const maxWaiting = 10_000;

/** Reads a stream for a loop, which misses nothing from this call on. */
export function read(stream: PepayEventStream): AsyncGenerator<PepayEvent, void> {
  const waiting: PepayEvent[] = [];
  let wake: (() => void) | undefined;
  let failed: PepayGatewayError | undefined;
  const push = (event: PepayEvent) => {
    if (waiting.push(event) > maxWaiting) failed = new PepayGatewayError('BEHIND', 'read too slowly', false);
    if (failed) stream.off('event', push);
    wake?.();
  };
  const end = (error: PepayGatewayError) => {
    if (!error.retry) failed = error;
  };
  const look = () => wake?.();
  stream.on('event', push).on('error', end).on('status', look);
  return (async function* () {
    try {
      for (;;) {
        if (waiting.length) yield waiting.shift()!;
        else if (failed) throw failed;
        else if (stream.status === 'ended') return;
        else await new Promise<void>((resolve) => { wake = resolve; });
      }
    } finally {
      stream.off('event', push).off('error', end).off('status', look);
    }
  })();
}
