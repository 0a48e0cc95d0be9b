package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Four hundred clients dial a process that may have 256 files open.
func TestFewDescriptorsAreKeptForWhoIsThere(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := launchGatewayAs(t, []string{"sh", "-c", `ulimit -n 256 && exec "$0" serve`, program}, "node-a", redis, p,
		"GATEWAY_LIMITS_CONNECTIONS_PER_TOKEN=0", "GATEWAY_LIMITS_CONNECTIONS_PER_CUSTOMER=0")
	g.waitReady()
	g.waitLive()
	if got := g.metric("connections_limit"); got != 192 {
		t.Errorf("connections_limit = %v, want 192", got)
	}
	var there []*stream
	for range 5 {
		ws, sse := follow(t, g, map[string]any{"customer_id": "cust_1"})
		there = append(there, ws, sse)
	}
	token := g.mint(map[string]any{"customer_id": "cust_1"}).Token

	var dials sync.WaitGroup
	var streams, refused, dropped atomic.Int64
	leave := make(chan struct{})
	for i := range 400 {
		dials.Go(func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				dropped.Add(1)
				return
			}
			defer func() { _ = conn.Close() }()
			path, upgrade := "/sse/", ""
			if i%2 == 0 {
				path, upgrade = "/ws/", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			}
			_, _ = fmt.Fprintf(conn, "GET %scommerce/events?token=%s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, token, upgrade)
			switch answer := firstWords(conn); {
			case strings.Contains(answer, `"hello"`), strings.HasPrefix(answer, "HTTP/1.1 101"):
				streams.Add(1)
				<-leave
			case strings.Contains(answer, `"disconnect"`), strings.HasPrefix(answer, "HTTP/1.1 503"):
				refused.Add(1)
			case answer == "":
				dropped.Add(1)
			default:
				t.Errorf("answer %q, want a stream, a refusal or none", answer)
			}
		})
	}
	eventually(t, 20*time.Second, "everybody has an answer", func() bool { return streams.Load()+refused.Load()+dropped.Load() == 400 })
	t.Logf("%d streams, %d refused, %d dropped; %v connections, limit %v", streams.Load(), refused.Load(), dropped.Load(),
		g.metric("accepted"), g.metric("connections_limit"))
	if n := streams.Load(); n < 100 || n > 192 {
		t.Errorf("%d new streams, want between 100 and the limit of 192", n)
	}
	p.order("cust_1")
	for i, s := range there {
		s.waitIDs(1)
		if n := s.count("disconnect"); n != 0 {
			t.Errorf("client %d was sent away, want it unaffected", i)
		}
	}
	close(leave)
	dials.Wait()
	eventually(t, 10*time.Second, "there is room again", func() bool { return g.metric("accepted") < 50 })
	follow(t, g, map[string]any{"customer_id": "cust_1"})
	for i, s := range there {
		if n := s.count("disconnect"); n != 0 {
			t.Errorf("client %d was sent away, want it unaffected", i)
		}
	}
}

// firstWords returns the beginning of the answer, "" if there is none.
func firstWords(conn net.Conn) string {
	_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		text := string(got)
		if err != nil || strings.Contains(text, `"hello"`) || strings.Contains(text, `"disconnect"`) ||
			strings.HasPrefix(text, "HTTP/1.1 101") || strings.HasPrefix(text, "HTTP/1.1 5") {
			return text
		}
	}
}
