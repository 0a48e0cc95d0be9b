// What /api/v1/stats may answer.

const startedMS = Date.now() - 26 * 3_600_000;

// A cluster in good health, after tick seconds of traffic.
export function clusterStats(tick, size = 3) {
  const now = Date.now();
  // What was counted at a rate that rises and falls, one a second on average.
  const counted = tick + 4 * Math.sin(tick / 10) + 0.07 * Math.sin(tick * 1.7);
  const nodes = Array.from({ length: size }, (_, i) => ({
    node: `node-${i + 1}`, version: '1.0.0', at_ms: now, age_ms: 100 + 7 * i, started_ms: startedMS + i * 60_000,
    leader: i === 0, ready: true, draining: false,
    status: { state: 'live', reason: '', since_ms: startedMS },
    connections: { ws: 1_240 + 31 * i, sse: 610 + i },
    subscribers: 1_850, lookups_waiting: 0, seq: 18_410 + tick * 45, epoch: '3fa9c2d10b44',
    lag_ms: {
      upstream: i === 0 ? { p50: 25, p99: 100 } : { p50: 0, p99: 0 }, append: i === 0 ? { p50: 2, p99: 5 } : { p50: 0, p99: 0 },
      hub: { p50: 2, p99: 10 }, write: { p50: 5, p99: 25 },
    },
    counters: {
      appended: i === 0 ? 18_410 + Math.round(45 * counted) : 0, duplicates: i === 0 ? 12 : 0,
      delivered: 1_204_551 + Math.round((900 + 40 * i) * counted), frames: 0, slow: i === 1 ? 3 : 0,
      resets: 0, resets_told: i, rewinds: 0, unrouted: 0, conflicts: 0, quarantined: 0, garbage: 0, panics: 0,
      ring_replays: 210 + tick, log_replays: 14, minted: 9_120 + 3 * tick, refused_token_invalid: 41 + i, refused_origin_forbidden: i === 0 ? 2 : 0,
    },
  }));
  const sum = (value) => nodes.reduce((total, node) => total + value(node), 0);
  return {
    stream: 'commerce', now_ms: now,
    status: { state: 'live', reason: '', since_ms: startedMS },
    leader: nodes[0]?.node ?? '',
    upstream: { state: 'live', reason: '', since_ms: startedMS + 5_000, frames: 18_422 + tick * 45, quarantined: 0, reconnects: 2 },
    log: { seq: 18_410 + tick * 45, epoch: '3fa9c2d10b44' },
    nodes,
    totals: {
      connections: { ws: sum((node) => node.connections.ws), sse: sum((node) => node.connections.sse) },
      delivered: sum((node) => node.counters.delivered), appended: sum((node) => node.counters.appended),
    },
  };
}

// Thirty nodes, five of them in five kinds of trouble.
export function troubledStats(tick) {
  const stats = clusterStats(tick, 30);
  const [, , slow, draining, unready, silent, cutOff] = stats.nodes;
  slow.counters.slow = 412;
  draining.draining = true;
  draining.ready = false;
  Object.assign(unready, { ready: false, started_ms: stats.now_ms - 20_000, status: { state: 'catching_up', reason: 'starting', since_ms: stats.now_ms - 20_000 } });
  silent.age_ms = 6_200;
  cutOff.status = { state: 'stale', reason: 'log_unreachable', since_ms: stats.now_ms - 42_000 };
  return stats;
}
