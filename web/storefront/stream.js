/**
 * One live stream of events, over SSE or WebSocket, that comes back by itself
 * where it left off. It knows connections, not orders.
 *
 * @typedef {import('./shop.js').Session} Session
 * @typedef {'connecting'|'live'|'catching_up'|'stale'|'reconnecting'|'replaced'|'refused'} State
 * @typedef {{state: State, sinceMS?: number, error?: string}} Status
 *
 * @typedef {object} Listener
 * @property {() => Promise<Session>} openSession
 * @property {(event: any) => void} onEvent
 * @property {(control: any) => void} onControl
 * @property {(status: Status) => void} onStatus
 *
 * @typedef {object} Sink what one connection reports to
 * @property {(event: any, id: string) => void} event
 * @property {(control: any, id: string) => void} control
 * @property {() => void} lost it may come back
 * @property {(code: number) => void} ended it will not come back as it is
 *
 * @typedef {{close: () => void, renew?: (token: string) => void, returns: boolean}} Connection
 */

const firstDelayMS = 500;
const maxDelayMS = 10_000;
const defaultHeartbeatMS = 15_000;
const marginSeconds = 5; // a token this close to its end is not worth presenting

// Close codes after which the same token must not be presented again.
const sessionEnded = 4401;
const refused = 4403;
const replaced = 4409;

export class Stream {
  /** @type {Connection|null} */ #connection = null;
  /** @type {Session|null} */ #session = null;
  /** @type {Listener} */ #listener;
  #transport = 'sse';
  #cursor = '';
  #settled = false; // everything before the cursor is in the page
  #attempt = 0; // an attempt that ends after a newer one began must change nothing
  #waiting = false; // replaced, until the page is looked at again
  #failures = 0;
  #retryMS = 0;
  #heartbeatMS = defaultHeartbeatMS;
  #retryTimer = 0;
  #silenceTimer = 0;

  /** @param {Listener} listener */
  constructor(listener) {
    this.#listener = listener;
    document.addEventListener('visibilitychange', () => this.#reappear());
  }

  /** Connects, or connects anew over another transport, from the cursor on. @param {'sse'|'ws'} transport */
  connect(transport) {
    this.#transport = transport;
    this.#failures = 0;
    this.#listener.onStatus({ state: 'connecting' });
    this.#open();
  }

  /** Forgets session and cursor, for a page that starts over. */
  forget() {
    this.#drop();
    this.#session = null;
    this.#cursor = '';
  }

  #drop() {
    this.#attempt++;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#silenceTimer);
    this.#connection?.close();
    this.#connection = null;
    this.#settled = false;
  }

  async #open() {
    this.#drop();
    const attempt = this.#attempt;
    try {
      const session = await this.#usableSession();
      if (attempt !== this.#attempt) return;
      const open = this.#transport === 'ws' ? openWebSocket : openEventSource;
      this.#connection = open(session, this.#cursor, this.#sink(attempt));
      this.#awaitFrame();
    } catch (err) {
      if (attempt === this.#attempt) this.#retry(err instanceof Error ? err.message : '');
    }
  }

  async #usableSession() {
    const expires = this.#transport === 'ws' ? this.#session?.expires_at : this.#session?.session_expires_at;
    if (!this.#session || (expires && expires - marginSeconds < Date.now() / 1000)) {
      this.#session = await this.#listener.openSession();
    }
    return this.#session;
  }

  /** @param {number} attempt @returns {Sink} */
  #sink(attempt) {
    /** @param {(...args: any[]) => void} handle */
    const current = (handle) => (/** @type {any[]} */ ...args) => {
      if (attempt === this.#attempt) handle(...args);
    };
    return {
      event: current((event, id) => {
        this.#awaitFrame();
        if (this.#transport === 'sse' || this.#settled) this.#moveCursor(id);
        this.#listener.onEvent(event);
      }),
      control: current((control, id) => {
        this.#awaitFrame();
        this.#control(control, id);
      }),
      lost: current(() => this.#lost()),
      ended: current((code) => this.#ended(code)),
    };
  }

  /** @param {any} control @param {string} id */
  #control(control, id) {
    if (this.#transport === 'sse') this.#moveCursor(id);
    switch (control.type) {
      case 'hello':
        this.#failures = 0;
        this.#retryMS = 0;
        this.#settled = control.resumed === true;
        this.#heartbeatMS = control.heartbeat_ms || defaultHeartbeatMS;
        this.#report(control);
        break;
      case 'reset':
        this.#settled = false;
        // Cut before the snapshot's end, the next connection must repeat it. (An
        // EventSource is given an id that sees to that.)
        if (this.#transport === 'ws') this.#cursor = '';
        break;
      case 'replay_complete':
      case 'tip':
        if (!control.cursor) break; // the snapshot left something out, so the next connection repeats it
        this.#settled = true;
        this.#moveCursor(control.cursor);
        break;
      case 'status':
        this.#report(control);
        break;
      case 'token_expiring':
        this.#renew();
        break;
      case 'disconnect':
        this.#retryMS = control.retry_ms || 0;
        this.#listener.onStatus({ state: 'reconnecting' });
        this.#awaitFrame();
        break;
    }
    this.#listener.onControl(control);
  }

  /** @param {any} control */
  #report(control) {
    const state = ['live', 'catching_up', 'stale'].includes(control.status) ? control.status : 'live';
    this.#listener.onStatus({ state, sinceMS: control.since_ms });
  }

  /** @param {string|undefined} id */
  #moveCursor(id) {
    // The id end_… tells an EventSource to stay away; it names no place in the log.
    if (id && !id.startsWith('end_')) this.#cursor = id;
  }

  #lost() {
    if (this.#connection?.returns) {
      this.#listener.onStatus({ state: 'reconnecting' });
      return;
    }
    this.#retry('');
  }

  /** @param {number} code */
  #ended(code) {
    this.#session = null;
    if (code === sessionEnded) {
      this.#retry('');
      return;
    }
    this.#drop();
    this.#listener.onStatus({ state: code === replaced ? 'replaced' : 'refused' });
    this.#waiting = code === replaced;
  }

  #reappear() {
    if (document.visibilityState !== 'visible' || !this.#waiting) return;
    this.#waiting = false;
    this.#open();
  }

  /** @param {string} error */
  #retry(error) {
    this.#drop();
    const backoff = Math.min(maxDelayMS, firstDelayMS * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
    this.#retryTimer = setTimeout(() => this.#open(), Math.max(backoff, this.#retryMS));
    this.#listener.onStatus({ state: 'reconnecting', error });
  }

  // A network that went away without a word ends no connection; the missing
  // heartbeats do.
  #awaitFrame() {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#retry(''), this.#heartbeatMS * 2.5 + this.#retryMS);
  }

  async #renew() {
    const attempt = this.#attempt;
    try {
      const session = await this.#listener.openSession();
      if (attempt !== this.#attempt) return;
      this.#session = session;
      if (this.#connection?.renew) {
        this.#connection.renew(session.token);
        return;
      }
      this.#open();
    } catch {
      // The stream ends with 4401 soon, which opens a session with retries.
    }
  }
}

/** @param {Session} session @param {string} cursor @param {Sink} sink @returns {Connection} */
function openEventSource(session, cursor, sink) {
  const source = new EventSource(here(session.sse_url, cursor, ''));
  source.onmessage = (message) => {
    const event = parse(message.data);
    if (event?.object === 'event') sink.event(event, message.lastEventId);
  };
  source.addEventListener('control', (message) => {
    const control = parse(message.data);
    if (control) sink.control(control, message.lastEventId);
  });
  source.addEventListener('error_frame', (message) => {
    const [, code] = /^end_(\d+)$/.exec(message.lastEventId) ?? [];
    if (code) sink.ended(Number(code));
  });
  source.onerror = () => {
    // Closed means an HTTP status that EventSource takes as final: the URL's
    // token is no longer good.
    if (source.readyState === EventSource.CLOSED) sink.ended(sessionEnded);
    else sink.lost();
  };
  return { close: () => source.close(), returns: true };
}

/** @param {Session} session @param {string} cursor @param {Sink} sink @returns {Connection} */
function openWebSocket(session, cursor, sink) {
  const socket = new WebSocket(here(session.ws_url, cursor, 'ws'), ['pepay.v1', `bearer.${session.token}`]);
  socket.onmessage = (message) => {
    const frame = parse(message.data);
    if (frame?.object === 'event') sink.event(frame, frame.id);
    if (frame?.object === 'ws_control') sink.control(frame, '');
  };
  socket.onclose = ({ code }) => {
    if ([sessionEnded, refused, replaced].includes(code)) sink.ended(code);
    else sink.lost();
  };
  return {
    close: () => socket.close(1000),
    renew: (token) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: 'token', token }));
    },
    returns: false,
  };
}

/**
 * The URL's place on the origin of this page, so that the demo works under
 * every name the listener is reached by.
 *
 * @param {string} url @param {string} cursor @param {''|'ws'} scheme
 */
function here(url, cursor, scheme) {
  const { pathname, search } = new URL(url, location.href);
  const target = new URL(pathname + search, location.origin);
  if (scheme) target.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  if (cursor) target.searchParams.set('since', cursor);
  return target.href;
}

/** @param {string} text @returns {any} null for what is not an object */
function parse(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}
