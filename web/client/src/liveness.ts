/** What happens to a page, and to the machine under it. */
export interface Page {
  /** Something may have been missed: look. */
  wake(): void;
  /** The network has gone, as far as the browser knows. */
  lose(): void;
  /** The page is put away: whatever it holds open keeps it from coming back. */
  suspend(): void;
  /** It has come back. */
  resume(): void;
  /** Now and then. */
  tick(): void;
}

const tickMS = 2_000;
/** Beyond this the machine slept; or the page is hidden, and throttled, and will be looked at when it is shown. */
const jumpMS = 10_000;

/** Watches until the function it returns is called. Also where there is no page. */
export function watch(page: Page): () => void {
  const stop = new AbortController();
  // What happens to the document passes the window first.
  const on = (name: string, act: (event: any) => void) =>
    globalThis.addEventListener?.(name, act, { capture: true, signal: stop.signal });
  on('visibilitychange', () => document.hidden || page.wake());
  on('freeze', page.suspend);
  on('resume', page.resume);
  on('pagehide', page.suspend);
  on('pageshow', ({ persisted }) => persisted && page.resume());
  on('online', page.wake);
  on('offline', page.lose);
  let last = Date.now();
  const timer = setInterval(() => {
    const now = Date.now();
    if (Math.abs(now - last - tickMS) > jumpMS && !globalThis.document?.hidden) page.wake();
    last = now;
    page.tick();
  }, tickMS);
  return () => {
    clearInterval(timer);
    stop.abort();
  };
}
