package redisbus

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pepay-gateway/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ports atomic.Uint32

// freePort returns a loopback port that nobody listens on, below the range from
// which the system hands out ports to others.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 26000 + int(uint32(os.Getpid())*7+ports.Add(1))%6000
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// startRedis starts a redis-server of the test's own and returns its address.
func startRedis(t testing.TB, args ...string) string {
	t.Helper()
	return startRedisWith(t, append([]string{"--save", "", "--appendonly", "no"}, args...))
}

// startRedisWith tries again when somebody else took the port meanwhile.
func startRedisWith(t testing.TB, args []string) string {
	t.Helper()
	dir := t.TempDir()
	for range 5 {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		if runRedis(t, dir, addr, args) {
			return addr
		}
	}
	out, _ := os.ReadFile(filepath.Join(dir, "redis.out"))
	t.Fatalf("redis-server does not start:\n%s", out)
	return ""
}

func runRedis(t testing.TB, dir, addr string, args []string) bool {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(dir, "redis.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("redis-server", append(slices.Clone(args), "--port", port, "--bind", "127.0.0.1", "--dir", dir)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("redis-server (Debian: apt-get install redis-server): %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed below
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = out.Close()
	})
	up := false
	eventually(t, "redis-server answers or ends", func() bool {
		select {
		case <-ended:
			return true
		default:
			up = pong(addr)
			return up
		}
	})
	return up
}

func pong(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	var b [5]byte
	_, err = io.ReadFull(c, b[:])
	return err == nil && string(b[:]) == "+PONG"
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
		<-tick.C
	}
}

// eachStore runs f on a real Redis and on the embedded one.
func eachStore(t *testing.T, cfg Config, f func(t *testing.T, b *Bus)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) { f(t, newTestBus(t, "redis://"+startRedis(t)+"/0", cfg)) })
	t.Run("embedded", func(t *testing.T) {
		e, err := StartEmbedded()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.server.Close)
		f(t, newTestBus(t, e.URL(), cfg))
	})
}

func newTestBus(t testing.TB, url string, cfg Config) *Bus {
	t.Helper()
	cfg.URL = url
	if cfg.Stream == "" {
		cfg.Stream = "test"
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

var nonces atomic.Uint64

func nonce() gateway.Epoch { return gateway.Epoch(0xabc000000000 + nonces.Add(1)) }

func acquire(t testing.TB, b *Bus, req gateway.AcquireRequest) gateway.Term {
	t.Helper()
	if req.Nonce == 0 {
		req.Nonce = nonce()
	}
	if req.TTL == 0 {
		req.TTL = time.Minute
	}
	term, _, err := b.Acquire(t.Context(), req)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	return term
}

// succeed ends old's term and starts another.
func succeed(t testing.TB, b *Bus, old gateway.Term) gateway.Term {
	t.Helper()
	return acquire(t, b, gateway.AcquireRequest{Previous: old.Fence})
}

func event(n int, keys gateway.Keys) *gateway.Event {
	id := fmt.Sprintf("evt_%d-1", 1_767_225_600_000+n)
	return &gateway.Event{
		ID: id, Type: "commerce.order.updated", Object: gateway.ObjectOrder, Version: gateway.EventVersion(id, 0),
		Keys: keys, Received: 1, Data: fmt.Appendf(nil, `{"id":%q,"object":"event"}`, id),
	}
}

func records(evs ...*gateway.Event) []gateway.Record {
	var out []gateway.Record
	for _, ev := range evs {
		out = append(out, gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
	}
	return out
}

func cursorOf(ev *gateway.Event) gateway.UpstreamCursor {
	return gateway.UpstreamCursor{ID: ev.ID, Created: int64(ev.Version.Millis / 1000)}
}

func mustAppend(t testing.TB, b *Bus, term gateway.Term, acked uint64, evs ...*gateway.Event) gateway.Appended {
	t.Helper()
	r, err := b.Append(t.Context(), term, acked, records(evs...), cursorOf(evs[len(evs)-1]))
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	return r
}

func read(t testing.TB, b *Bus, from gateway.ReadFrom) gateway.Page {
	t.Helper()
	p, err := b.Read(t.Context(), from, 100)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return p
}

func idsOf(entries []gateway.Entry) []string {
	var out []string
	for _, e := range entries {
		switch {
		case e.Event != nil:
			out = append(out, e.Event.ID)
		case e.Join != nil:
			out = append(out, "join:"+e.Join.Order)
		}
	}
	return out
}

func contextWithCancel(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}
