import type * as api from '../pepay-gateway.js';
import { PepayGatewayError } from './errors.js';
import { createStream } from './stream.js';

declare const VERSION: string; // put in by the build

export { PepayGatewayError };
export const connectCommerceEvents: typeof api.connectCommerceEvents = (options) => createStream(options);
export const ws: typeof api.ws = { connectCommerceEvents };
export const version: string = VERSION;
