// The classic script: the same under one name.
import { connectCommerceEvents, PepayGatewayError, version, ws } from './index.js';

Object.assign(globalThis, { PepayGateway: { connectCommerceEvents, PepayGatewayError, version, ws } });
