/**
 * The merchant's backend as this page sees it.
 *
 * @typedef {object} Session
 * @property {string} customer_id
 * @property {string} token
 * @property {string} ws_url
 * @property {string} sse_url
 * @property {number} expires_at unix seconds: until when token opens streams
 * @property {number} session_expires_at unix seconds
 */

const timeoutMS = 15_000; // longer than a restart of the gateway takes

/** What the backend answered instead of a success; message is fit to be shown. */
export class ShopError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** @param {string} [customer] the shopper to go on with; a new one when empty @returns {Promise<Session>} */
export function openSession(customer) {
  return post('/demo/session', customer ? { customer_id: customer } : {});
}

/** @param {string} customer @returns {Promise<{order_id: string, invoice_id: string}>} */
export function placeOrder(customer) {
  return post('/demo/orders', { customer_id: customer });
}

/** @param {string} order @param {string} transition */
export function simulate(order, transition) {
  return post(`/demo/orders/${encodeURIComponent(order)}/simulate`, { transitionTo: transition });
}

/** @param {string} name cut, stall or restart @param {string} customer */
export function playFault(name, customer) {
  return post(`/demo/faults/${name}`, { customer_id: customer });
}

/** @param {string} path @param {object} body */
async function post(path, body) {
  let res;
  try {
    res = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMS),
    });
  } catch {
    throw new ShopError('UNREACHABLE', 'The shop cannot be reached.');
  }
  const answer = await res.json().catch(() => null);
  if (!res.ok || answer?.success === false) {
    throw new ShopError(answer?.error?.code ?? String(res.status), answer?.error?.message ?? `The shop answered ${res.status}.`);
  }
  return answer?.data ?? answer ?? {};
}
