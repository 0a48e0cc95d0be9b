package upstream

import (
	"context"
	"slices"
	"time"

	"pepay-gateway/gateway"
)

// A debt is a backfill that a control frame called for. Until it is paid the
// cursor stands still, so that a successor of this node would do it too.
type debt struct {
	truncated bool
	due       time.Time
}

// owe notes that a control frame came. Whatever it meant, a backfill from the
// cursor is a safe answer.
func (r *run) owe(truncated bool) {
	if r.debt == nil {
		r.debt = &debt{due: time.Now()}
		if !r.paidAt.IsZero() {
			r.debt.due = r.paidAt.Add(r.tune.controlEvery)
		}
	}
	r.debt.truncated = r.debt.truncated || truncated
}

// A look is owed: REST may show an event later than it happened, so what lies
// behind floor is listed once more, not before that time.
type look struct {
	at    time.Time
	floor int64 // unix seconds
}

// lookAgain owes the looks that follow a listing from floor.
func (r *run) lookAgain(after time.Time, floor int64) {
	for _, d := range r.tune.sweeps {
		r.looks = append(r.looks, look{after.Add(d), floor})
	}
}

// lowest is where a listing that does for all looks, and for floor, begins.
func (r *run) lowest(floor int64) int64 {
	for _, l := range r.looks {
		floor = min(floor, l.floor)
	}
	return floor
}

// had drops the looks that a listing from the lowest floor does for, which began then.
func (r *run) had(began time.Time) {
	r.looks = slices.DeleteFunc(r.looks, func(l look) bool { return !l.at.After(began) })
}

// owes takes back the looks of a sweep that did not end well.
func (r *run) owes(j *sweep) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks = append(r.looks, j.looks...)
}

// arm sets t to when the next sweep is due.
func (r *run) arm(t *time.Timer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Stop()
	var at time.Time
	for _, l := range r.looks {
		if at.IsZero() || l.at.Before(at) {
			at = l.at
		}
	}
	if r.debt != nil && (at.IsZero() || r.debt.due.Before(at)) {
		at = r.debt.due
	}
	if !at.IsZero() {
		t.Reset(time.Until(at))
	}
}

// A sweep is a backfill beside the live stream. What it lists goes to the log
// without a cursor: the stream's own is further on.
type sweep struct {
	backfill *backfill
	debt     *debt                  // that it pays, or nil
	looks    []look                 // that it is
	mark     gateway.UpstreamCursor // what the stream had brought when it began
	found    chan []entry
	done     chan error
}

// nextSweep makes the sweep that is due, if one is.
func (r *run) nextSweep(ctx context.Context, st *stream) *sweep {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	j := &sweep{found: make(chan []entry), done: make(chan error, 1), mark: r.newest}
	j.backfill = &backfill{
		Source: r.Source,
		found:  func(bool) error { return nil },
		hand:   func(es []entry) error { return j.hand(ctx, es) },
		again:  func(f *failure) error { return unlessEnded(st, f) },
		has:    r.handed,
	}
	if r.debt != nil && !now.Before(r.debt.due) {
		j.debt, r.debt = r.debt, nil
		r.paying, r.paidAt = true, now
		from := r.cursor
		floor := r.floor
		if !from.IsZero() {
			floor = max(from.Created-int64(r.tune.overlap/time.Second), 0)
		}
		j.backfill.from, j.backfill.floor, r.floor = from, floor, min(r.floor, floor)
		if j.debt.truncated {
			j.backfill.found = func(met bool) error {
				_, err := r.prove(ctx, met, from, func() []frame { return nil })
				return err
			}
		}
		r.lookAgain(now, floor) // what is missing may not be listed yet
		return j
	}
	later := r.looks[:0:0]
	for _, l := range r.looks {
		if now.Before(l.at) {
			later = append(later, l)
			continue
		}
		if len(j.looks) == 0 || l.floor < j.backfill.floor {
			j.backfill.floor = l.floor
		}
		j.looks = append(j.looks, l)
	}
	if len(j.looks) == 0 {
		return &sweep{}
	}
	j.backfill.floor = max(j.backfill.floor, 0)
	r.looks = later
	return j
}

func (j *sweep) run(ctx context.Context) {
	_, err := j.backfill.runTwice(ctx)
	j.done <- err
}

func (j *sweep) hand(ctx context.Context, entries []entry) error {
	select {
	case j.found <- entries:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle ends a sweep. The cursor moves up to what the stream had brought when
// the sweep began, or, with no other debt since, to all of it.
func (r *run) settle(j *sweep, err error) error {
	if err != nil || j.debt == nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paying = false
	r.cursor = j.mark
	if r.debt == nil {
		r.cursor = r.newest
	}
	return nil
}

// handed says whether this connection has handed an event over already.
func (r *run) handed(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recent.has(id)
}

// putSwept hands over what this connection has not handed over already. That
// only spares the log some work; it is the log that dedupes.
func (r *run) putSwept(ctx context.Context, entries []entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	missed := entries[:0]
	for _, e := range entries {
		if !r.recent.has(e.ID) {
			missed = append(missed, e)
		}
	}
	r.count.backfilled.Add(uint64(len(missed)))
	r.count.swept.Add(uint64(len(missed)))
	return r.put(ctx, missed, true, true, func(entry) gateway.UpstreamCursor { return gateway.UpstreamCursor{} })
}
