import type { ConnectOptions, MintedToken } from '../pepay-gateway.js';
import { PepayGatewayError } from './errors.js';

const tokenMS = 12_000;

/** Asks the page for a token, for a while. What it throws is a PepayGatewayError. */
export async function fetchToken({ token, getToken }: ConnectOptions): Promise<MintedToken> {
  let answer: any;
  let timer: any;
  try {
    answer = await (getToken ? Promise.race([getToken(), new Promise((_, fail) => { timer = setTimeout(fail, tokenMS, 'no answer'); })]) : token);
  } catch (err: any) {
    throw new PepayGatewayError(err?.code ?? 'TOKEN_FAILED', `${err?.message ?? err}`, err?.retry !== false);
  } finally {
    clearTimeout(timer);
  }
  const minted = typeof answer === 'string' ? { token: answer } : answer?.data ?? answer;
  if (!minted?.token) throw new PepayGatewayError('TOKEN_FAILED', 'no token', !!getToken);
  return minted;
}
