// What the operations page calls a problem, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { History } from '../ops/history.js';
import { problemsOf } from '../ops/problems.js';
import { clusterStats } from './stats.mjs';

// Problems of a cluster that was well a second ago, and is now as change made it.
function problems(change, { tick = 1, size = 3 } = {}) {
  const history = new History();
  const [before, stats] = [clusterStats(0, size), clusterStats(tick, size)];
  for (const each of [before, ...before.nodes]) each.now_ms = each.at_ms = stats.now_ms - tick * 1_000;
  history.add(before);
  change(stats);
  history.add(stats);
  return { found: problemsOf(stats, history), now: stats.now_ms };
}

const ago = 42_000;

function tell(stats, status) {
  Object.assign(stats.status, status);
  for (const node of stats.nodes) Object.assign(node.status, status);
}

// All nodes say what the leader says of the upstream.
function upstream(state, reason, age = ago) {
  return (stats) => {
    Object.assign(stats.upstream, { state, reason, since_ms: stats.now_ms - age });
    tell(stats, { state, reason, since_ms: stats.now_ms - age + 900 });
  };
}

function counted(counter, n = 2) {
  return (stats) => {
    stats.nodes[0].counters[counter] = (stats.nodes[0].counters[counter] ?? 0) + n;
  };
}

test('a cluster in good health has no problem', () => {
  for (const size of [1, 3, 30]) assert.deepEqual(problems(() => {}, { size }).found, [], `with ${size} nodes`);
});

for (const [name, change, tone, what, todo, age = ago] of [
  ['no leader', (s) => {
    s.leader = '';
    s.nodes[0].leader = false;
    upstream('stale', 'no_leader')(s);
  }, 'bad', 'Nobody leads, so nothing new comes in', 'A standby takes over'],
  ['no leader, and nobody was told yet', (s) => {
    s.leader = '';
    s.nodes[0].leader = false;
    s.upstream = { state: 'stale', reason: 'no_leader', since_ms: 0 };
  }, 'bad', 'Nobody leads, so nothing new comes in', 'A standby takes over', null],
  ['this node is cut off', (s) => {
    s.nodes.splice(0, 2);
    s.leader = '';
    s.upstream = { state: 'stale', reason: 'no_leader', since_ms: 0 };
    tell(s, { state: 'stale', reason: 'log_unreachable', since_ms: s.now_ms - ago });
  }, 'bad', 'Redis is out of reach', 'this page shows only the node that serves it'],
  ['another node is cut off', (s) => Object.assign(s.nodes[1].status, { state: 'stale', reason: 'log_unreachable', since_ms: s.now_ms - ago }),
    'bad', 'Redis is out of reach of node-2', 'drains and exits'],
  ['Redis is full', upstream('stale', 'append_failing'), 'bad', 'Redis takes no events', 'more memory'],
  ['Pepay is away', upstream('stale', 'upstream_down'), 'bad', 'Pepay is out of reach', 'DNS, firewall, proxy'],
  ['wrong key', upstream('stale', 'upstream_auth'), 'bad', 'Pepay does not accept the API key', 'Check upstream.api_key'],
  ['forbidden', upstream('stale', 'upstream_forbidden'), 'bad', 'Pepay forbids the stream to this API key', 'permission'],
  ['rejected', upstream('stale', 'upstream_rejected'), 'bad', 'Pepay rejects what the gateway asks for', 'Check upstream.types'],
  ['rate limited', upstream('stale', 'upstream_rate_limited'), 'warn', 'Pepay asks the gateway to slow down', 'same API key'],
  ['history lost', upstream('catching_up', 'history_lost'), 'warn', 'Redis lost its history; it is being fetched again', 'evicts keys'],
  ['look-ups fail', upstream('catching_up', 'lookups_failing'), 'warn', 'Pepay does not answer questions about orders', 'REST API is up'],
  ['a long backfill', upstream('catching_up', 'backfill'), 'warn', 'Events that were missed are still being fetched', 'It ends by itself'],
  ['a long resync', upstream('catching_up', 'resync'), 'warn', 'Pepay asked for a backfill, which is still running', 'It ends by itself'],
  ['a long start', upstream('catching_up', 'starting'), 'warn', 'The stream is still starting', 'Redis and Pepay answer'],
  ['a reason to come', upstream('stale', 'something_new'), 'bad', 'The stream is stale: something new', 'docs/operations.md'],
  ['a reason named like a member', upstream('catching_up', 'constructor'), 'warn', 'The stream is catching up: constructor', 'docs/operations.md'],
  ['a silent node', (s) => Object.assign(s.nodes[1], { age_ms: ago }), 'bad', 'node-2 has stopped reporting', 'its process runs'],
  ['two leaders', (s) => Object.assign(s.nodes[1], { leader: true }), 'warn', 'node-1 and node-2 both say that they lead', 'Only the younger can write', null],
  ['a node that is not ready', (s) => Object.assign(s.nodes[1], {
    ready: false, started_ms: s.now_ms - ago, status: { state: 'catching_up', reason: 'starting', since_ms: s.now_ms - ago },
  }), 'bad', 'node-2 is not ready', 'GET /readyz'],
  ['draining nodes', (s) => s.nodes.forEach((node, i) => Object.assign(node, i > 0 && { draining: true, ready: false })),
    'warn', 'node-2 and node-3 are draining', 'During a deploy there is nothing to do', null],
]) {
  test(`a problem: ${name}`, () => {
    const { found, now } = problems(change);
    assert.deepEqual(found.map((problem) => [problem.tone, problem.what]), [[tone, what]]);
    assert.equal(found[0].since, age === null ? 0 : now - age, 'since');
    assert.ok(found[0].todo.includes(todo), `what to do = ${found[0].todo}, want ${todo}`);
  });
}

for (const [counter, n, tone, what, todo] of [
  ['panics', 2, 'bad', 'A bug ended 2 connections', 'report the stack trace'],
  ['resets', 2, 'warn', 'Clients were reset 2 times because continuity was lost', 'append-only file'],
  ['rewinds', 2, 'warn', 'Redis lost its last seconds 2 times', 'append-only file'],
  ['quarantined', 2, 'warn', '2 frames of Pepay make no sense and were kept out', 'frame quarantined'],
  ['garbage', 2, 'warn', '2 records in Redis make no sense and were skipped', 'of its own'],
  ['conflicts', 2, 'warn', '2 events name another customer than their order’s first', 'changed hands'],
  ['lookups_dropped', 2, 'warn', '2 questions about orders found no room', 'answers quickly'],
  ['refused_overloaded', 2, 'warn', '2 connections were refused because a node was full', 'limits.connections'],
  ['refused_rate_limit_exceeded', 1_234, 'warn', '1,234 requests were refused as too many from one address', 'trusted_proxies'],
]) {
  test(`a problem: ${counter} grows`, () => {
    const { found, now } = problems(counted(counter, n));
    assert.deepEqual(found.map((problem) => [problem.tone, problem.what]), [[tone, `${what} in the last 5 minutes`]]);
    assert.equal(found[0].since, now, 'since');
    assert.ok(found[0].todo.includes(todo), `what to do = ${found[0].todo}, want ${todo}`);
  });
}

test('what ends by itself is no problem at first', () => {
  for (const reason of ['backfill', 'resync', 'starting']) {
    assert.deepEqual(problems(upstream('catching_up', reason, 9_000)).found, [], reason);
  }
});

test('counters that were high before the page came are no problem', () => {
  const history = new History();
  const stats = clusterStats(1);
  counted('quarantined', 99)(stats);
  history.add(stats);
  assert.deepEqual(problemsOf(stats, history), []);
});

test('a node that the log left behind is a problem', () => {
  const late = (s) => Object.assign(s.nodes[2], { seq: s.log.seq - 12 * 45 - 1 });
  assert.deepEqual(problems(late, { tick: 9 }).found, [], 'after 9 s');
  const { found } = problems(late, { tick: 12 });
  assert.deepEqual(found.map(({ what }) => what), ['node-3 is more than 10 s behind the log']);
});

test('many nodes are counted, not listed', () => {
  const { found } = problems((s) => s.nodes.forEach((node) => Object.assign(node, { draining: true, ready: false })), { size: 30 });
  assert.deepEqual(found.map(({ what }) => what), ['node-1, node-2, node-3 and 27 more are draining']);
});
