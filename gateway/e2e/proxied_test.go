package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Streams of both transports that are idle outlive a proxy that ends what it
// hears nothing from.
func TestIdleStreamsOutliveAProxysTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 30 * time.Second
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	open := func(via *nginxProxy) map[string]*stream {
		through := func(url string) string {
			return strings.Replace(url, strings.TrimPrefix(g.url, "http"), strings.TrimPrefix(via.url, "http"), 1)
		}
		m := g.mint(map[string]any{"customer_id": "cust_1"})
		all := map[string]*stream{
			"sse": openSSE(t, through(m.SSEURL), ""), "ws": openWS(t, through(m.WSURL), m.Token, ""),
		}
		all["sse"].waitControl("replay_complete")
		all["ws"].waitControl("replay_complete")
		before := gauge(t, g, "subscribers")
		// Without pepay.v1 nothing is said on a quiet stream but protocol pings.
		all["plain ws"] = dialWS(t, withQuery(through(m.WSURL), "token", m.Token), nil, nil)
		eventually(t, 10*time.Second, "the plain stream is attached", func() bool { return gauge(t, g, "subscribers") > before })
		return all
	}
	streams := open(startNginx(t, []string{g.url}, "proxy_read_timeout 30s;"))
	since := time.Now()
	// A timeout that is shorter than the heartbeat does end them.
	for name, s := range open(startNginx(t, []string{g.url}, "proxy_read_timeout 3s;")) {
		if err := s.waitEnd(); err == nil {
			t.Errorf("%s: no end behind a timeout of 3 s, want one", name)
		}
	}
	eventually(t, 2*timeout, "past the timeout", func() bool { return time.Since(since) > timeout+3*time.Second })
	lifecycle(p, "cust_1")
	want := len((&world{pepay: p}).owned("cust_1"))
	for name, s := range streams {
		select {
		case <-s.done:
			t.Errorf("%s: ended by %v, want it to live", name, s.waitEnd())
		default:
			s.waitIDs(want)
		}
	}
}

// nginx buffers answers unless it is told otherwise. Ours tell it.
func TestSSEArrivesUnbufferedThroughAProxyThatBuffers(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	for name, config := range map[string]string{
		"buffering":              "proxy_buffering on;",
		"buffering, compressing": "proxy_buffering on; gzip on; gzip_types *; gzip_proxied any;",
	} {
		// What it buffers it hands on when it gives up on the stream.
		proxy := startNginx(t, []string{g.url}, config+" proxy_read_timeout 5s;")
		url := strings.Replace(g.mint(map[string]any{"customer_id": "cust_1"}).SSEURL, g.url, proxy.url, 1)
		began := time.Now()
		s := openSSE(t, url, "")
		s.waitControl("hello")
		first := time.Since(began)
		s.waitControl("replay_complete")
		var worst time.Duration
		for range 10 {
			had := len(s.ids())
			began := time.Now()
			p.order("cust_1")
			s.waitIDs(had + 1)
			worst = max(worst, time.Since(began))
		}
		t.Logf("%s: hello after %v, an event at most %v after it was asked for", name, first.Round(time.Millisecond), worst.Round(time.Millisecond))
		if limit := 2 * time.Second; first > limit || worst > limit {
			t.Errorf("%s: hello after %v, an event after %v; want both within %v", name, first, worst, limit)
		}
	}
}

// A proxy that gives connections one to five seconds loses nobody anything.
func TestProxyCutsConnectionsAtRandom(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	addrs := []string{freeAddr(t), freeAddr(t)}
	proxy := startNginx(t, addrs, "")
	way := startProxy(t, proxy.url)
	nodes := []*gatewayProcess{
		startGatewayAt(t, "node-a", addrs[0], way.url(), redis, p),
		startGatewayAt(t, "node-b", addrs[1], way.url(), redis, p),
	}
	nodes[0].waitLive()
	c := startCrowd(t, nodes[0], 20, 4)
	p.control("shop", map[string]any{"orders_per_second": 4, "customers": 4, "seed": 11})
	way.live(func() time.Duration { return time.Second + rand.N(4*time.Second) })
	way.end(true)
	eventually(t, 60*time.Second, "each was cut about twice", func() bool {
		return c.connectCount() >= 3*len(c.visitors)
	})
	way.live(nil)
	p.control("shop", map[string]any{"orders_per_second": 0})
	out := c.waitComplete(t, p)
	t.Logf("%+v over %d connects", out, c.connectCount())
	out.checkPerfect(t)
}

// A proxy that got no answer asks again. The request that it gave up on is one
// reader less, not one client more.
func TestProxyRepeatsARequest(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p, "GATEWAY_LIMITS_CONNECTIONS=4")
	g.waitLive()
	lossy := startLossy(t, strings.TrimPrefix(g.url, "http://"))
	proxy := startNginx(t, []string{lossy.addr, g.url + " backup"}, "")
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	through := func(url string) string {
		return strings.Replace(url, strings.TrimPrefix(g.url, "http"), strings.TrimPrefix(proxy.url, "http"), 1)
	}
	before := lossy.swallowed.Load()
	sse := openSSE(t, through(m.SSEURL), "")
	sse.waitControl("replay_complete")
	if got := lossy.swallowed.Load() - before; got != 1 {
		t.Errorf("%d requests for SSE got no answer, want 1", got)
	}
	ws := openWS(t, through(m.WSURL), m.Token, "")
	ws.waitControl("replay_complete")
	if got := lossy.swallowed.Load() - before; got != 2 {
		t.Errorf("%d requests for a WebSocket got no answer, want 1", got-1)
	}
	lifecycle(p, "cust_1")
	want := len((&world{pepay: p}).owned("cust_1"))
	for name, s := range map[string]*stream{"sse": sse, "ws": ws} {
		s.waitIDs(want)
		if got := len(s.all()) - s.count("hello") - s.count("snapshot") - s.count("status") - s.count("replay_complete") - s.count("tip"); got != want {
			t.Errorf("%s: %d events, want %d, each once", name, got, want)
		}
	}
	eventually(t, 10*time.Second, "two count", func() bool { return gauge(t, g, "connections") == 2 })
	for range 2 {
		s := openSSE(t, g.mint(map[string]any{"customer_id": "cust_2"}).SSEURL, "")
		s.waitControl("hello")
	}
}

// A lossy is a way to a gateway on which requests arrive and answers do not.
type lossy struct {
	addr      string
	swallowed atomic.Int64
}

func startLossy(t testing.TB, target string) *lossy {
	t.Helper()
	ln, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{addr: ln.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			l.swallow(in, target)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return l
}

// swallow passes on what comes until an answer begins, and hangs up.
func (l *lossy) swallow(in net.Conn, target string) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	_ = in.SetDeadline(time.Now().Add(10 * time.Second))
	_ = out.SetDeadline(time.Now().Add(10 * time.Second))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		var b [1]byte
		if _, err := io.ReadFull(out, b[:]); err == nil {
			l.swallowed.Add(1)
		}
		_ = in.SetDeadline(time.Now()) // ends the copy
	}()
	_, _ = io.Copy(out, in)
	<-answered
}
