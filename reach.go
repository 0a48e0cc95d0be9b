package main

import (
	"context"
	"math/rand/v2"
	"time"

	"pepay-gateway/gateway"
)

// probeEvery is how often a node looks for the upstream while the leader does not
// reach it, about.
const probeEvery = 3 * time.Second

// probeUpstream finds out, while the leader does not reach the upstream, whether
// this node does. The answer goes into its report.
func (n *node) probeUpstream(ctx context.Context) error {
	for ctx.Err() == nil {
		health, changed := n.node.Health()
		if health.State != gateway.Stale || health.Reason != gateway.ReasonUpstreamDown {
			n.reaches.Store(false)
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		n.reaches.Store(n.ingest.Leading() == "" && n.source.Reachable(ctx))
		wait(ctx, probeEvery/2+rand.N(probeEvery))
	}
	return context.Cause(ctx)
}
