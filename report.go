package main

import (
	"strings"

	"pepay-gateway/gateway"
	"pepay-gateway/gateway/admin"
	"pepay-gateway/gateway/downstream"
)

// report is what this node says of itself, to Prometheus and to its peers.
func (n *node) report() admin.Report {
	health, _ := n.node.Health()
	hub, in, pub, up := n.node.Stats(), n.ingest.Stats(), n.public.Stats(), n.source.Stats()
	pos := n.node.Position()
	r := admin.Report{
		Node: n.cfg.Node, Admin: n.adminURL, Version: version(), StartedMS: n.started.UnixMilli(),
		Ready: n.ready() == nil, Draining: n.draining.Load(),
		Status:      admin.StatusOf(health),
		Connections: admin.Connections{WS: pub.WS, SSE: pub.SSE}, Accepted: pub.Accepted, Limit: pub.Limit,
		Subscribers: hub.Subscribers, Waiting: in.Waiting, TailSilentMS: hub.TailSilent.Milliseconds(), Seq: pos.Seq, Epoch: pos.Epoch.String(),
		Histograms: map[string]*gateway.Histogram{
			"upstream": &n.ingest.Lag.Upstream, "append": &n.ingest.Lag.Append,
			"hub": &n.node.Lag.Hub, "write": &n.node.Lag.Write,
		},
		Counters: map[string]int64{
			"appended": in.Appended, "duplicates": in.Duplicates, "unrouted": in.Unrouted,
			"conflicts": in.Conflicts, "lookups": in.Lookups, "lookups_dropped": in.Dropped, "terms": in.Terms, "stood_aside": in.Aside, "histories": in.Histories,
			"delivered": hub.Delivered, "slow": hub.Slow, "resets": hub.Resets, "rewinds": hub.Rewinds,
			"ring_replays": hub.RingReplays, "log_replays": hub.LogReplays,
			"quarantined": int64(up.Quarantined), "upstream_frames": int64(up.Frames),
			"upstream_reconnects": int64(up.Reconnects), "backfilled": int64(up.Backfilled),
			"garbage": n.bus.Garbage(), "resubscribes": n.bus.Resubscribes(),
			"dead_tails": hub.DeadTails,
		},
		Reaches: n.reaches.Load(), Memory: n.memory.used.Load(), MemoryLimit: n.memory.limit,
	}
	for name, v := range publicCounters(pub) {
		r.Counters[name] = v
	}
	if h, leading := n.ingest.Health(); leading {
		r.Leader = true
		r.Upstream = &admin.Upstream{
			Status: admin.StatusOf(h), Frames: int64(up.Frames),
			Quarantined: int64(up.Quarantined), Reconnects: int64(up.Reconnects),
		}
	}
	return r
}

func publicCounters(p downstream.Stats) map[string]int64 {
	out := map[string]int64{
		"handshakes": p.Handshakes, "streams": p.Streams, "requests": p.Requests, "minted": p.Minted,
		"caught_up": p.Slow, "resumed": p.Replays, "resets_told": p.Resets, "snapshots": p.Snapshots,
		"snapshots_incomplete": p.Incomplete, "frames": p.Frames, "panics": p.Panics, "dropped": p.Dropped, "shed": p.Shed,
	}
	for code, n := range p.Refusals {
		out["refused_"+strings.ToLower(code)] = n
	}
	for code, n := range p.Closes {
		out["closed_"+code] = n
	}
	return out
}
