// What is wrong, since when, and what to do about it.

import { count, list, words } from './format.js';

/**
 * @typedef {object} Problem
 * @property {string} id stays the same while it is the same problem
 * @property {'bad'|'warn'} tone
 * @property {string} what
 * @property {number} since unix milliseconds; 0 when nobody said
 * @property {string} todo
 */

const silentMS = 3_500; // nodes report each second
const patienceMS = 10_000; // what ends by itself is no problem before
const behindMS = 10_000;

// Reasons of a state, as the gateway names them.
/** @type {Record<string, {what: string, todo: string, tone?: 'warn'}>} */
const causes = {
  no_leader: {
    what: 'Nobody leads, so nothing new comes in',
    todo: 'A standby takes over within leader.lease + 2 s. If none does: see that a node is ready and reaches Redis, and read its log for “term ended”.',
  },
  log_unreachable: {
    what: 'Redis is out of reach',
    todo: 'Clients stay connected and are told stale. Bring Redis back, and all heals by itself. If only one node is cut off, look at its network; it drains and exits after stale_limit, for its supervisor to restart it.',
  },
  append_failing: {
    what: 'Redis takes no events',
    todo: 'It is full, or read-only. Give it more memory, or lower log.retention_events or state.max_orders. Appends are repeated until they succeed; nothing is lost.',
  },
  history_lost: {
    what: 'Redis lost its history; it is being fetched again',
    todo: 'It ends by itself. Look whether Redis was emptied, evicts keys, or keeps no append-only file.',
    tone: 'warn',
  },
  lookups_failing: {
    what: 'Pepay does not answer questions about orders',
    todo: 'Events whose customer is unknown wait. They are asked for again until Pepay answers: check that its REST API is up and that upstream.api_key may read orders.',
    tone: 'warn',
  },
  upstream_down: {
    what: 'Pepay is out of reach',
    todo: 'Clients are told stale; the leader tries again, at most a minute apart, and fetches what it missed. Check that Pepay is up, and the leader’s way out: DNS, firewall, proxy.',
  },
  upstream_auth: {
    what: 'Pepay does not accept the API key',
    todo: 'Check upstream.api_key: was it rotated, or is it of another environment? Set the right one and restart the nodes, one after the other.',
  },
  upstream_forbidden: {
    what: 'Pepay forbids the stream to this API key',
    todo: 'Give the key the permission for commerce events at Pepay, or set another upstream.api_key.',
  },
  upstream_rejected: {
    what: 'Pepay rejects what the gateway asks for',
    todo: 'Check upstream.types and upstream.environment; the leader’s log has Pepay’s answer.',
  },
  upstream_rate_limited: {
    what: 'Pepay asks the gateway to slow down',
    todo: 'It tries again when Pepay allows it. See whether something else uses the same API key.',
    tone: 'warn',
  },
  backfill: {
    what: 'Events that were missed are still being fetched',
    todo: 'It ends by itself; clients are told catching up until then. With very many events, a smaller upstream.backfill is faster.',
    tone: 'warn',
  },
  resync: {
    what: 'Pepay asked for a backfill, which is still running',
    todo: 'It ends by itself; clients are told catching up until then.',
    tone: 'warn',
  },
  starting: {
    what: 'The stream is still starting',
    todo: 'It should take a few seconds. If it does not end, see that Redis and Pepay answer; the node’s log says which one does not.',
    tone: 'warn',
  },
};

// Counters that should stand still.
/** @type {Record<string, {what: (n: string) => string, todo: string, tone: 'bad'|'warn'}>} */
const alarms = {
  panics: {
    tone: 'bad', what: (n) => `A bug ended ${n} connections`,
    todo: 'Only those connections ended. Please report the stack trace in the log (“panic”).',
  },
  resets: {
    tone: 'warn', what: (n) => `Clients were reset ${n} times because continuity was lost`,
    todo: 'They have their orders again. Look whether Redis was restarted, failed over or emptied; an append-only file and a replica make that rarer.',
  },
  rewinds: {
    tone: 'warn', what: (n) => `Redis lost its last seconds ${n} times`,
    todo: 'What was lost was fetched again. Was Redis restarted or failed over? An append-only file and a replica make that rarer.',
  },
  quarantined: {
    tone: 'warn', what: (n) => `${n} frames of Pepay make no sense and were kept out`,
    todo: 'The stream goes on without them. The leader’s log says why (“frame quarantined”); if Pepay’s format changed, update the gateway.',
  },
  garbage: {
    tone: 'warn', what: (n) => `${n} records in Redis make no sense and were skipped`,
    todo: 'Something else writes to the gateway’s keys. Give it a Redis, or a user, of its own.',
  },
  conflicts: {
    tone: 'warn', what: (n) => `${n} events name another customer than their order’s first`,
    todo: 'They were shown to no customer. Find out in the shop why an order changed hands.',
  },
  lookups_dropped: {
    tone: 'warn', what: (n) => `${n} questions about orders found no room`,
    todo: 'Events whose customer is unknown wait for the next event of their order. Check that Pepay’s REST API answers quickly.',
  },
  refused_overloaded: {
    tone: 'warn', what: (n) => `${n} connections were refused because a node was full`,
    todo: 'Add nodes, or raise limits.connections and the limit of open files.',
  },
  refused_rate_limit_exceeded: {
    tone: 'warn', what: (n) => `${n} requests were refused as too many from one address`,
    todo: 'Behind a load balancer, set trusted_proxies to its addresses, or everybody counts as one client. Otherwise it is one client too many, or limits.… are too small.',
  },
};

/**
 * What is wrong, the worst first.
 *
 * @param {any} stats @param {import('./history.js').History} history @returns {Problem[]}
 */
export function problemsOf(stats, history) {
  const now = stats.now_ms || Date.now();
  const nodes = stats.nodes ?? [];
  const heard = nodes.filter((node) => !isSilent(node));
  const found = [...streamProblems(stats, heard, now), ...nodeProblems(nodes, heard, history)];
  for (const [counter, { tone, what, todo }] of Object.entries(alarms)) {
    const { total, since } = history.growth(counter);
    if (total > 0) found.push({ id: counter, tone, what: `${what(count(total))} in the last 5 minutes`, since, todo });
  }
  return found.sort((a, b) => Number(b.tone === 'bad') - Number(a.tone === 'bad'));
}

/** @param {any} node */
export function isSilent(node) {
  return (node.age_ms ?? 0) > silentMS;
}

/** @returns {Problem[]} */
function streamProblems(stats, heard, now) {
  const alone = stats.status?.reason === 'log_unreachable'; // and so sees no other node
  const told = heard.filter((node) => node.ready || node.status?.reason !== 'starting'); // else not ready says it
  const states = told.map((node) => ({ ...node.status, node: node.node }));
  if (stats.leader || !alone) states.push({ ...stats.upstream });
  if (states.length === 0) states.push({ ...stats.status });
  /** @type {Map<string, {state: string, since: number, nodes: string[]}>} */
  const byReason = new Map();
  for (const { state = '', reason = '', since_ms: since = 0, node } of states) {
    if (state === 'live' || state === '') continue;
    const entry = byReason.get(reason) ?? { state, since, nodes: [] };
    if (since && (!entry.since || since < entry.since)) entry.since = since;
    if (node) entry.nodes.push(node);
    byReason.set(reason, entry);
  }
  const found = [];
  for (const [reason, { state, since, nodes }] of byReason) {
    const cause = Object.hasOwn(causes, reason) ? causes[reason] : {
      what: `The stream is ${words(state).toLowerCase()}${reason ? `: ${words(reason).toLowerCase()}` : ''}`,
      todo: 'See “When something fails” in docs/operations.md, and the log of the leader.',
      tone: state === 'stale' ? undefined : /** @type {'warn'} */ ('warn'),
    };
    if (state === 'catching_up' && since && now - since < patienceMS) continue;
    const where = reason === 'log_unreachable' && nodes.length > 0 && !alone ? ` of ${list(nodes)}` : '';
    const note = reason === 'log_unreachable' && alone ? ' Until then, this page shows only the node that serves it.' : '';
    found.push({ id: `state ${reason}`, tone: cause.tone ?? 'bad', what: cause.what + where, since, todo: cause.todo + note });
  }
  return found;
}

/** @returns {Problem[]} */
function nodeProblems(nodes, heard, history) {
  const names = (/** @type {any[]} */ some) => some.map((node) => String(node.node));
  const have = (/** @type {any[]} */ some) => (some.length > 1 ? 'have' : 'has');
  const are = (/** @type {any[]} */ some) => (some.length > 1 ? 'are' : 'is');
  const found = [];
  const add = (id, tone, some, what, todo, since = 0) => {
    if (some.length > 0) found.push({ id, tone, what, since, todo });
  };
  const now = history.samples.at(-1)?.at ?? Date.now();
  const silent = nodes.filter(isSilent);
  add('silent', 'bad', silent, `${list(names(silent))} ${have(silent)} stopped reporting`,
    'If nobody stopped it: see whether its process runs and reaches Redis. After 10 s it is left out here; its clients reconnect to the others.',
    now - Math.max(0, ...silent.map((node) => node.age_ms)));
  const leaders = heard.filter((node) => node.leader);
  add('leaders', 'warn', leaders.slice(1), `${list(names(leaders))} both say that they lead`,
    'Only the younger can write; the older one finds out within leader.lease. If it does not, restart it.');
  const unready = heard.filter((node) => !node.ready && !node.draining);
  add('unready', 'bad', unready, `${list(names(unready))} ${are(unready)} not ready`,
    'It gets no traffic. GET /readyz on its admin listener says why; most often it has not reached Redis yet.',
    Math.min(...unready.map((node) => node.started_ms || now)));
  const draining = heard.filter((node) => node.draining);
  add('draining', 'warn', draining, `${list(names(draining))} ${are(draining)} draining`,
    'Its clients move to the other nodes. During a deploy there is nothing to do; otherwise its log says what ended it.');
  const tip = history.before(behindMS)?.seq ?? 0;
  const behind = heard.filter((node) => node.ready && node.seq < tip);
  add('behind', 'warn', behind, `${list(names(behind))} ${are(behind)} more than 10 s behind the log`,
    'Its clients see events late. Look at its processor and its way to Redis.');
  return found;
}
