package downstream

import (
	"runtime"
	"sync"
)

const (
	// crewShare is how many sessions may be ready for each worker before there is
	// one more.
	crewShare = 8
	// crewHelp is how many sessions are served by who woke them. It has other
	// things to do: while they wait, more comes that can leave with the same write.
	crewHelp = 32
	// maxIdleReady bounds the list that is kept while nobody is ready.
	maxIdleReady = 4096
)

// A crew serves the sessions that have something to do, on few goroutines: what
// a delivery costs beside its write is waking one up. Those who wake many
// sessions serve them too, for they are awake. A turn never blocks. Safe for
// concurrent use.
type crew struct {
	most int // workers

	mu      sync.Mutex // guards the fields below
	ready   []*session // from next on
	next    int
	working int
}

// newCrew returns a crew of half the processors: what the kernel does with what
// is written takes the others.
func newCrew() *crew { return &crew{most: max(1, runtime.GOMAXPROCS(0)/2)} }

// add has s served soon. It does not block.
func (c *crew) add(s *session) {
	c.mu.Lock()
	if c.next > len(c.ready)/2 { // they may never all be served: the list must not grow for ever
		n := copy(c.ready, c.ready[c.next:])
		clear(c.ready[n:])
		c.ready, c.next = c.ready[:n], 0
	}
	c.ready = append(c.ready, s)
	hire := c.working == 0 || c.working < c.most && len(c.ready)-c.next > c.working*crewShare
	if hire {
		c.working++
	}
	c.mu.Unlock()
	if hire {
		go c.work()
	}
}

// during calls f, and then helps with what f has added.
func (c *crew) during(f func()) {
	c.mu.Lock()
	c.working++
	c.mu.Unlock()
	f()
	for range crewHelp {
		s := c.take()
		if s == nil {
			return
		}
		s.turn()
	}
	if c.leave() {
		go c.work() // in its place
	}
}

// leave ends the help of who woke sessions. It says whether a worker must take
// its place.
func (c *crew) leave() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next < len(c.ready) && c.working <= c.most {
		return true
	}
	c.working--
	return false
}

// work serves sessions until none is ready.
func (c *crew) work() {
	for s := c.take(); s != nil; s = c.take() {
		s.turn()
	}
}

// take returns the next session; nil ends the worker.
func (c *crew) take() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == len(c.ready) {
		c.working--
		if cap(c.ready) > maxIdleReady {
			c.ready = nil
		}
		c.ready, c.next = c.ready[:0], 0
		return nil
	}
	s := c.ready[c.next]
	c.ready[c.next] = nil
	c.next++
	return s
}
