package e2e

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A relay is a TCP proxy that can be cut, and that can keep from its present
// connections what Redis publishes.
type relay struct {
	ln     net.Listener
	target string
	mu     sync.Mutex
	cut    bool
	conns  []net.Conn
	made   int // connections so far
	deaf   int // how many of them hear nothing
	wg     sync.WaitGroup
}

func startRelay(t testing.TB, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, target: target}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		r.setCut(true)
		r.wg.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		in, err := r.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		r.mu.Lock()
		if r.cut || err != nil {
			_ = in.Close()
			if out != nil {
				_ = out.Close()
			}
			r.mu.Unlock()
			continue
		}
		r.conns = append(r.conns, in, out)
		r.made++
		n := r.made
		r.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			r.wg.Go(func() {
				_, _ = io.Copy(muffled{pair[0], r, n}, pair[1])
				_ = pair[0].Close()
				_ = pair[1].Close()
			})
		}
	}
}

// A muffled writer leaves published messages out while its connection is deaf.
type muffled struct {
	io.Writer
	r *relay
	n int
}

func (m muffled) Write(p []byte) (int, error) {
	m.r.mu.Lock()
	deaf := m.n <= m.r.deaf
	m.r.mu.Unlock()
	if deaf && bytes.Contains(p, []byte("message\r\n")) {
		return len(p), nil
	}
	return m.Writer.Write(p)
}

// deafen keeps from the present connections what Redis publishes.
func (r *relay) deafen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deaf = r.made
}

func (r *relay) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	if cut {
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.conns = nil
	}
}

func TestNodeThatAloneLostRedisMovesItsClients(t *testing.T) {
	redis, p := startRedis(t), startPepay(t)
	whole := startGateway(t, "node-a", redis, p)
	whole.waitLive()
	wire := startRelay(t, redis.addr)
	lone := startGateway(t, "node-b", &redisServer{addr: wire.ln.Addr().String()}, p, "GATEWAY_STALE_LIMIT=3s")
	lone.waitLive()
	ws, sse := follow(t, lone, map[string]any{"customer_id": "cust_1"})
	eventually(t, 10*time.Second, "the nodes know of each other", func() bool { return len(lone.stats().Nodes) == 2 })

	wire.setCut(true)
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
