const baseMS = 1_000;
const maxMS = 30_000;

/** Full jitter: anything up to a bound that doubles, so that those who fail together do not return together. */
export function backoff(failures: number): number {
  return Math.random() * Math.min(maxMS, baseMS * 2 ** failures);
}

/** A time that differs between those who wait for the same. */
export function about(ms: number): number {
  return ms * (0.8 + 0.4 * Math.random());
}
