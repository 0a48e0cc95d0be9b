package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildPlain builds the program without the race detector, whose own memory is
// many times what is measured.
func buildPlain(t *testing.T) string {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "pepay-gateway")
	if out, err := exec.Command("go", "build", "-o", plain, "../..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return plain
}

// highWater returns the most memory that the process ever had in use.
func (p *process) highWater(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// stick opens a stream of which nothing is read but its beginning.
func stick(t *testing.T, g *gatewayProcess, token string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10) // the less the kernel holds, the more the gateway must
	_, err = io.WriteString(conn, "GET /sse/commerce/events?snapshot=0&token="+token+" HTTP/1.1\r\nHost: x\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if answer := firstWords(conn); !strings.Contains(answer, `"hello"`) {
		t.Fatalf("answer %q, want a stream", answer)
	}
	return conn
}

// One client in twenty stops reading, each with large events of its own that wait
// for it.
func TestStuckClientsStayWithinTheMemoryLimit(t *testing.T) {
	const limit = 200 << 20
	const stuck, sound, events, size = 10, 190, 80, 150 << 10
	redis, p := startRedis(t), startPepay(t)
	g := launchGatewayAs(t, []string{buildPlain(t), "serve"}, "node-a", redis, p,
		fmt.Sprintf("GOMEMLIMIT=%d", limit), "GATEWAY_LIMITS_CONNECTIONS_PER_CUSTOMER=0",
		"GATEWAY_LIMITS_CONNECTIONS_PER_TOKEN=0", "GATEWAY_LOG_RETENTION_EVENTS=2000")
	g.waitReady()
	g.waitLive()
	for i := range stuck {
		stick(t, g, g.mint(map[string]any{"customer_id": fmt.Sprint("stuck_", i)}).Token)
	}
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	var good []*stream
	for range sound / 2 {
		ws := openWS(t, m.WSURL, m.Token, "snapshot=0")
		sse := openSSE(t, withQuery(strings.Replace(strings.Replace(m.WSURL, "ws://", "http://", 1), "/ws/", "/sse/", 1),
			"token", m.Token, "snapshot", "0"), "")
		good = append(good, ws, sse)
	}
	for _, s := range good {
		s.waitControl("replay_complete")
	}
	pad := strings.Repeat("x", size)
	var load sync.WaitGroup
	for i := range stuck {
		load.Go(func() {
			for n := range events {
				p.control("emit", map[string]any{
					"frame": fmt.Sprintf(`{"id":"evt_%d-%d","object":"event","created":%d,"type":"commerce.order.updated",`+
						`"data":{"object":{"object":"commerce_order","id":"order_%d","customer_id":"stuck_%d","pad":%q}}}`,
						time.Now().UnixMilli(), n*stuck+i+1, time.Now().Unix(), i, i, pad),
				})
				if i == 0 && n%10 == 0 {
					p.order("cust_1")
				}
			}
		})
	}
	began := time.Now()
	load.Wait()
	t.Logf("%d MiB in %v; closed %v streams, %v were slow; uses %.0f MiB now, %d MiB at most",
		stuck*events*size>>20, time.Since(began).Round(time.Millisecond), g.metric("shed_total"), g.metric("slow_total"),
		g.metric("memory_bytes")/(1<<20), g.highWater(t)>>20)
	if got := g.highWater(t); got > limit*5/4 {
		t.Errorf("the process had %d MiB in use, want at most a quarter more than its limit of %d MiB", got>>20, limit>>20)
	}
	want := len((&world{pepay: p}).owned("cust_1"))
	for i, s := range good {
		if got := len(s.waitIDs(want)); got != want {
			t.Errorf("sound client %d has %d events, want %d", i, got, want)
		}
		if n := s.count("disconnect") + s.count("reset"); n != 0 {
			t.Errorf("sound client %d was sent away or reset, want it unaffected", i)
		}
	}
	eventually(t, 20*time.Second, "there is room again", func() bool { return g.metric("memory_bytes") < limit*7/10 })
	eventually(t, 10*time.Second, "newcomers are taken in", func() bool {
		s, _ := dialSSE(t, withQuery(strings.Replace(strings.Replace(m.WSURL, "ws://", "http://", 1), "/ws/", "/sse/", 1), "token", m.Token), "")
		defer s.close()
		eventually(t, 10*time.Second, "an answer", func() bool { return len(s.all()) > 0 })
		return s.count("hello") == 1
	})
}
