import type { PepayGatewayError as Declared } from '../pepay-gateway.js';

export class PepayGatewayError extends Error implements Declared {
  constructor(readonly code: string, message: string, readonly retry: boolean, readonly closeCode?: number) {
    super(message);
  }
}
PepayGatewayError.prototype.name = 'PepayGatewayError';
