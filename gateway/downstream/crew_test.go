package downstream

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// A turnSink counts those who serve one session, and all sessions, at a time.
type turnSink struct {
	listSink
	all    *turns
	inside atomic.Int32
	turns  atomic.Int64
	ended  atomic.Int32
}

type turns struct {
	working, most atomic.Int32
	doubled       atomic.Int64
}

// flush is called once in every turn at least.
func (c *turnSink) flush(bool) error {
	if c.inside.Add(1) > 1 {
		c.all.doubled.Add(1)
	}
	n := c.all.working.Add(1)
	for most := c.all.most.Load(); n > most && !c.all.most.CompareAndSwap(most, n); most = c.all.most.Load() {
	}
	runtime.Gosched()
	c.all.working.Add(-1)
	c.inside.Add(-1)
	c.turns.Add(1)
	return nil
}

func (c *turnSink) finish(*session, *ending) { c.ended.Add(1) }

// parkedSessions are sessions that are live and wait.
func (v *still) parkedSessions(n int, all *turns) (sessions []*session, sinks []*turnSink) {
	v.Helper()
	for range n {
		to := &turnSink{all: all}
		s := v.server.newSession(&admission{
			transport: gateway.SSE, ip: netip.IPv6Loopback(), controls: true,
			grant: grant{scope: gateway.Scope{Account: true}, sessions: time.Now().Add(time.Hour)},
		}, to)
		if p := v.server.streams.add(s); p != nil {
			v.Fatalf("add = %v, want nil", p.code)
		}
		sessions, sinks = append(sessions, s), append(sinks, to)
	}
	for _, s := range sessions {
		eventually(v, "every session is parked", s.waits)
	}
	return sessions, sinks
}

func (s *session) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parked && !s.rung
}

// However many wake sessions, and whichever: few serve them, one each at a time,
// and nobody is forgotten.
func TestCrewConcurrentUse(t *testing.T) {
	v := startStill(t)
	all := &turns{}
	sessions, sinks := v.parkedSessions(200, all)
	all.most.Store(0)
	const wakers = 4
	var wg sync.WaitGroup
	for w := range wakers {
		wg.Go(func() {
			for i := range 2_000 {
				s := sessions[(i*7+w*13)%len(sessions)]
				if w == 0 {
					v.server.crew.during(s.wake)
					continue
				}
				s.wake()
			}
		})
	}
	wg.Wait()
	for i, s := range sessions {
		before := sinks[i].turns.Load()
		s.wake()
		eventually(t, "a session that was woken has its turn", func() bool { return sinks[i].turns.Load() > before })
	}
	if n := all.doubled.Load(); n != 0 {
		t.Errorf("%d times two goroutines served one session, want never", n)
	}
	if got, want := all.most.Load(), int32(v.server.crew.most+1); got > want {
		t.Errorf("%d served sessions at a time, want at most %d and the one that wakes them", got, want-1)
	}
	eventually(t, "the crew has gone home", func() bool {
		c := v.server.crew
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.working == 0 && len(c.ready) == 0
	})
	for _, s := range sessions {
		s.end(errClientGone)
	}
	eventually(t, "all have ended", func() bool { return len(v.server.streams.drain()) == 0 })
	for i, to := range sinks {
		if n := to.ended.Load(); n != 1 {
			t.Errorf("stream %d ended %d times, want once", i, n)
		}
	}
}

// The list of those who are ready is as long as many wait, not as many have ever
// waited: a node at its limit never sees it empty.
func TestCrewThatNeverRestsKeepsNoList(t *testing.T) {
	c := &crew{working: 1, most: 1} // the test is the worker
	s := &session{}
	for range 10 {
		c.add(s)
	}
	for range 100_000 {
		c.add(s)
		if c.take() == nil {
			t.Fatal("take() = nil with ten ready, want one")
		}
	}
	if n := cap(c.ready); n > 1000 {
		t.Errorf("room for %d in the list of ten, want no more than a few times that", n)
	}
	for range 10 {
		if c.take() == nil {
			t.Fatal("take() = nil, want what was added")
		}
	}
	if c.take() != nil || c.working != 0 {
		t.Errorf("a worker too many, or %d left; want none", c.working)
	}
}
