package upstream

import "time"

// The ids that a sweep leaves out are bounded by their number, and to what one
// may list of: twice that is held.
const (
	maxRecent = 50_000
	recentAge = 2 * time.Minute
)

// recent holds the ids of the last events handed over. The zero value is empty.
type recent struct {
	young, old map[string]struct{}
	since      time.Time // when young was made
}

func (r *recent) add(id string, now time.Time) {
	if len(r.young) >= maxRecent || now.Sub(r.since) >= recentAge {
		r.old, r.young, r.since = r.young, make(map[string]struct{}), now
	}
	r.young[id] = struct{}{}
}

func (r *recent) has(id string) bool {
	if _, ok := r.young[id]; ok {
		return true
	}
	_, ok := r.old[id]
	return ok
}
