import type { ConnectOptions, MintedToken } from '../pepay-gateway.js';
import { PepayGatewayError } from './errors.js';

/** Asks the page for a token. What it throws is a PepayGatewayError. */
export async function fetchToken({ token, getToken }: ConnectOptions): Promise<MintedToken> {
  let answer: any;
  try {
    answer = await (getToken ? getToken() : token);
  } catch (err: any) {
    throw new PepayGatewayError(err?.code ?? 'TOKEN_FAILED', `${err?.message ?? err}`, err?.retry !== false);
  }
  const minted = typeof answer === 'string' ? { token: answer } : answer?.data ?? answer;
  if (!minted?.token) throw new PepayGatewayError('TOKEN_FAILED', 'no token', !!getToken);
  return minted;
}
