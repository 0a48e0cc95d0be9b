package downstream

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A toldList notes when parked sessions without a stream are told that something
// is due.
type toldList struct {
	server *Server

	mu   sync.Mutex // guards the field below
	told map[*session][]time.Time
}

func newToldList() *toldList {
	l := &toldList{server: &Server{crew: &crew{most: 1}}, told: make(map[*session][]time.Time)}
	l.server.wheel = newWheel(func(due func()) {
		l.mu.Lock()
		defer l.mu.Unlock()
		c := l.server.crew
		c.working = 1 // so that nobody is hired
		due()
		for s := c.take(); s != nil; s = c.take() {
			l.told[s] = append(l.told[s], time.Now())
		}
	})
	return l
}

// park returns a session that is to be told at t.
func (l *toldList) park(at time.Time) *session {
	s := &session{server: l.server}
	s.expires.Store(at.Add(time.Hour).UnixNano())
	l.again(s, at)
	return s
}

func (l *toldList) again(s *session, at time.Time) {
	s.setClock(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = true
}

// since returns when s was told, from began on.
func (l *toldList) since(s *session, began time.Time) (at []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.told[s] {
		at = append(at, t.Sub(began))
	}
	return at
}

// Everybody is told when something is due: once, not before its time, and at
// most a tick after it.
func TestWheelTellsOnceAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := newToldList(), time.Now()
		when := make(map[*session]time.Duration)
		for range 1000 {
			at := rand.N(30 * time.Second)
			when[l.park(began.Add(at))] = at
		}
		time.Sleep(10 * time.Second)
		for range 1000 { // others come while it turns, some of them too late
			at := 9*time.Second + rand.N(20*time.Second)
			when[l.park(began.Add(at))] = max(at, 10*time.Second)
		}
		time.Sleep(time.Minute)
		for s, at := range when {
			told := l.since(s, began)
			if len(told) != 1 || told[0] < at || told[0] > at+wheelTick {
				t.Fatalf("a session with something due at %v was told at %v, want once, within a tick", at, told)
			}
		}
		if n := len(l.server.wheel.slots); n != 0 {
			t.Errorf("the wheel keeps %d slots with nobody in them, want none", n)
		}
	})
}

// What is due may be moved: the earliest time counts, and one that was moved
// away is not told of.
func TestWheelFollowsWhatIsMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := newToldList(), time.Now()
		s := l.park(began.Add(20 * time.Second))
		s.setClock(began.Add(25 * time.Second)) // later: the earlier stands
		s.setClock(began.Add(5 * time.Second))
		time.Sleep(10 * time.Second)
		l.again(s, began.Add(30*time.Second)) // its first time, 20 s, is past by then
		time.Sleep(time.Minute)
		if got, want := l.since(s, began), []time.Duration{5 * time.Second, 30 * time.Second}; !slices.Equal(got, want) {
			t.Errorf("told at %v, want %v", got, want)
		}
	})
}
