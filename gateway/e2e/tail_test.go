package e2e

import (
	"regexp"
	"strconv"
	"testing"
	"time"
)

// metric returns one of a node's metrics.
func (g *gatewayProcess) metric(name string) float64 {
	g.t.Helper()
	return g.processMetric("pepay_gateway_" + name)
}

// processMetric returns a metric by its full name.
func (g *gatewayProcess) processMetric(name string) float64 {
	g.t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `(?:\{[^}]*\})? (\S+)$`).FindStringSubmatch(metrics(g))
	if m == nil {
		g.t.Fatalf("there is no metric %s", name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

// A subscription whose connection answers pings and brings nothing is as good as
// none. The poll brings what it should have.
func TestDeadSubscriptionHeals(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	startGateway(t, "node-a", redis, p).waitLive()
	wire := startProxy(t, redis.addr)
	g := startGateway(t, "node-b", &redisServer{addr: wire.addr()}, p)
	g.waitLive()
	ws, _ := follow(t, g, map[string]any{"customer_id": "cust_1"})

	ws.waitStatus("live")
	told := ws.count("status")
	wire.deafen()
	began := time.Now()
	p.order("cust_1")
	ws.waitIDs(1)
	t.Logf("an event arrived %v after the subscription died", time.Since(began).Round(time.Millisecond))
	eventually(t, 8*time.Second, "the dead subscription is noticed", func() bool { return g.metric("dead_tails_total") == 1 })
	t.Logf("noticed after %v", time.Since(began).Round(time.Millisecond))
	eventually(t, 10*time.Second, "the channel is heard again", func() bool { return g.metric("tail_silent_seconds") < 1.5 })
	p.order("cust_1")
	ws.waitIDs(2)
	eventually(t, 5*time.Second, "the stats show it", func() bool {
		dead := map[string]int64{}
		for _, n := range g.stats().Nodes {
			dead[n.Node] = n.Counters["dead_tails"]
		}
		return len(dead) == 2 && dead["node-a"] == 0 && dead["node-b"] == 1
	})
	if n := ws.count("status"); n != told {
		t.Errorf("the client was told of %d changes of status, want none", n-told)
	}
}
