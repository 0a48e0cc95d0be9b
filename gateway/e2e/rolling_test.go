package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The size of the rolling restart: make rolling sets them.
const (
	rollingClientsVariable = "ROLLING_CLIENTS"
	rollingDrainVariable   = "ROLLING_DRAIN"
)

// Three nodes behind nginx are restarted one after the other under a trickle of
// events. Nobody misses anything or has to start anew, and the others are not
// run over by those who were sent to them.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	clients, drain := 150, 3*time.Second
	if v := os.Getenv(rollingClientsVariable); v != "" {
		clients = mustInt(t, v)
	}
	if v := os.Getenv(rollingDrainVariable); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		drain = d
	}
	redis, p := startRedis(t), startPepay(t)
	addrs := []string{freeAddr(t), freeAddr(t), freeAddr(t)}
	proxy := startNginx(t, addrs, "")
	nodes := make([]*gatewayProcess, len(addrs))
	launch := func(i int) {
		t.Helper()
		nodes[i] = startGatewayAt(t, fmt.Sprintf("node-%c", 'a'+i), addrs[i], proxy.url, redis, p,
			"GATEWAY_DRAIN_DURATION="+drain.String(), "GATEWAY_LOG_LEVEL=warn")
	}
	for i := range nodes {
		launch(i)
		nodes[i].waitLive()
	}
	customers := max(clients/10, 1)
	c := startCrowd(t, nodes[0], clients, customers)
	p.control("shop", map[string]any{"orders_per_second": 4, "customers": customers, "seed": 7})

	var starts []time.Time
	for i, g := range nodes {
		starts = append(starts, time.Now())
		code := g.terminate(drain + 5*time.Second)
		took := time.Since(starts[i])
		t.Logf("node %d: exit code %d, %.1f s after SIGTERM (at most %v)", i+1, code, took.Seconds(), drain+5*time.Second)
		if code != 0 {
			t.Errorf("node %d: exit code = %d, want 0", i+1, code)
		}
		launch(i)
	}
	// Whoever was sent away last is back after this.
	eventually(t, 2*drain+20*time.Second, "every client is back", func() bool {
		n := 0
		for _, g := range nodes {
			n += gauge(t, g, "connections")
		}
		return n == clients
	})
	p.control("shop", map[string]any{"orders_per_second": 0})
	out := c.waitComplete(t, p)
	out.checkPerfect(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("%d clients, %d events recorded, %+v, %d dials failed", clients, p.state().Events, out, c.failures)
	checkPace(t, c.connects, starts, drain)
}

// checkPace checks that those whom a node sent away come back evenly: in no
// second more than twice the mean over the drain's duration. A connect that is
// turned away is one too.
func checkPace(t *testing.T, connects []connect, starts []time.Time, drain time.Duration) {
	t.Helper()
	for i, start := range starts {
		var buckets []int
		total, refused := 0, 0
		for _, c := range connects {
			if c.left.Before(start) || i+1 < len(starts) && !c.left.Before(starts[i+1]) {
				continue
			}
			second := int(c.at.Sub(start) / time.Second)
			for len(buckets) <= second {
				buckets = append(buckets, 0)
			}
			buckets[second]++
			total++
			if !c.admitted {
				refused++
			}
		}
		if total == 0 {
			t.Errorf("node %d sent nobody away", i+1)
			continue
		}
		most, mean := slices.Max(buckets), float64(total)/drain.Seconds()
		t.Logf("node %d: %d connects, %d of them turned away; at most %d in a second, mean %.1f over %v: %v", i+1, total, refused, most, mean, drain, buckets)
		if float64(most) > 2*mean {
			t.Errorf("node %d: %d connects in a second, want at most twice the mean of %.1f", i+1, most, mean)
		}
	}
}

func mustInt(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// gauge returns the sum of a metric's series.
func gauge(t testing.TB, g *gatewayProcess, name string) int {
	t.Helper()
	sum, found := 0, false
	for line := range strings.Lines(metrics(g)) {
		if strings.HasPrefix(line, "pepay_gateway_"+name+"{") {
			sum += mustInt(t, strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]))
			found = true
		}
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return sum
}
