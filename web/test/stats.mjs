// What /api/v1/stats may answer.

const startedMS = 1_790_000_000_000;

export function clusterStats(tick) {
  const wave = Math.round(40 * (1 + Math.sin(tick / 4)));
  return {
    stream: 'commerce', now_ms: Date.now(),
    status: { state: 'live', reason: '', since_ms: startedMS },
    leader: 'node-a',
    upstream: { state: 'live', reason: '', since_ms: startedMS, frames: 18_422 + tick * 45, quarantined: 0, reconnects: 2 },
    log: { seq: 18_410 + tick * 45, epoch: '7-3fa9c2d10b44' },
    nodes: ['node-a', 'node-b', 'node-c'].map((name, i) => ({
      node: name, version: 'dev', started_ms: startedMS, leader: i === 0, ready: i < 2, draining: i === 2,
      connections: { ws: 1_240 + wave * i, sse: 610 + i },
      subscribers: 1_850,
      lag_ms: { upstream: i === 0 ? { p50: 25, p99: 100 } : {}, append: i === 0 ? { p50: 2, p99: 5 } : {}, hub: { p50: 2, p99: 10 }, write: { p50: 5, p99: 25 } },
      counters: { appended: i === 0 ? 18_410 + tick * 45 + wave : 0, duplicates: 12, delivered: 1_204_551 + tick * 900 + wave * 20 * (i + 1), slow: i === 1 ? 3 : 0, resets: 0, rewinds: 0, unrouted: 0, quarantined: 0 },
    })),
    totals: { connections: { ws: 3_720, sse: 1_833 }, delivered: 3_613_653 + tick * 2_700, appended: 18_410 + tick * 45 },
  };
}
