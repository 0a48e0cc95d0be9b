package e2e

import (
	"testing"
	"time"
)

func TestNodeThatAloneLostRedisMovesItsClients(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	whole := startGateway(t, "node-a", redis, p)
	whole.waitLive()
	wire := startProxy(t, redis.addr)
	lone := startGateway(t, "node-b", &redisServer{addr: wire.addr()}, p, "GATEWAY_STALE_LIMIT=3s")
	lone.waitLive()
	ws, sse := follow(t, lone, map[string]any{"customer_id": "cust_1"})
	eventually(t, 10*time.Second, "the nodes know of each other", func() bool { return len(lone.stats().Nodes) == 2 })

	wire.cut()
	for _, s := range []*stream{ws, sse} {
		s.waitStatus("stale")
		if d := s.waitControl("disconnect"); d["reconnect"] != true {
			t.Errorf("disconnect = %v, want reconnect", d)
		}
	}
	select {
	case <-lone.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the lone node still runs")
	}
	if got := lone.cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("exit code = %d, want 1", got)
	}
}

func TestNodesThatAllLostRedisKeepTheirClients(t *testing.T) {
	t.Parallel()
	w := startWorld(t, "GATEWAY_STALE_LIMIT=1s")
	ws, sse := follow(t, w.nodes[0], map[string]any{"customer_id": "cust_1"})
	eventually(t, 10*time.Second, "the nodes know of each other", func() bool { return len(w.nodes[0].stats().Nodes) == 2 })
	w.redis.kill()
	for _, s := range []*stream{ws, sse} {
		s.waitStatus("stale")
	}
	// Asked and answered: well past the limit nobody has moved anybody.
	since := time.Now()
	eventually(t, 20*time.Second, "well past the limit", func() bool { return time.Since(since) > 8*time.Second })
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		if n := s.count("disconnect"); n != 0 {
			t.Errorf("%s: told to leave", name)
		}
	}
	w.redis.restart(t)
	for _, s := range []*stream{ws, sse} {
		s.waitStatus("live")
	}
}
