package e2e

import (
	"testing"
	"time"
)

func TestLeaderThatAloneLostTheUpstreamStandsAside(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	wire := startProxy(t, p.url[len("http://"):])
	lone := startGateway(t, "node-a", redis, &pepay{process: p.process, url: "http://" + wire.addr()})
	lone.waitLive()
	whole := startGateway(t, "node-b", redis, p)
	whole.waitLive()
	ws, sse := follow(t, whole, map[string]any{"customer_id": "cust_1"})

	wire.cut()
	cut := time.Now()
	o := p.order("cust_1") // nobody reads it yet
	for _, s := range []*stream{ws, sse} {
		s.waitStatus("stale")
	}
	eventually(t, 30*time.Second, "another node leads", func() bool { return whole.metric("leader") == 1 })
	t.Logf("another node leads %v after the cut", time.Since(cut).Round(time.Millisecond))
	for _, s := range []*stream{ws, sse} {
		s.waitStatus("live")
		s.waitIDs(1)
	}
	p.simulate(o.OrderID, "payment_confirmed")
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		s.waitIDs(2)
		if n := s.count("reset") + s.count("disconnect"); n != 0 {
			t.Errorf("%s: %d resets and disconnects, want none", name, n)
		}
	}
	if got := lone.metric("stood_aside_total"); got != 1 {
		t.Errorf("the lone node stood aside %v times, want once", got)
	}
}
