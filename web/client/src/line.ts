import type { ConnectOptions, PepayEvent, Status, Transport } from '../pepay-gateway.js';
import { about, backoff } from './backoff.js';
import { PepayGatewayError } from './errors.js';
import { fetchToken } from './token.js';
import { wires, type Frame, type Wire } from './wire.js';

/** Whom a line serves. */
export interface Owner {
  query(): URLSearchParams;
  asked(): string[];
  frame(frame: Frame): void;
  polled(events: PepayEvent[], cursor: string, scope: string): void;
  say(status: Status, transport?: Transport, reason?: string, since?: number): void;
  complain(error: PepayGatewayError): void;
  end(error: PepayGatewayError): void;
}

/** A line keeps one connection to the gateway open, over whatever gets through. */
export interface Line {
  readonly running: boolean;
  readonly heartbeatMS: number;
  /** The gateway's; known once a token has been brought. */
  readonly url: string;
  /** Connects at once, from the owner's cursor on; a connection that is open is closed. */
  start(): void;
  stop(): void;
  /** Looks whether the connection is still one, and replaces one that is not, without a wait. */
  wake(): void;
  /** The network has gone, as far as the browser knows. */
  lose(): void;
  tick(): void;
}

const openMS = 15_000; // for a token and a connection to come
const marginMS = 5_000; // a token this close to its end is not worth presenting
const pingMS = 4_000; // for an answer to a ping
const recentMS = 3_000; // a connection heard of since then lives
const slackMS = 5_000; // beyond two heartbeats
const steadyMS = 5_000; // live for so long, a connection counts as good
const climbMS = 60_000; // about, until a better transport is tried again
const maxRefused = 5; // fresh tokens refused in a row
const maxPatience = 3; // failed openings until a transport that has worked is given up

interface Attempt {
  kind: Transport;
  wire?: Wire;
  up: number; // when it said hello; 0: not yet
  heard: number;
  retryMS?: number;
  told?: { code?: string; message?: string }; // the last ws_error
}

export function createLine(options: ConnectOptions, owner: Owner): Line {
  const { transport = 'auto', getToken } = options;
  const ladder = transport === 'auto' ? ['ws', 'sse', 'poll'] as const : [transport];
  let worked: Transport | undefined; // last
  let current: Attempt | undefined;
  let probe: Attempt | undefined; // beside it, to take its place once it is up
  let running = false;
  let rung = 0;
  let failures = 0;
  let unopened = 0; // openings that failed on this rung
  let refused = 0; // tokens in a row
  let notBefore = 0;
  let climbAt = 0;
  let heartbeatMS = 15_000;
  let url = '';
  let timer: ReturnType<typeof setTimeout>;
  let renewal: ReturnType<typeof setTimeout>;
  let fresh: Parameters<Owner['say']>; // as the gateway last told

  const patience = () => 2 * heartbeatMS + slackMS;

  function drop(attempt: Attempt | undefined) {
    if (attempt === current) current = undefined;
    if (attempt === probe) probe = undefined;
    attempt?.wire?.close();
  }

  function connect() {
    disconnected();
    void dial(ladder[rung]!);
  }

  function disconnected(reason?: string) {
    owner.say(globalThis.navigator?.onLine === false ? 'offline' : 'connecting', undefined, reason);
  }

  function wait(ms: number) {
    clearTimeout(timer);
    timer = setTimeout(connect, Math.max(ms, notBefore - Date.now()));
  }

  function fatal(error: PepayGatewayError) {
    stop();
    owner.end(error);
  }

  async function dial(kind: Transport, beside = false) {
    const attempt: Attempt = { kind, up: 0, heard: Date.now() };
    drop(probe);
    if (beside) {
      probe = attempt;
      climbLater();
    } else current = attempt;
    const mine = () => attempt === current || attempt === probe;
    try {
      let minted = await fetchToken(options);
      if (!mine()) return;
      attempt.heard = Date.now();
      url = (options.url ?? minted.ws_url?.replace(/^ws/, 'http').replace(/\/ws\/.*/, '') ?? location.origin).replace(/\/$/, '');
      // A token that does not say when it ends is not used twice.
      const token = async () => (+minted.expires_at! * 1000 > Date.now() + marginMS ? minted : minted = await fetchToken(options));
      const target = { url, minted, query: owner.query(), orders: owner.asked(), token };
      attempt.wire = wires[kind](target, {
        frame: (frame) => mine() && take(attempt, frame),
        polled(events, cursor, scope, status, since) {
          if (!mine()) return;
          opened(attempt);
          owner.polled(events, cursor, scope);
          if (mine()) owner.say(status, kind, undefined, since);
        },
        closed: (code, retryMS) => mine() && closed(attempt, code, retryMS),
      });
    } catch (err: any) {
      if (!mine()) return;
      if (!(err instanceof PepayGatewayError)) return closed(attempt, 1006); // there is no such transport here, or it is forbidden
      const main = attempt === current;
      drop(attempt);
      if (!err.retry) return fatal(err);
      owner.complain(err);
      if (main) wait(backoff(failures++));
    }
  }

  function opened(attempt: Attempt) {
    if (attempt.up) return;
    attempt.up = Date.now();
    refused = unopened = 0;
    worked = attempt.kind;
    if (attempt === probe) {
      probe = undefined;
      drop(current);
      current = attempt;
      rung = (ladder as Transport[]).indexOf(attempt.kind);
    } else climbLater();
  }

  function climbLater() {
    climbAt = Date.now() + about(climbMS);
  }

  function take(attempt: Attempt, frame: Frame) {
    attempt.heard = Date.now();
    if (frame.object === 'ws_error') return void (attempt.told = frame);
    const type = frame.object === 'ws_control' && frame.type;
    if (type === 'hello') {
      opened(attempt);
      heartbeatMS = +frame.heartbeat_ms || heartbeatMS;
    }
    if (type === 'disconnect') attempt.retryMS = +frame.retry_ms || 0;
    if (attempt !== current) return; // a probe that is turned away changes nothing
    if (type === 'hello' || type === 'status') fresh = [frame.status, attempt.kind, frame.reason, frame.since_ms];
    if (type === 'token_expiring' && getToken) {
      // After half of what is left, if the clock here can be believed, a stream
      // with a new token takes the place of this one.
      const left = frame.session_expires_at * 1000 - Date.now();
      clearTimeout(renewal);
      renewal = setTimeout(() => attempt === current && dial(attempt.kind, true), Math.min(60_000, Math.max(2_000, left)) / 2);
    }
    owner.frame(frame);
    if (attempt === current && attempt.up) owner.say(...fresh); // also when the browser had said offline: a frame knows better
  }

  function closed(attempt: Attempt, code: number, retryMS = attempt.retryMS ?? 0, dead = false) {
    const { up, kind, told } = attempt;
    const beside = attempt === probe;
    drop(attempt);
    if (beside) {
      const next = (ladder as Transport[]).indexOf(kind) + 1;
      if (next < rung) void dial(ladder[next]!, true);
      return;
    }
    clearTimeout(renewal);
    const expired = [401, 4401].includes(code);
    const final = expired ? !getToken || ++refused > maxRefused : [400, 403, 1008, 1009, 4400, 4403].includes(code);
    if (final || told) {
      const error = new PepayGatewayError(told?.code ?? `CLOSED_${code}`, told?.message ?? 'closed', !final, code);
      if (final) return fatal(error);
      owner.complain(error);
    }
    const replaced = code === 4409;
    disconnected(replaced ? 'replaced' : undefined);
    if (replaced) return; // until the page is looked at
    if (up && Date.now() - up > steadyMS) failures = 0;
    notBefore = Date.now() + retryMS;
    // A session that ended, and a connection that proved to be dead, are nobody's fault.
    let now = dead || (expired && refused < 2);
    // What never opened may not be let through by something on the way.
    if (!up && code === 1006 && !told && !retryMS && ++unopened >= (worked === kind ? maxPatience : 1)) {
      unopened = 0;
      rung = (rung + 1) % ladder.length;
      now = rung > 0; // else all have failed: the network is away
    }
    wait(now ? 0 : backoff(failures++));
  }

  function stop() {
    running = false;
    clearTimeout(timer);
    clearTimeout(renewal);
    drop(current);
    drop(probe);
  }

  return {
    get running() { return running; },
    get heartbeatMS() { return heartbeatMS; },
    get url() { return url; },
    start() {
      stop();
      running = true;
      connect();
    },
    stop,
    wake() {
      if (!running) return;
      failures = 0;
      if (!current) return wait(0);
      const { wire, up, heard, kind } = current;
      const now = Date.now();
      if (!up || now - heard < recentMS) return;
      if (wire!.ping?.()) current.heard = Math.min(heard, now - patience() + pingMS);
      else if (!probe) void dial(kind, true); // nothing can be asked of it: a new connection is the check
      climbAt = 0;
    },
    lose: () => running && owner.say('offline'),
    tick() {
      const now = Date.now();
      for (const attempt of [current, probe]) {
        if (!attempt || attempt.kind === 'poll') continue; // which has deadlines of its own
        if (now - attempt.heard > (attempt.up ? patience() : openMS)) closed(attempt, 1006, 0, !!attempt.up);
      }
      if (current?.up && rung && !probe && now > climbAt) void dial(ladder[0]!, true);
    },
  };
}
