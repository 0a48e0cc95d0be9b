package upstream

import (
	"context"
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

// arm sets t to when the next sweep is due.
func (r *run) arm(t *time.Timer, pending []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Stop()
	var at time.Time
	if len(pending) > 0 {
		at = r.opened.Add(pending[0])
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
	mark     gateway.UpstreamCursor // what the stream had brought when it began
	found    chan []entry
	done     chan error
}

// nextSweep makes the sweep that is due and returns the ones still pending.
func (r *run) nextSweep(ctx context.Context, st *stream, pending []time.Duration) (*sweep, []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	j := &sweep{found: make(chan []entry), done: make(chan error, 1), mark: r.newest}
	j.backfill = &backfill{
		Source: r.Source, floor: r.floor,
		found: func(bool) error { return nil },
		hand:  func(es []entry) error { return j.hand(ctx, es) },
		again: func(f *failure) error { return unlessEnded(st, f) },
		has:   r.handed,
	}
	if r.debt != nil && !now.Before(r.debt.due) {
		j.debt, r.debt = r.debt, nil
		r.paying, r.paidAt = true, now
		from := r.cursor
		j.backfill.from = from
		if !from.IsZero() {
			j.backfill.floor = max(from.Created-int64(r.tune.overlap/time.Second), 0)
		}
		if j.debt.truncated {
			none := func() []frame { return nil }
			j.backfill.found = func(met bool) error { return r.prove(ctx, met, from, none) }
		}
		return j, pending
	}
	due := 0
	for due < len(pending) && !now.Before(r.opened.Add(pending[due])) {
		due++
	}
	if due == 0 {
		return &sweep{}, pending
	}
	return j, pending[due:]
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
