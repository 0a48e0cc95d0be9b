package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// commandTimeout bounds one call to the log; with its outcome unknown the
	// same call is made again.
	commandTimeout = 2 * time.Second
	// flushTimeout bounds what a leader that leaves still tries to append; what
	// remains is fetched again by its successor.
	flushTimeout = 2 * time.Second
	// contendEvery is how often a node that does not lead looks at the lease.
	contendEvery = time.Second
)

// IngestConfig is what an Ingest needs besides its log and its source.
type IngestConfig struct {
	Lease time.Duration // how long leadership outlives its holder
	Log   *slog.Logger
	// Elsewhere says whether another node reaches the upstream, which this one,
	// leading, does not. It must not block. Nil: none does.
	Elsewhere func() bool
	// OnLead is told when a term of this node begins, and when it has ended, which
	// is before the lease is released.
	// OnAppend is told, in order, what was appended, just as other nodes are by
	// the log's channel. Neither must block. Nil: nobody is told.
	OnLead   func(leading bool)
	OnAppend func(Announcement)
}

// Ingest is upstream → log: it campaigns for the lease, and while this node
// leads, runs the source and appends what it brings, one batch in flight.
type Ingest struct {
	cfg   IngestConfig
	log   Log
	src   Source
	out   *slog.Logger
	nudge chan struct{}                        // cap 1: the lease may be free
	Lag   struct{ Upstream, Append Histogram } // event's own time → received → in the log

	asks *asks

	mu         sync.Mutex // guards the fields below
	leading    *term      // nil while another node leads
	stoodAside time.Time  // when this node last did; zero once it reached the upstream since

	appended, duplicates, unrouted, conflicts, lookups, terms, histories, aside atomic.Int64
}

// NewIngest returns an Ingest that does nothing until Run.
func NewIngest(log Log, src Source, cfg IngestConfig) *Ingest {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnLead == nil {
		cfg.OnLead = func(bool) {}
	}
	if cfg.OnAppend == nil {
		cfg.OnAppend = func(Announcement) {}
	}
	return &Ingest{
		cfg: cfg, log: log, src: src, out: cfg.Log.With("component", "ingest"),
		nudge: make(chan struct{}, 1), asks: newAsks(),
	}
}

// Nudge says that the lease may be free. It never blocks.
func (in *Ingest) Nudge() { signal(in.nudge) }

// Ask has an order or a customer looked up if this node leads, and forgets it
// otherwise. It never blocks.
func (in *Ingest) Ask(a Ask) {
	if in.Leading() != "" {
		in.asks.add(lookup{ask: a, asked: true})
	}
}

// Leading returns the fence of this node's term, "" while it does not lead.
func (in *Ingest) Leading() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.leading == nil {
		return ""
	}
	return in.leading.Fence
}

// Health returns the upstream's health as this node, leading, sees it.
func (in *Ingest) Health() (Health, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.leading == nil {
		return Health{}, false
	}
	return in.leading.currentHealth(), true
}

// Run campaigns and leads until ctx ends. Then it stops the source, appends what
// is queued, and releases the lease, so that another node takes over at once.
func (in *Ingest) Run(ctx context.Context) error {
	var previous string
	newHistory := false
	for {
		t, asked, err := in.campaign(ctx, previous, newHistory)
		if err != nil {
			return err
		}
		previous = t.Fence
		err = in.lead(ctx, t, asked)
		newHistory = errors.Is(err, ErrGap)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		in.out.Warn("term ended", "fence", t.Fence, "reason", err)
		switch {
		case errors.Is(err, ErrRewound):
			// Its epoch is never used again; another node may as well go on.
			in.release(ctx, t)
		case errors.Is(err, errCutOff):
			in.release(ctx, t)
			in.standAside(ctx)
		}
		sleep(ctx, jitter(retryMin))
	}
}

// campaign tries for the lease until it is held or ctx ends. It returns when it
// asked, for the lease runs from then at the earliest.
func (in *Ingest) campaign(ctx context.Context, previous string, newHistory bool) (Term, time.Time, error) {
	nonce, began := newEpoch(), time.Now()
	for {
		asked := time.Now()
		cctx, cancel := context.WithTimeout(ctx, commandTimeout)
		t, wait, err := in.log.Acquire(cctx, AcquireRequest{
			Nonce: nonce, TTL: in.cfg.Lease, Previous: previous, NewHistory: newHistory,
		})
		cancel()
		switch {
		case ctx.Err() != nil && err != nil:
			return Term{}, asked, context.Cause(ctx)
		case err == nil:
			in.terms.Add(1)
			return t, asked, nil
		case errors.Is(err, ErrHeld):
			nonce, newHistory = newEpoch(), false // whoever leads now judges continuity
			wait = min(max(wait, retryMin), contendEvery)
		case errors.Is(err, ErrNonceUsed):
			nonce, newHistory = newEpoch(), false // it got the lease once, and others led since
			wait = 0
		default:
			// The outcome is unknown, however often this was asked: a log that comes
			// back may do first what it was sent while it was away. Only the same
			// nonce recognises the lease that it then took.
			in.out.Debug("acquire", "err", err)
			wait = retryMin * 3
			if time.Since(began) > in.cfg.Lease {
				newHistory = false // others may have led since, and judged continuity
			}
		}
		select {
		case <-ctx.Done():
			return Term{}, asked, context.Cause(ctx)
		case <-in.nudge:
		case <-time.After(jitter(wait)):
		}
	}
}

// newEpoch returns 48 random bits that are not zero.
func newEpoch() Epoch {
	for {
		var b [8]byte
		if _, err := rand.Read(b[2:]); err != nil {
			panic(err) // never fails, by its documentation
		}
		if e := Epoch(binary.BigEndian.Uint64(b[:])); e != 0 {
			return e
		}
	}
}

// lead runs one term: the source, the appends, the renewals and the look-ups
// all end together, and why is returned.
func (in *Ingest) lead(ctx context.Context, t Term, asked time.Time) error {
	tm := newTerm(in, t)
	in.setLeading(tm)
	in.out.Info("leading", "fence", t.Fence, "cold", t.Cursor.IsZero())
	if t.Cursor.IsZero() {
		in.histories.Add(1)
	}

	// The source stops first; what it brought is then appended; the lease is
	// renewed until the end.
	termCtx, endTerm := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endTerm(nil)
	srcCtx, stopSource := context.WithCancelCause(termCtx)
	defer context.AfterFunc(ctx, func() { stopSource(context.Cause(ctx)) })()

	var wg sync.WaitGroup
	wg.Go(func() { endTerm(tm.renewLoop(termCtx, asked)) })
	wg.Go(func() { endTerm(tm.appendLoop(termCtx)) })
	for range lookupWorkers {
		wg.Go(func() { tm.lookupLoop(srcCtx) })
	}
	err := in.src.Run(srcCtx, t.Cursor, tm)
	stopSource(err)
	if ctx.Err() != nil {
		tm.flush(termCtx)
	}
	endTerm(err)
	wg.Wait()
	in.setLeading(nil) // before anybody else may lead: what they append is to be heard
	if ctx.Err() != nil {
		in.release(context.WithoutCancel(ctx), t)
	}
	return context.Cause(termCtx)
}

func (in *Ingest) setLeading(t *term) {
	in.cfg.OnLead(t != nil)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leading = t
	if t == nil {
		in.asks.clear()
	}
}

func (in *Ingest) release(ctx context.Context, t Term) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if err := in.log.Release(ctx, t); err != nil {
		in.out.Warn("release: others wait for the lease to run out", "err", err)
		return
	}
	in.out.Info("lease released", "fence", t.Fence)
}

// IngestStats are an Ingest's counters since it started.
type IngestStats struct {
	Appended   int64 `json:"appended"`
	Duplicates int64 `json:"duplicates"`
	Unrouted   int64 `json:"unrouted"`  // appended before their customer was known
	Conflicts  int64 `json:"conflicts"` // named another customer than their order's first
	Lookups    int64 `json:"lookups"`
	Terms      int64 `json:"terms"`
	Histories  int64 `json:"histories"` // terms that began with an empty log
	Aside      int64 `json:"aside"`     // terms ended because another node reached the upstream
	Queued     int64 `json:"queued"`    // now
	Waiting    int64 `json:"waiting"`   // look-ups not answered yet, now
	Dropped    int64 `json:"dropped"`   // look-ups for which there was no room
}

// Stats returns the counters.
func (in *Ingest) Stats() IngestStats {
	in.mu.Lock()
	var queued int64
	if in.leading != nil {
		queued = int64(in.leading.queue.len())
	}
	in.mu.Unlock()
	waiting, dropped := in.asks.stats()
	return IngestStats{
		Waiting: waiting, Dropped: dropped,
		Appended: in.appended.Load(), Duplicates: in.duplicates.Load(), Unrouted: in.unrouted.Load(),
		Conflicts: in.conflicts.Load(), Lookups: in.lookups.Load(), Terms: in.terms.Load(),
		Histories: in.histories.Load(), Aside: in.aside.Load(), Queued: queued,
	}
}
