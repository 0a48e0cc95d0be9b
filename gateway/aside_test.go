package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A path is one node's way to the upstream, which may end or be refused.
type path struct {
	*upstream

	mu     sync.Mutex // guards the fields below
	reason string     // why there is none; "" when there is
	cancel context.CancelFunc
}

func (p *path) set(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reason = reason
	if p.cancel != nil {
		p.cancel()
	}
}

func (p *path) Run(ctx context.Context, from UpstreamCursor, sink SourceSink) error {
	said := ""
	for ctx.Err() == nil {
		if err := sink.Confirm(ctx); err != nil {
			return err
		}
		p.mu.Lock()
		reason := p.reason
		open, cancel := context.WithCancel(ctx)
		p.cancel = cancel
		p.mu.Unlock()
		if reason == "" {
			said = ""
			if err := p.upstream.Run(open, from, sink); open.Err() == nil {
				cancel()
				return err
			}
		} else if said != reason {
			said = reason
			sink.Report(Health{State: Stale, Reason: reason, Since: time.Now()})
		}
		cancel()
		sleep(ctx, time.Second)
	}
	return context.Cause(ctx)
}

// asiders starts n nodes, of which the first leads. Each takes elsewhere's word
// for what the others reach.
func asiders(t *testing.T, n int, elsewhere func() bool) (*memLog, *upstream, []*member, []*path) {
	t.Helper()
	l, u := newMemLog(), newUpstream()
	var members []*member
	var paths []*path
	for range n {
		p := &path{upstream: u}
		m := startMemberWith(t, l, p, IngestConfig{Lease: testLease, Elsewhere: elsewhere})
		members, paths = append(members, m), append(paths, p)
		leaderOf(t, time.Second, members[0])
	}
	return l, u, members, paths
}

func terms(members []*member) (n int64) {
	for _, m := range members {
		n += m.in.Stats().Terms
	}
	return n
}

func yes() bool { return true }

func TestLeaderThatAloneIsCutOffStandsAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u, members, paths := asiders(t, 3, yes)
		u.emit(someEvents(0, 100)...)
		time.Sleep(5 * time.Second)
		paths[0].set(ReasonUpstreamDown)
		cut := time.Now()
		u.emit(someEvents(100, 100)...)
		next := leaderOf(t, 30*time.Second, members[1:]...)
		if d := time.Since(cut); d < awayLimit || d > awayLimit+3*time.Second {
			t.Errorf("another leads %v after the cut, want soon after %v", d, awayLimit)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantAll(t, l, u)
		if next.in.Leading() == "" || terms(members) != 2 || members[0].in.Stats().Aside != 1 {
			t.Errorf("%d terms, stood aside %d times, want 2 and once", terms(members), members[0].in.Stats().Aside)
		}
		if _, most := u.connections(); most != 1 {
			t.Errorf("%d connections at once, want 1", most)
		}

		// Well again, it leads as any other.
		paths[0].set("")
		for _, m := range members[1:] {
			m.crash()
		}
		leaderOf(t, testLease+contendEvery, members[0])
		u.emit(someEvents(200, 100)...)
		synctest.Wait()
		wantAll(t, l, u)
	})
}

func TestLeaderThatStoodAsideLeadsWhenNobodyElseDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, members, paths := asiders(t, 2, yes)
		paths[0].set(ReasonUpstreamDown)
		next := leaderOf(t, 30*time.Second, members[1])
		time.Sleep(testLease / 2)
		next.crash()
		leaderOf(t, 3*testLease, members[0])
	})
}

func TestUpstreamDownForEverybodyMovesNobody(t *testing.T) {
	for name, tc := range map[string]struct {
		reason    string
		elsewhere func() bool
		most      int64 // terms within ten minutes, of three nodes
	}{
		"and they know":      {ReasonUpstreamDown, func() bool { return false }, 1},
		"nobody to ask":      {ReasonUpstreamDown, nil, 1},
		"refused":            {"upstream_auth", yes, 1},
		"all think they can": {ReasonUpstreamDown, yes, 8}, // each once in asideAgain
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, members, paths := asiders(t, 3, tc.elsewhere)
				for _, p := range paths {
					p.set(tc.reason)
				}
				time.Sleep(10 * time.Minute)
				if n := terms(members); n > tc.most {
					t.Errorf("%d terms in ten minutes, want at most %d", n, tc.most)
				}
				for _, p := range paths {
					p.set("")
				}
				leaderOf(t, 2*testLease, members...)
			})
		})
	}
}

// An upstream that comes back is seen by the others first, for they wait less.
func TestUpstreamThatComesBackForEverybodyMovesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Bool
		_, _, members, paths := asiders(t, 2, back.Load)
		for range 3 {
			paths[0].set(ReasonUpstreamDown)
			time.Sleep(time.Minute)
			back.Store(true)
			time.Sleep(elsewhereFor - 2*time.Second)
			paths[0].set("")
			back.Store(false)
			time.Sleep(10 * time.Second)
		}
		if n := terms(members); n != 1 {
			t.Errorf("%d terms, want 1", n)
		}
	})
}

func TestUpstreamAwayForAMomentMovesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, members, paths := asiders(t, 2, yes)
		for range 10 {
			paths[0].set(ReasonUpstreamDown)
			time.Sleep(awayLimit - 2*time.Second)
			paths[0].set("")
			time.Sleep(5 * time.Second)
		}
		if n := terms(members); n != 1 {
			t.Errorf("%d terms, want 1", n)
		}
	})
}
