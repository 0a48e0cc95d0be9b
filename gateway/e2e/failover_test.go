package e2e

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var failoverRounds = flag.Int("failover.rounds", 1, "how often each failover is measured")

// A pulse is an order every 20 ms, and a stream of them on each node.
type pulse struct {
	site    *site
	mu      sync.Mutex // guards sent
	sent    map[string]time.Time
	streams map[*siteNode]*stream
}

func startPulse(t testing.TB, s *site) *pulse {
	t.Helper()
	p := &pulse{site: s, sent: map[string]time.Time{}, streams: map[*siteNode]*stream{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			before := time.Now()
			if id, err := s.newOrder(ctx, "pulse"); err == nil {
				p.mu.Lock()
				p.sent[id] = before
				p.mu.Unlock()
			}
		}
	})
	return p
}

// watch opens a stream of the pulse on n.
func (p *pulse) watch(t testing.TB, n *siteNode) *stream {
	t.Helper()
	m, err := p.site.mint(t.Context(), n, map[string]any{"customer_id": "pulse"})
	if err != nil {
		t.Fatal(err)
	}
	s := openWS(t, "ws://"+n.listen+"/ws/commerce/events", m.Token, "snapshot=0")
	s.waitControl("replay_complete")
	return s
}

// resumed waits for the first order that was made after at, and returns how long
// after at it came.
func (p *pulse) resumed(t testing.TB, s *stream, at time.Time) time.Duration {
	t.Helper()
	var gap time.Duration
	from := 0
	eventually(t, 60*time.Second, "an event from after the failure", func() bool {
		items := s.all()
		for _, it := range items[from:] {
			if it.eventID == "" || !strings.Contains(it.event, "commerce.order.created") {
				continue
			}
			p.mu.Lock()
			sent, ok := p.sent[parsePayload(it.event).Data.Object.ID]
			p.mu.Unlock()
			if ok && sent.After(at) {
				gap = time.Since(at)
				return true
			}
		}
		from = max(0, len(items)-8) // the devnet's answer may come after the event
		return false
	})
	return gap
}

func printTimes(t testing.TB, what string, all []time.Duration) {
	t.Helper()
	slices.Sort(all)
	at := func(q float64) time.Duration {
		return all[min(len(all)-1, int(q*float64(len(all))))].Round(time.Millisecond)
	}
	fmt.Fprintf(&console{t: t}, "%-38s n %d, min %v, median %v, p99 %v, max %v\n", what, len(all), at(0), at(0.5), at(0.99), at(1))
}

// How long pages wait for news when who carries it fails. The bounds are those
// of docs/operations.md; a lease is 2 s here.
func TestFailoverTimes(t *testing.T) {
	t.Parallel()
	s := startSite(t, &console{t: t})
	p := startPulse(t, s)
	r := randOf(1)
	healthy := func() {
		t.Helper()
		eventually(t, 60*time.Second, "all nodes are live", s.allLive)
	}
	var killed, terminated []time.Duration
	for range *failoverRounds {
		healthy()
		leader, survivor := s.leader(r), s.follower(r)
		stream := p.watch(t, survivor)
		at := time.Now()
		leader.kill(t.Context(), 0)
		killed = append(killed, p.resumed(t, stream, at))
		stream.close()

		healthy()
		leader, survivor = s.leader(r), s.follower(r)
		stream = p.watch(t, survivor)
		old := leader.running()
		at = time.Now()
		old.signal(t, syscall.SIGTERM)
		// A leader keeps on leading during drain.delay, 200 ms here.
		at = at.Add(200 * time.Millisecond)
		terminated = append(terminated, p.resumed(t, stream, at))
		stream.close()
		<-old.done
		leader.start()
	}
	printTimes(t, "leader kill -9", killed)
	printTimes(t, "leader SIGTERM, after drain.delay", terminated)
	if *failoverRounds == 1 {
		return // figures of a busy machine; the news came
	}
	if got, want := slices.Max(killed), 4*time.Second; got > want {
		t.Errorf("after kill -9: news after %v, want at most %v", got, want)
	}
	if got, want := slices.Max(terminated), 500*time.Millisecond; got > want {
		t.Errorf("after SIGTERM: news after %v, want at most %v", got, want)
	}
}

func TestSentinelFailoverTimes(t *testing.T) {
	t.Parallel()
	red := startSentinels(t)
	s := startSiteOn(t, &console{t: t}, red.servers[0], red.url())
	p := startPulse(t, s)
	var all []time.Duration
	for range *failoverRounds {
		eventually(t, 60*time.Second, "all nodes are live", s.allLive)
		eventually(t, 60*time.Second, "both replicas follow", func() bool { return red.replicas(t.Context()) == 2 })
		stream := p.watch(t, s.nodes[0])
		at := time.Now()
		if err := red.killPrimary(t.Context(), t); err != nil {
			t.Fatal(err)
		}
		all = append(all, p.resumed(t, stream, at))
		stream.close()
	}
	printTimes(t, "Redis primary kill -9, with Sentinel", all)
}
