const baseMS = 1_000;
const maxMS = 30_000;

/** Full jitter: anything up to a bound that doubles, so that those who fail together do not return together. */
export function backoff(failures: number): number {
  return Math.random() * Math.min(maxMS, baseMS * 2 ** failures);
}
