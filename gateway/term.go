package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A term is one leadership of this node.
type term struct {
	Term
	in    *Ingest
	queue *queue
	links *links
	beat  chan struct{} // cap 1: renew now, the health changed
	acked uint64        // touched by the appending goroutine only

	elsewhere time.Time // since when others alone reach the upstream; touched by the renewing goroutine only

	mu       sync.Mutex // guards the fields below
	health   Health
	reported *Health   // the last one; live waits in the queue before it becomes health
	failing  time.Time // since when appends fail; zero while they do not
	tries    int       // dials since the upstream was last within reach
}

// flush waits until the queue is appended, for a bounded time.
func (t *term) flush(ctx context.Context) {
	done := make(chan struct{})
	_ = t.queue.put(ctx, work{looked: &lookup{flushed: done}}, true)
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// renewLoop keeps the lease and publishes the health with it. Past the deadline,
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
		case errors.Is(err, ErrFenced), errors.Is(err, ErrHistoryLost):
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
	return t.in.log.Renew(ctx, t.Term, t.in.cfg.Lease, t.currentHealth())
}

// Confirm implements SourceSink.
func (t *term) Confirm(ctx context.Context) error {
	t.mu.Lock()
	t.tries++
	t.mu.Unlock()
	return t.renew(ctx)
}

// Put implements SourceSink.
func (t *term) Put(ctx context.Context, arrivals ...Arrival) error {
	for i := range arrivals {
		ev := &arrivals[i].Event
		if ms := int64(ev.Version.Millis); ms > 0 {
			t.in.Lag.Upstream.Observe(time.Duration(ev.Received-ms) * time.Millisecond)
		}
		if err := t.queue.put(ctx, work{arrival: arrivals[i]}, false); err != nil {
			return err
		}
	}
	return nil
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
		_ = t.queue.put(context.Background(), work{health: &h}, true)
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

// appendLoop writes what is queued, one batch in flight: with two, a failed one
// would be skipped.
func (t *term) appendLoop(ctx context.Context) error {
	for {
		batch, err := t.queue.take(ctx)
		if err != nil {
			return err
		}
		if err := t.appendBatch(ctx, batch); err != nil {
			return err
		}
	}
}

func (t *term) appendBatch(ctx context.Context, batch []work) error {
	if err := t.links.load(ctx, t.in.log, batch); err != nil {
		return err
	}
	var out outcome
	for i := range batch {
		t.links.fill(&batch[i], t.Epoch, &out)
	}
	if len(out.records) > 0 || !out.cursor.IsZero() {
		r, err := t.send(ctx, out.records, out.cursor)
		if err != nil {
			return err
		}
		t.acked = r.Seq
		t.in.appended.Add(int64(r.Added))
		t.in.duplicates.Add(int64(r.Duplicates))
		t.account(&out)
	}
	for i := range batch {
		if h := batch[i].health; h != nil {
			t.setHealth(h)
		}
		if l := batch[i].looked; l != nil && l.flushed != nil {
			close(l.flushed)
		}
	}
	return nil
}

// send appends until the outcome is known. After an error it is not, and the
// same bytes go again: any other cut could name two events alike.
func (t *term) send(ctx context.Context, records []Record, c UpstreamCursor) (Appended, error) {
	began, wait := time.Now(), retryMin
	defer t.setFailing(time.Time{})
	for {
		cctx, cancel := context.WithTimeout(ctx, commandTimeout)
		r, err := t.in.log.Append(cctx, t.Term, t.acked, records, c)
		cancel()
		switch {
		case err == nil:
			return r, nil
		case ctx.Err() != nil:
			return r, context.Cause(ctx)
		case errors.Is(err, ErrFenced), errors.Is(err, ErrRewound), errors.Is(err, ErrHistoryLost):
			return r, err
		}
		t.in.out.Debug("append", "err", err)
		if time.Since(began) >= staleAfter {
			t.setFailing(began)
		}
		sleep(ctx, jitter(wait))
		wait = min(2*wait, retryMax)
	}
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
