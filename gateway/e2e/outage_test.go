package e2e

import (
	"syscall"
	"testing"
	"time"
)

// outageLasts is long enough for every time limit within the nodes to pass.
const outageLasts = 8 * time.Second

// lastStatus returns the newest status that the stream was told.
func (s *stream) lastStatus() (state, reason string, since time.Time) {
	for _, it := range s.all() {
		if it.control["type"] == "status" {
			state, _ = it.control["status"].(string)
			reason, _ = it.control["reason"].(string)
			ms, _ := it.control["since_ms"].(float64)
			since = time.UnixMilli(int64(ms))
		}
	}
	return state, reason, since
}

// An outage is what clients must live through, and how.
type outage struct {
	begin, end func(*testing.T, *world)
	reason     string
	stale      time.Duration // until clients are told, at most
	heal       time.Duration // from the end until all is as it was, at most
	silent     time.Duration // until the upstream's stream is closed, at most; 0: it need not be
}

// live runs an outage under traffic and holds what clients were told against it.
func (o outage) live(t *testing.T, w *world, streams map[string]*stream) {
	t.Helper()
	for _, s := range streams {
		s.waitStatus("live")
	}
	lifecycle(w.pepay, "cust_1")
	known := len(w.owned("cust_1"))
	for name, s := range streams {
		if n := len(s.waitIDs(known)); n != known {
			t.Fatalf("%s: %d events, want %d", name, n, known)
		}
	}
	memory := []float64{w.nodes[0].rss(), w.nodes[1].rss()}

	began := time.Now()
	o.begin(t, w)
	for name, s := range streams {
		eventually(t, 20*time.Second, name+" is told", func() bool { state, _, _ := s.lastStatus(); return state == "stale" })
		_, reason, since := s.lastStatus()
		if reason != o.reason {
			t.Errorf("%s: stale because of %q, want %q", name, reason, o.reason)
		}
		// The log's answers are a second apart.
		if d := since.Sub(began); d < -1500*time.Millisecond || d > o.stale {
			t.Errorf("%s: stale since %v after the outage began, want when it began", name, d)
		}
	}
	told := time.Since(began)
	if told > o.stale {
		t.Errorf("clients were told after %v, want within %v", told, o.stale)
	}
	var silent time.Duration
	if o.silent > 0 {
		eventually(t, 20*time.Second, "the upstream is not read", func() bool { return w.pepay.state().Connections == 0 })
		if silent = time.Since(began); silent > o.silent {
			t.Errorf("the upstream's stream was closed after %v, want within %v", silent, o.silent)
		}
	}
	for n := 0; time.Since(began) < outageLasts; n++ {
		lifecycle(w.pepay, "cust_1")
		eventually(t, outageLasts, "a moment passes", func() bool { return time.Since(began) > time.Duration(n)*time.Second/4 })
	}
	for i, g := range w.nodes {
		if now := g.rss(); now > memory[i]+16<<20 {
			t.Errorf("node %d grew from %.0f to %.0f MiB, want it flat", i, memory[i]/(1<<20), now/(1<<20))
		}
	}

	ended := time.Now()
	o.end(t, w)
	w.pepay.order("cust_1")
	want := w.owned("cust_1")
	for name, s := range streams {
		eventually(t, 30*time.Second, name+" has everything and is live", func() bool {
			state, _, _ := s.lastStatus()
			return state == "live" && len(within(s.ids(), want)) == len(want)
		})
		if n := s.count("disconnect") + s.count("reset"); n != 0 {
			t.Errorf("%s: %d disconnects and resets, want none", name, n)
		}
		select {
		case <-s.done:
			t.Errorf("%s: ended, want it to live through the outage", name)
		default:
		}
	}
	healed := time.Since(ended)
	if healed > o.heal {
		t.Errorf("healed after %v, want within %v", healed, o.heal)
	}
	t.Logf("told after %v, upstream closed after %v, healed after %v, %d events", told.Round(time.Millisecond),
		silent.Round(time.Millisecond), healed.Round(time.Millisecond), len(want))
}

func (g *gatewayProcess) rss() float64 { return g.processMetric("process_resident_memory_bytes") }

func TestOutageOfRedis(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]outage{
		"dead": {
			begin: func(_ *testing.T, w *world) { w.redis.kill() },
			end:   func(t *testing.T, w *world) { w.redis.restart(t) },
		},
		"silent": {
			begin: func(t *testing.T, w *world) { w.redis.signal(t, syscall.SIGSTOP) },
			end:   func(t *testing.T, w *world) { w.redis.signal(t, syscall.SIGCONT) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.reason, o.stale, o.silent, o.heal = "log_unreachable", 3*time.Second, 5*time.Second, 5*time.Second
			redis := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
			w := &world{redis: redis, pepay: startPepay(t)}
			for _, node := range []string{"node-a", "node-b"} {
				g := startGateway(t, node, redis, w.pepay, "GATEWAY_LEADER_LEASE=5s", "GATEWAY_STALE_LIMIT=1s")
				g.waitLive()
				w.nodes = append(w.nodes, g)
			}
			streams := map[string]*stream{}
			for i, g := range w.nodes {
				ws, sse := follow(t, g, map[string]any{"customer_id": "cust_1"})
				streams["ws "+string(rune('a'+i))], streams["sse "+string(rune('a'+i))] = ws, sse
			}
			o.live(t, w, streams)
		})
	}
}

func TestOutageOfTheUpstream(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	wire := startProxy(t, p.url[len("http://"):])
	behind := &pepay{process: p.process, url: "http://" + wire.addr()}
	w := &world{redis: redis, pepay: p}
	streams := map[string]*stream{}
	for _, node := range []string{"node-a", "node-b"} {
		g := startGateway(t, node, redis, behind)
		g.waitLive()
		w.nodes = append(w.nodes, g)
		streams["ws of "+node], streams["sse of "+node] = follow(t, g, map[string]any{"customer_id": "cust_1"})
	}
	outage{
		begin:  func(*testing.T, *world) { wire.cut() },
		end:    func(*testing.T, *world) { wire.heal() },
		reason: "upstream_down", stale: 3 * time.Second, heal: 8 * time.Second,
	}.live(t, w, streams)
	if n := w.nodes[0].metric("terms_total") + w.nodes[1].metric("terms_total"); n != 1 {
		t.Errorf("%v terms, want one: nobody else reached the upstream", n)
	}
}
