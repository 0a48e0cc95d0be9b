package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A term is one leadership of this node.
type term struct {
	Term
	in    *Ingest
	queue *queue
	links *links
	beat  chan struct{} // cap 1: renew now, the health changed

	turn   chan struct{} // cap 1: held by who appends, and with it links and the fields below
	flight *flight       // nil when all that was taken is appended
	room   flight        // for flight, which is made only once
	acked  atomic.Uint64 // written by who has the turn

	elsewhere time.Time // since when others alone reach the upstream; touched by the renewing goroutine only

	mu       sync.Mutex // guards the fields below
	health   Health
	reported *Health   // the last one; live waits in the queue before it becomes health
	failing  time.Time // since when appends fail; zero while they do not
	tries    int       // dials since the upstream was last within reach
}

func newTerm(in *Ingest, t Term) *term {
	begun := &term{
		Term: t, in: in, queue: newQueue(), links: newLinks(), beat: make(chan struct{}, 1),
		turn:   make(chan struct{}, 1),
		health: Health{State: CatchingUp, Reason: "starting", Since: time.Now()},
	}
	begun.acked.Store(t.Seq)
	return begun
}

// flush waits until the queue is appended, for a bounded time.
func (t *term) flush(ctx context.Context) {
	done := make(chan struct{})
	t.force(work{looked: &lookup{flushed: done}})
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// renewLoop keeps the lease and publishes the health with it. It also notices a
// log that was rewound, which with nothing to append nobody else would. Past the deadline,
// by our own clock, the term is over: the source must be gone before another
// node dials, so no call outlasts it. (That is politeness; what protects the log
// is the fence.)
func (t *term) renewLoop(ctx context.Context, asked time.Time) error {
	every := min(t.in.cfg.Lease/3, ringEvery)
	good := t.in.cfg.Lease - t.in.cfg.Lease/6
	deadline := asked.Add(good)
	wait := time.Duration(0)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-t.beat:
			timer.Stop()
		case <-timer.C:
		}
		sent := time.Now()
		rctx, cancel := context.WithDeadline(ctx, deadline)
		err := t.renew(rctx)
		cancel()
		switch {
		case err == nil:
			if t.cutOff() {
				return errCutOff
			}
			deadline, wait = sent.Add(good), every
			continue
		case errors.Is(err, ErrFenced), errors.Is(err, ErrHistoryLost), errors.Is(err, ErrRewound):
			return err
		case !time.Now().Before(deadline):
			return fmt.Errorf("gateway: lease not renewed in time: %w", err)
		}
		wait = min(retryMin, every, time.Until(deadline))
	}
}

func (t *term) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(commandTimeout, t.in.cfg.Lease/3))
	defer cancel()
	return t.in.log.Renew(ctx, t.Term, t.acked.Load(), t.in.cfg.Lease, t.currentHealth())
}

// Confirm implements SourceSink.
func (t *term) Confirm(ctx context.Context) error {
	t.mu.Lock()
	t.tries++
	t.mu.Unlock()
	return t.renew(ctx)
}

// Put implements SourceSink.
func (t *term) Put(ctx context.Context, more bool, arrivals ...Arrival) error {
	for i := range arrivals {
		ev := &arrivals[i].Event
		if ms := int64(ev.Version.Millis); ms > 0 {
			t.in.Lag.Upstream.Observe(time.Duration(ev.Received-ms) * time.Millisecond)
		}
		if err := t.queue.put(ctx, work{arrival: arrivals[i]}, false); err != nil {
			return err
		}
	}
	if more {
		signal(t.queue.fed)
	} else {
		t.appendHere(ctx)
	}
	return nil
}

// force queues w, however full the queue is.
func (t *term) force(w work) {
	_ = t.queue.put(context.Background(), w, true) // fails only where it waits
	signal(t.queue.fed)
}

// Report implements SourceSink. Live holds once everything before it is appended.
func (t *term) Report(h Health) {
	t.mu.Lock()
	t.reported = &h
	reached := h.State != Stale
	if reached {
		t.tries = 0
	}
	t.mu.Unlock()
	if reached {
		t.in.setStoodAside(time.Time{})
	}
	if h.State == Live {
		t.force(work{health: &h})
		return
	}
	t.setHealth(&h)
}

// setHealth makes h hold, unless something else was reported since: a late live
// must not hide that the upstream went down meanwhile.
func (t *term) setHealth(h *Health) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reported == h {
		t.health = *h
		signal(t.beat)
	}
}

// setFailing notes since when appends fail. What arrives then reaches nobody, so
// the stream is stale however well the upstream does.
func (t *term) setFailing(since time.Time) {
	t.mu.Lock()
	changed := t.failing != since
	t.failing = since
	t.mu.Unlock()
	if changed {
		signal(t.beat)
	}
}

func (t *term) currentHealth() Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.failing.IsZero() {
		return Health{State: Stale, Reason: "append_failing", Since: t.failing}
	}
	since := t.in.asks.failingSince()
	if t.health.State == Live && !since.IsZero() && time.Since(since) >= lookupsStale {
		// Events whose customer is not known wait for these look-ups.
		return Health{State: CatchingUp, Reason: "lookups_failing", Since: since}
	}
	return t.health
}

// appendLoop appends what nobody else does.
func (t *term) appendLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.queue.fed:
		}
		for wait := retryMin; ; wait = min(2*wait, retryMax) {
			select {
			case t.turn <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			err := t.appendQueued(ctx)
			<-t.turn
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, ErrFenced) || errors.Is(err, ErrRewound) || errors.Is(err, ErrHistoryLost) {
				return err
			}
			t.in.out.Debug("append", "err", err)
			sleep(ctx, jitter(wait))
		}
	}
}

// appendHere appends what is queued on the caller's goroutine, which saves waking
// another for it. What does not succeed at once is left to appendLoop.
func (t *term) appendHere(ctx context.Context) {
	select {
	case t.turn <- struct{}{}:
	default:
		signal(t.queue.fed) // whoever is at it may have looked before
		return
	}
	var err error
	if t.flight == nil { // else appendLoop repeats it, in its own time
		err = t.appendQueued(ctx)
	}
	<-t.turn
	if err != nil {
		signal(t.queue.fed)
	}
}

// appendQueued writes what is queued, one batch in flight: with two, a failed one
// would be skipped. After an error the batch waits for the next call.
func (t *term) appendQueued(ctx context.Context) error {
	for {
		if t.flight == nil {
			if t.room.batch = t.queue.take(t.room.batch); len(t.room.batch) == 0 {
				return nil
			}
			t.flight = &t.room
			t.flight.began = time.Now()
		}
		if err := t.appendFlight(ctx, t.flight); err != nil {
			if time.Since(t.flight.began) >= staleAfter {
				t.setFailing(t.flight.began)
			}
			return err
		}
		t.flight.land()
		t.flight = nil
		t.setFailing(time.Time{})
	}
}

// A flight is a batch on its way into the log. Its outcome is not known until an
// append succeeds, and until then the same bytes go again: any other cut could
// name two events alike.
type flight struct {
	batch  []work
	began  time.Time
	filled bool // out is what the batch becomes
	out    outcome
}

// land makes f ready for the next batch. It must not keep the events of this one.
func (f *flight) land() {
	clear(f.batch)
	clear(f.out.records)
	clear(f.out.unrouted)
	*f = flight{batch: f.batch[:0], out: outcome{records: f.out.records[:0], unrouted: f.out.unrouted[:0]}}
}

func (t *term) appendFlight(ctx context.Context, f *flight) error {
	if !f.filled {
		if err := t.links.load(ctx, t.in.log, f.batch); err != nil {
			return err
		}
		for i := range f.batch {
			t.links.fill(&f.batch[i], t.Epoch, &f.out)
		}
		f.filled = true
	}
	if len(f.out.records) > 0 || !f.out.cursor.IsZero() {
		if err := t.send(ctx, f); err != nil {
			return err
		}
	}
	for i := range f.batch {
		if h := f.batch[i].health; h != nil {
			t.setHealth(h)
		}
		if l := f.batch[i].looked; l != nil && l.flushed != nil {
			close(l.flushed)
		}
	}
	return nil
}

// send appends f and hands it out.
func (t *term) send(ctx context.Context, f *flight) error {
	r, err := t.in.log.Append(ctx, t.Term, t.acked.Load(), f.out.records, f.out.cursor)
	if err != nil {
		return err
	}
	t.acked.Store(r.Seq)
	t.links.fronts.appended(f.out.records, r.Duplicates)
	t.in.appended.Add(int64(r.Added))
	t.in.duplicates.Add(int64(r.Duplicates))
	t.account(&f.out)
	t.in.cfg.OnAppend(Announcement{Epoch: t.Epoch, From: r.Seq - uint64(len(r.Entries)), Entries: r.Entries})
	return nil
}

// account counts what was appended and has the unrouted looked up.
func (t *term) account(out *outcome) {
	now := time.Now().UnixMilli()
	for i := range out.records {
		if ev := out.records[i].Event; ev != nil {
			t.in.Lag.Append.Observe(time.Duration(now-ev.Received) * time.Millisecond)
		}
	}
	t.in.conflicts.Add(int64(out.conflicts))
	t.in.unrouted.Add(int64(len(out.unrouted)))
	for _, l := range out.unrouted {
		t.in.asks.add(l)
	}
}
