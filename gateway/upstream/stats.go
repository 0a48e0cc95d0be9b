package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counters since New. They never go down.
type Stats struct {
	Frames      uint64 // read from the stream, of whatever kind
	Events      uint64 // handed to the sink, from stream and backfill
	Backfilled  uint64 // of Events, those from REST
	Swept       uint64 // of Backfilled, those the stream should have brought and did not
	Quarantined uint64 // frames and listed events that are no event we can carry
	Oversize    uint64 // of Quarantined, those beyond the size limit
	Unknown     uint64 // frames of a kind we do not know
	Controls    uint64 // ws_control frames
	Connects    uint64 // streams opened
	Reconnects  uint64 // attempts after a failure
	// Failures counts how connections and attempts ended, by reason as in Health.
	Failures map[string]uint64
}

type counters struct {
	frames, events, backfilled, swept, quarantined, oversize, unknown, controls, connects, reconnects atomic.Uint64

	failures [classes]atomic.Uint64
}

// Stats returns a copy of the counters.
func (s *Source) Stats() Stats {
	c := &s.count
	st := Stats{
		Frames: c.frames.Load(), Events: c.events.Load(), Backfilled: c.backfilled.Load(), Swept: c.swept.Load(),
		Quarantined: c.quarantined.Load(), Oversize: c.oversize.Load(), Unknown: c.unknown.Load(),
		Controls: c.controls.Load(), Connects: c.connects.Load(), Reconnects: c.reconnects.Load(),
		Failures: make(map[string]uint64, classes),
	}
	for i := range c.failures {
		st.Failures[class(i).reason()] += c.failures[i].Load()
	}
	return st
}

// A warner lets one warning pass in ten seconds and counts the others.
type warner struct {
	mu         sync.Mutex // guards the fields below
	last       time.Time
	suppressed int
}

func (w *warner) allow() (suppressed int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last.IsZero() && time.Since(w.last) < 10*time.Second {
		w.suppressed++
		return 0, false
	}
	suppressed, w.last, w.suppressed = w.suppressed, time.Now(), 0
	return suppressed, true
}

// maxKinds bounds how many unknown kinds of frame are remembered: the upstream
// names them.
const maxKinds = 32

// kinds remembers which unknown kinds of frame were logged. One goroutine uses it.
type kinds struct{ seen map[string]struct{} }

func (k *kinds) first(kind string) bool {
	if _, ok := k.seen[kind]; ok || len(k.seen) >= maxKinds {
		return false
	}
	if k.seen == nil {
		k.seen = make(map[string]struct{})
	}
	k.seen[kind] = struct{}{}
	return true
}
