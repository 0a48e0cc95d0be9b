import type { PepayEvent, StatusChange } from '../pepay-gateway.js';
import type { Frame } from './wire.js';

/** Where a tab is in the stream: what another needs to go on from there. */
export interface Place {
  cursor: string;
  settled: boolean;
}

/** What tabs say to each other. */
interface Message {
  from: string;
  /** join: let me follow; ask: are you there; lead: so says the leader. */
  kind: 'join' | 'ask' | 'lead';
  orders: string[]; // wanted or, by the leader, served
  to?: string; // of a welcome
  recent?: PepayEvent[]; // in a welcome
  place: Place;
  status: StatusChange;
  frame?: Frame;
}

/** What a tab does about its part. */
export interface Member {
  wanted(): string[];
  place(): Place;
  /** The last events that it has been brought, by whatever brought them. */
  recent(): PepayEvent[];
  status(): StatusChange;
  heartbeatMS(): number;
  /** Connect, if not connected. */
  lead(): void;
  /** Connect anew, for more orders than before. */
  connect(): void;
  /** Look after the connection: another tab is being looked at. */
  wake(): void;
  /** Close the connection: the leader's serves this tab from now on. */
  follow(recent: PepayEvent[]): void;
  /** Be alone again, with a connection of one's own, and join again when that is complete. */
  leave(): void;
  /** Take what the leader had, and be where it is. */
  adopt(message: { place: Place; status: StatusChange; frame?: Frame }): void;
}

/** One tab's part in sharing a connection. */
export interface Tabs {
  /** What the leader's connection serves; empty: everything. */
  readonly orders: string[];
  readonly following: boolean;
  readonly leading: boolean;
  close(): void;
  /** Repeats what the connection brought. For the leader. */
  repeat(frame?: Frame): void;
  /** Serves other orders from now on. For the leader. */
  want(): void;
  /** Makes sure that the leader is there. */
  wake(): void;
  tick(): void;
}

declare const VERSION: string; // tabs with another version of this share nothing with these

const maxOrders = 50; // of one stream, by the gateway's rules
const answerMS = 3_000; // for a leader to say that it is there
const slackMS = 5_000; // beyond two heartbeats

export function canShare(): boolean {
  return !!globalThis.BroadcastChannel && !!globalThis.navigator?.locks;
}

/**
 * Joins the tabs of a name. The holder of a lock leads: it has the connection
 * and repeats every frame on a channel. The others wait for the lock, and take
 * it from a leader that has gone silent. A tab joins with a connection of its
 * own that is complete, and closes it once the leader serves its orders too.
 */
export function joinTabs(name: string, member: Member): Tabs {
  const lock = `pepay-gateway ${VERSION} ${name}`;
  const me = `${Math.random()}`;
  const channel = new BroadcastChannel(lock);
  const joiners = new Map<string, string[]>();
  let orders = member.wanted();
  let role: 'joining' | 'following' | 'leading' | 'left' = 'joining';
  let heard = 0;
  let stop: AbortController; // of waiting for the lock
  let release: (() => void) | undefined;

  const send = (message: Partial<Message>) => channel.postMessage({ ...message, from: me });
  const patience = () => 2 * member.heartbeatMS() + slackMS;
  const join = () => send({ kind: 'join', orders: member.wanted() });
  const say = (more: Partial<Message>) => send({ kind: 'lead', orders, place: member.place(), status: member.status(), ...more });

  function queue(steal: boolean) {
    stop?.abort();
    heard = Date.now();
    const turn = stop = new AbortController();
    const granted = () => role === 'left' || turn !== stop ? undefined : new Promise<void>((resolve) => {
      release = resolve;
      role = 'leading';
      member.lead();
      say({});
    });
    navigator.locks.request(lock, steal ? { steal } : { signal: turn.signal }, granted).catch(() => {
      if (turn === stop && role === 'leading') member.leave(); // another tab has taken it
    });
  }

  /** Serves these orders too. False when there is no room; they then keep a connection of their own. */
  function include(wanted: string[]): boolean {
    if (covers(orders, wanted)) return true;
    const all = wanted.length ? [...new Set([...orders, ...wanted])] : [];
    if (all.length > maxOrders) return false;
    orders = all;
    return true;
  }

  /** Lets those follow whose orders are being served by now. */
  function welcome() {
    if (!member.status().transport || !member.place().settled) return; // it is being opened
    for (const [to, wanted] of joiners) if (covers(orders, wanted)) say({ to, recent: member.recent() });
    joiners.clear();
  }

  channel.onmessage = ({ data: message }: { data: Message }) => {
    const { kind, from } = message;
    const leading = role === 'leading';
    if (kind === 'ask' && leading) {
      say({});
      member.wake();
    }
    if (kind === 'join' && leading) {
      joiners.set(from, message.orders);
      const before = orders;
      if (include(message.orders) && before !== orders) member.connect();
      welcome();
    }
    // What is said to a leader comes from one that does not know yet that it has lost the lock.
    if (kind !== 'lead' || leading) return;
    heard = Date.now();
    const covered = covers(message.orders, member.wanted());
    if (role === 'joining') {
      if (message.to !== me || !covered) return join(); // it may not have heard of us
      role = 'following';
      member.follow(message.recent!);
    } else if (!covered) return member.leave();
    orders = message.orders;
    member.adopt(message);
  };
  queue(false);
  join();

  return {
    get orders() { return orders; },
    get following() { return role === 'following'; },
    get leading() { return role === 'leading'; },
    close() {
      role = 'left';
      stop.abort();
      release?.();
      channel.close();
    },
    repeat(frame) {
      if (role !== 'leading') return;
      say({ frame });
      welcome();
    },
    want() {
      if (!include(member.wanted())) orders = member.wanted(); // those who follow for others see that, and leave
      member.connect();
    },
    wake() {
      heard = Date.now() - patience() + answerMS; // also after a sleep
      send({ kind: 'ask' });
    },
    tick() {
      if (role === 'leading') say({}); // also while the gateway is away
      if (role === 'following' && Date.now() - heard > patience()) queue(true);
    },
  };
}

/** Whether a stream of some orders serves others too; none means all. */
function covers(served: string[], wanted: string[]): boolean {
  return !served.length || (wanted.length > 0 && wanted.every((order) => served.includes(order)));
}
