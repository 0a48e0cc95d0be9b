package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"pepay-gateway/gateway"
)

// poisonLimit is how often a frame beyond the read limit may end the stream
// at one cursor. After that we dial without since: the backfill, which steps
// over such events one by one, covers what the replay would have brought.
const poisonLimit = 3

var errUnproven = errors.New("upstream: continuity not proven")

// A run is one call of Run. All of it belongs to that goroutine, but while a
// stream is live: then who reads its frames handles them, which saves waking
// another, and the two take turns by mu.
type run struct {
	*Source
	mu     sync.Mutex // held while events are handed over: the other waits, as the upstream does
	failed error      // why handling a frame ended the stream
	sink   gateway.SourceSink
	health gateway.Health
	opened time.Time // of this connection; zero until it is open
	away   bool      // the upstream did not answer when last looked for

	cursor    gateway.UpstreamCursor // the last one handed to sink
	newest    gateway.UpstreamCursor // of the last event from the stream, while something holds cursor back
	floor     int64                  // nothing older is listed by this connection
	coldTime  int64                  // where a run without cursor starts; fixed by its first connection
	bare      bool                   // the log had no cursor
	began     int64                  // when the log's history began, as far as is known; else 0
	noted     bool                   // the log knows of that
	afresh    bool                   // the stream replays nothing: what it brings happens now
	clock     time.Time              // the upstream's; zero if it does not say
	clockAt   time.Time              // when it said so
	odd       string                 // the last event of the stream, if it was ahead of that
	odds      []string               // such events
	furthest  int64                  // the newest second that the cursor has been at
	replaying bool                   // the replay alone proves continuity, and is not handed over yet
	looks     []look                 // still to be had
	recent    recent

	debt   *debt     // owed and not begun
	paying bool      // a sweep that pays one is under way
	paidAt time.Time // when the last one began

	entries  []entry           // for handle, of no use but to be used again
	arrivals []gateway.Arrival // likewise, for put

	poison   int // frames beyond the limit at
	poisonAt string
}

func newRun(s *Source, from gateway.UpstreamCursor, sink gateway.SourceSink) *run {
	r := &run{Source: s, sink: sink, cursor: from, newest: from, bare: from.IsZero(), began: from.Began, noted: true}
	r.cursor.Began, r.newest.Began = 0, 0
	r.furthest = from.Created
	if n := len(s.tune.sweeps); n > 0 && !from.IsZero() {
		// Whoever led before may have ended short of its last look.
		r.looks = []look{{floor: from.Created - int64((s.tune.overlap+s.tune.sweeps[n-1])/time.Second)}}
	}
	return r
}

func (r *run) report(state gateway.State, reason string) {
	if r.health.State == state && r.health.Reason == reason {
		return
	}
	r.health = gateway.Health{State: state, Reason: reason, Since: time.Now()}
	r.sink.Report(r.health)
}

// noteOversize counts frames that end the stream at the same cursor.
func (r *run) noteOversize(f *failure) {
	if r.cursor.ID != r.poisonAt {
		r.poison, r.poisonAt = 0, r.cursor.ID
	}
	if f.oversize {
		r.poison++
		r.count.quarantined.Add(1)
		r.count.oversize.Add(1)
	}
}

// connectOnce is the life of one connection. The error is a *failure when
// another may follow.
func (r *run) connectOnce(ctx context.Context) error {
	if err := r.sink.Confirm(ctx); err != nil {
		return err
	}
	st, now, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	r.opened, r.failed = time.Now(), nil
	r.count.connects.Add(1)
	r.recent = recent{}
	r.debt, r.paying, r.paidAt = nil, false, time.Time{} // the cursor stood still, so catching up pays
	r.replaying = false                                  // likewise
	r.report(gateway.CatchingUp, "backfill")
	if err := r.catchUp(ctx, st, now); err != nil {
		return err
	}
	return r.live(ctx, st)
}

// open mints and dials. It returns the time by the upstream's clock, or by ours
// when it does not say, and notes which.
func (r *run) open(ctx context.Context) (*stream, time.Time, error) {
	token, now := secret{}, time.Time{}
	if !r.byKey {
		var err error
		if token, now, err = r.mint(ctx); err != nil {
			return nil, now, err
		}
	}
	if err := r.setClock(now); err != nil {
		return nil, now, err
	}
	since := r.cursor.ID
	if r.poison >= poisonLimit && r.poisonAt == since {
		since = ""
	}
	r.afresh = since == ""
	st, date, err := r.dial(ctx, token, since)
	if err != nil {
		return nil, now, err
	}
	if date.After(now) { // of hosts whose clocks differ
		now = date
	}
	if err := r.setClock(now); err != nil {
		st.close()
		return nil, now, err
	}
	if now.IsZero() {
		now = time.Now()
	}
	return st, now, nil
}

// setClock notes what the upstream's clock says. A cursor of days later is no place
// in the stream: nobody knows where it was.
func (r *run) setClock(now time.Time) error {
	if now.IsZero() {
		return nil
	}
	r.clock, r.clockAt = now, time.Now()
	r.furthest = min(r.furthest, now.Unix())
	if r.cursor.Created > now.Add(farFuture).Unix() {
		r.log.Error("the log's cursor is ahead of the upstream's clock", "cursor_created", r.cursor.Created)
		return gateway.ErrGap
	}
	return nil
}

// catchUp hands over what REST has since the cursor, while st holds what the
// stream brings.
func (r *run) catchUp(ctx context.Context, st *stream, now time.Time) error {
	if r.coldTime == 0 {
		r.coldTime = now.Add(-r.backfill).Unix()
	}
	if !r.clock.IsZero() { // lists begin no later
		for _, c := range []*gateway.UpstreamCursor{&r.cursor, &r.newest} {
			c.Created = min(c.Created, r.clock.Unix())
		}
	}
	from := r.cursor
	if from.IsZero() && r.began == 0 {
		r.began, r.noted = now.Unix(), false
	}
	floor := r.coldTime
	switch {
	case !from.IsZero():
		floor = from.Created - int64(r.tune.overlap/time.Second)
	case r.bare: // nobody before in this history had a cursor, whenever it began
		floor = min(floor, r.began-int64(r.backfill/time.Second))
	}
	r.floor = max(r.lowest(floor), 0)
	began := time.Now()
	b := &backfill{
		Source: r.Source, from: from, floor: r.floor,
		found: func(met bool) (err error) {
			r.replaying, err = r.prove(ctx, met, from, st.held)
			return err
		},
		hand: func(es []entry) error { return r.putBackfill(ctx, es) },
		again: func(f *failure) error {
			r.report(gateway.CatchingUp, f.class.reason())
			return unlessEnded(st, f)
		},
	}
	last, err := b.runTwice(ctx)
	if err != nil {
		return err
	}
	r.had(began)
	if last > r.floor {
		floor = max(floor, last-int64(r.tune.overlap/time.Second)) // the windows before are settled
	}
	r.lookAgain(r.opened, floor)
	r.floor = max(r.lowest(floor), 0)
	return nil
}

// runTwice is run with a second look before it calls something a gap: REST may
// show an event later than the stream did. Nothing was handed over by then, so
// no cursor has passed what may be one.
func (b *backfill) runTwice(ctx context.Context) (int64, error) {
	last, err := b.run(ctx)
	if !errors.Is(err, errUnproven) {
		return last, err
	}
	if err := sleep(ctx, b.tune.recheck); err != nil {
		return last, err
	}
	last, err = b.run(ctx)
	if errors.Is(err, errUnproven) {
		b.log.Error("upstream has neither the cursor's event nor an older one", "cursor_created", b.from.Created)
		err = gateway.ErrGap
	}
	return last, err
}

// unlessEnded returns f when the stream has ended meanwhile, so that retrying a
// request does not hide that there is no connection at all.
func unlessEnded(st *stream, f *failure) error {
	if st.ended() != nil {
		return f
	}
	return nil
}

// prove returns errUnproven unless everything since from is known to be within
// reach: REST listed it or something older, still has something that old, or
// the stream's replay began there. It says whether only the last is so.
func (s *Source) prove(ctx context.Context, met bool, from gateway.UpstreamCursor, replay func() []frame) (byReplay bool, err error) {
	if met || from.IsZero() {
		return false, nil
	}
	held, err := s.retains(ctx, from)
	if held || err != nil {
		return false, err
	}
	if replayReaches(replay(), from) {
		return true, nil
	}
	return false, errUnproven
}

// replayReaches says whether a replay goes back to from without a word of
// truncation: a truncated one may well contain old events, with holes between.
func replayReaches(frames []frame, from gateway.UpstreamCursor) bool {
	reached := false
	for _, f := range frames {
		root, err := parse(f.data)
		if err != nil {
			continue
		}
		if kind, _ := kindOf(root); kind == "ws_control" && truncates(root) {
			return false
		}
		if e, err := decodeEvent(f.data, root, f.received); err == nil && reaches(e, from) {
			reached = true
		}
	}
	return reached
}

// live hands over what the stream held and brings, and sweeps after it.
func (r *run) live(ctx context.Context, st *stream) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := r.takeHeld(ctx, st); err != nil {
		return err
	}
	due := time.NewTimer(0)
	defer due.Stop()
	job := &sweep{}                // at most one at a time; without channels: none
	defer func() { r.owes(job) }() // what it has not done, another connection does
	for {
		if err := r.stand(st); err != nil {
			return err
		}
		if job.done == nil {
			r.arm(due)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-st.notice:
		case entries := <-job.found:
			if err := r.putSwept(ctx, entries); err != nil {
				return err
			}
		case err := <-job.done:
			if err := r.settle(job, err); err != nil {
				return err
			}
			job = &sweep{}
		case <-due.C:
			if job = r.nextSweep(ctx, st); job.done != nil {
				wg.Go(func() { job.run(ctx) })
			}
		}
	}
}

// takeHeld hands over what st has held, and has it hand over by itself what it
// reads from now on.
func (r *run) takeHeld(ctx context.Context, st *stream) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := st.handTo(func(frames []frame, more bool) error { return r.takeRead(ctx, st, frames, more) })
	if r.replaying { // the cursor follows the replay from here
		r.replaying, r.newest, r.furthest = false, r.cursor, r.cursor.Created
	}
	r.failed = r.handle(ctx, held, true)
	return r.failed
}

// takeRead handles what st has just read, on the goroutine that reads.
func (r *run) takeRead(ctx context.Context, st *stream, frames []frame, more bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return r.failed // it would move the cursor past what was dropped
	}
	debt := r.debt
	if r.failed = r.handle(ctx, frames, more); r.failed != nil {
		return r.failed
	}
	if r.debt != debt {
		wake(st.notice) // a sweep is due
	}
	return nil
}

// stand says how the stream stands. The error is a *failure when it ended.
func (r *run) stand(st *stream) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return r.failed
	}
	if ended := st.ended(); ended != nil {
		return classifyRead(ended, r.key)
	}
	if r.holdsCursor() {
		r.report(gateway.CatchingUp, "resync")
	} else {
		r.report(gateway.Live, "")
	}
	return nil
}

func (r *run) holdsCursor() bool { return r.debt != nil || r.paying || r.replaying }
