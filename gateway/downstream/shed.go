package downstream

import (
	"slices"
	"time"
)

const (
	// slowestAfter is how long a stream must have been at one thing to be taken
	// for slow.
	slowestAfter = time.Second
	// slowestPart of the streams is closed at once, at most, and one.
	slowestPart = 50
)

// SetShort refuses new streams while memory is short, as for want of room.
func (s *Server) SetShort(short bool) { s.streams.short.Store(short) }

// CloseSlowest ends the streams that have been busy with one write or replay for
// the longest, a few at a time: what they hold in memory waits for a client that
// does not take it. Each is told to come back, if it listens, and cut the next
// time it is found here.
func (s *Server) CloseSlowest() {
	for _, slow := range s.streams.slowest(time.Now()) {
		if slow.ctx.Err() != nil {
			slow.sink.abort()
			continue
		}
		s.counts.shed.Add(1)
		slow.end(turnedAway(errOverloaded))
	}
}

// slowest returns the streams that have been busy for the longest.
func (r *registry) slowest(now time.Time) []*session {
	type busy struct {
		s     *session
		since int64
	}
	limit := now.Add(-slowestAfter).UnixNano()
	var all []busy
	r.mu.Lock()
	for s := range r.sessions {
		if since := s.busy.Load(); since != 0 && since <= limit {
			all = append(all, busy{s, since})
		}
	}
	most := 1 + len(r.sessions)/slowestPart
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b busy) int { return int(a.since - b.since) })
	var out []*session
	for _, b := range all[:min(most, len(all))] {
		out = append(out, b.s)
	}
	return out
}
