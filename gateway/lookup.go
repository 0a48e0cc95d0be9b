package gateway

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxAsks bounds the look-ups waiting; past it new ones are dropped, counted,
	// and asked for again by the next event or client.
	maxAsks = 10_000
	// lookupWorkers and lookupEvery bound and pace the look-ups, so that they
	// never crowd out the stream's own requests at the upstream.
	lookupWorkers = 4
	lookupEvery   = 20 * time.Millisecond
	lookupTimeout = 10 * time.Second // of one look-up
	lookupBackoff = time.Minute      // the longest wait between two tries
	// lookupsHeld bounds how long one failure holds back all look-ups, unless the
	// upstream asks for more: thousands of clients may wait for the same outage.
	lookupsHeld = 8 * time.Second
	// An order without customer is not asked for again, on behalf of events, for
	// guestFor.
	guestFor = time.Minute
	// lookupsStale is how long look-ups may fail before clients are told: events
	// may be waiting that belong to somebody.
	lookupsStale = 10 * time.Second
)

// absentAgain is when an order that the upstream did not know is asked for
// again: REST may lag the stream. After that the next event asks anew.
var absentAgain = [...]time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute}

// A lookup is one question to the upstream's REST API, and its answer.
type lookup struct {
	ask     Ask    // an order, or a customer
	invoice string // else: the order of this invoice
	asked   bool   // a client waits: the answer must say that the state is complete

	found   []OrderInfo
	done    bool          // the upstream answered
	missing bool          // it knows no such order
	more    bool          // there may be more orders than found
	flushed chan struct{} // not a look-up at all: closed when all before it is appended
}

// keys names what links must know before the answer is filled in. Several
// orders (of a customer) are handed over one by one.
func (l *lookup) keys() Keys {
	k := Keys{Order: l.ask.Order}
	if len(l.found) > 0 {
		k = l.found[0].Event.Keys
	}
	return k
}

func (l *lookup) name() string {
	return l.ask.Order + "\n" + l.ask.Customer + "\n" + l.invoice
}

// A question is a look-up that is due, now or later, until it was answered.
type question struct {
	lookup
	due      time.Time
	failures int
	absences int
	taken    bool // by a worker
	place    int  // in later; -1 when it is not there
}

// asks is the bounded set of questions of the leader. Safe for concurrent use.
type asks struct {
	mu      sync.Mutex // guards the fields below
	all     map[string]*question
	urgent  []*question // of clients that wait
	ready   []*question
	later   schedule
	guests  map[string]time.Time // answered, but without customer
	failing time.Time            // since when no look-up succeeds; zero while they do
	broken  string               // the question that failing began with
	held    time.Time            // until then the upstream is left alone
	holds   int                  // in a row
	odd     string               // the one question that alone got unusable answers
	dropped int64
	fed     chan struct{} // cap 1
}

func newAsks() *asks {
	return &asks{all: map[string]*question{}, guests: map[string]time.Time{}, fed: make(chan struct{}, 1)}
}

func (a *asks) add(l lookup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := l.name()
	q := a.all[name]
	switch {
	case q == nil && !l.asked && time.Since(a.guests[name]) < guestFor:
		return
	case q == nil && len(a.all) >= maxAsks && (!l.asked || len(a.all) >= 2*maxAsks):
		a.dropped++ // clients have a share of their own
		return
	case q == nil:
		q = &question{lookup: l, place: -1}
		a.all[name] = q
	case !l.asked, q.asked && q.place < 0:
		return // it is waiting already
	case q.failures > 0 && q.place >= 0: // it waits for its next try, as others that ask for it do
		q.asked = true
		if soon := time.Now().Add(lookupsHeld); q.due.After(soon) {
			q.due = soon
			heap.Fix(&a.later, q.place)
			signal(a.fed)
		}
		return
	default: // a client waits: now
		q.asked = true
	}
	a.queueLocked(q)
}

// queueLocked makes q due now, unless a worker has it.
func (a *asks) queueLocked(q *question) {
	if q.taken {
		return
	}
	if q.place >= 0 {
		heap.Remove(&a.later, q.place)
	}
	if q.asked {
		a.urgent = append(a.urgent, q)
	} else {
		a.ready = append(a.ready, q)
	}
	signal(a.fed)
}

// next returns the next question that is due, waiting for one.
func (a *asks) next(ctx context.Context) (*question, bool) {
	for {
		q, wait := a.pop(time.Now())
		if q != nil {
			return q, true
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, false
		case <-a.fed:
		case <-t.C:
		}
		t.Stop()
	}
}

func (a *asks) pop(now time.Time) (*question, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait := a.held.Sub(now); wait > 0 {
		return nil, wait
	}
	for len(a.later) > 0 && !a.later[0].due.After(now) {
		a.queueLocked(a.later[0])
	}
	for _, list := range []*[]*question{&a.urgent, &a.ready} {
		for len(*list) > 0 {
			q := (*list)[0]
			*list = (*list)[1:]
			if q.taken || q.place >= 0 || a.all[q.name()] != q {
				continue // it stood in both, and the other was served
			}
			q.taken = true
			if len(a.urgent)+len(a.ready)+len(a.later) > 0 {
				signal(a.fed) // for the other workers
			}
			return q, 0
		}
	}
	if len(a.later) > 0 {
		return nil, a.later[0].due.Sub(now)
	}
	return nil, time.Hour
}

// answered forgets q, and says whether a client waits for the answer. A guest's
// order is not asked for again soon.
func (a *asks) answered(q *question, guest bool) (asked bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.succeededLocked()
	a.forgetLocked(q)
	if guest {
		if len(a.guests) >= maxAsks {
			clear(a.guests)
		}
		a.guests[q.name()] = time.Now()
	}
	return q.asked
}

// absent asks again later for what the upstream does not know yet, a few times.
// It says whether a client waits for the answer.
func (a *asks) absent(q *question) (asked bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.succeededLocked()
	if q.asked || q.absences == len(absentAgain) { // a waiting client was answered: missing
		a.forgetLocked(q)
		return q.asked
	}
	q.failures = 0
	a.laterLocked(q, absentAgain[q.absences])
	q.absences++
	return false
}

func (a *asks) succeededLocked() { a.failing, a.broken, a.odd, a.holds = time.Time{}, "", "", 0 }

// failed asks again later, for as long as it takes. One question that the
// upstream has no usable answer to is that question's affair; a second one makes
// it the upstream's. While more than one fails, all questions are held back, for
// longer each time; and for as long as the upstream asks.
func (a *asks) failed(q *question, unusable bool, after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := !a.failing.IsZero() && a.broken != q.name(); after > 0 || other && !unusable {
		a.holdLocked(after)
	}
	switch name := q.name(); {
	case unusable && (a.odd == "" || a.odd == name):
		a.odd = name
		if a.broken == name { // it is answered again, if to no use
			a.failing, a.broken = time.Time{}, ""
		}
	case a.failing.IsZero():
		a.failing, a.broken = time.Now(), name
	}
	wait := min(time.Second<<min(q.failures, 6), lookupBackoff)
	q.failures++
	a.laterLocked(q, jitter(wait))
}

func (a *asks) holdLocked(after time.Duration) {
	now := time.Now()
	if !a.held.After(now) { // else it failed beside another
		after = max(after, jitter(min(time.Second<<min(a.holds, 6), lookupsHeld)))
		a.holds++
	}
	if until := now.Add(after); until.After(a.held) {
		a.held = until
	}
}

func (a *asks) laterLocked(q *question, d time.Duration) {
	q.taken, q.due = false, time.Now().Add(d)
	if a.all[q.name()] == q { // not cleared meanwhile
		heap.Push(&a.later, q)
		signal(a.fed)
	}
}

func (a *asks) forgetLocked(q *question) {
	if a.all[q.name()] == q {
		delete(a.all, q.name())
	}
}

func (a *asks) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.all)
	a.urgent, a.ready, a.later = nil, nil, nil
	a.succeededLocked()
}

// stats returns how many questions wait, and how many were dropped.
func (a *asks) stats() (waiting, dropped int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(len(a.all)), a.dropped
}

// failingSince returns since when no look-up succeeds, zero while they do.
func (a *asks) failingSince() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failing
}

// A schedule is a heap of questions by when they are due.
type schedule []*question

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

func (s *schedule) Push(x any) {
	q := x.(*question)
	q.place = len(*s)
	*s = append(*s, q)
}

func (s *schedule) Pop() any {
	old := *s
	q := old[len(old)-1]
	*s, q.place = old[:len(old)-1], -1
	return q
}

// lookupLoop asks the upstream about orders whose customer or state is unknown.
// No event waits for it.
func (t *term) lookupLoop(ctx context.Context) {
	for {
		q, ok := t.in.asks.next(ctx)
		if !ok {
			return
		}
		t.lookUp(ctx, q)
		sleep(ctx, lookupEvery)
	}
}

func (t *term) lookUp(ctx context.Context, q *question) {
	t.in.lookups.Add(1)
	answer := lookup{ask: q.ask, invoice: q.invoice} // these never change
	cctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	err := t.lookUpOnce(cctx, &answer)
	cancel()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		answer.asked = t.in.asks.answered(q, len(answer.found) == 1 && answer.found[0].Event.Keys.Customer == "")
		t.hand(ctx, &answer)
	case errors.Is(err, ErrNotFound):
		answer.done, answer.missing, answer.asked = true, true, t.in.asks.absent(q)
		t.hand(ctx, &answer)
	default:
		unusable := errors.Is(err, ErrUnusable)
		if unusable && q.failures == 0 {
			t.in.out.Warn("look-up", "err", err)
		} else {
			t.in.out.Debug("look-up", "err", err)
		}
		var asks interface{ RetryAfter() time.Duration }
		after := time.Duration(0)
		if errors.As(err, &asks) {
			after = asks.RetryAfter()
		}
		t.in.asks.failed(q, unusable, after)
	}
}

func (t *term) lookUpOnce(ctx context.Context, l *lookup) error {
	l.found, l.done = nil, true
	if l.ask.Customer != "" && l.ask.Order == "" {
		found, err := t.in.src.OrdersOf(ctx, l.ask.Customer, MaxSnapshotOrders)
		for _, o := range found {
			if o.Event.Keys.Customer == l.ask.Customer {
				l.found = append(l.found, o)
			}
		}
		l.more = len(found) >= MaxSnapshotOrders
		return err
	}
	order := l.ask.Order
	if order == "" {
		var err error
		if order, err = t.in.src.OrderOfInvoice(ctx, l.invoice); err != nil {
			return err
		}
	}
	info, err := t.in.src.Order(ctx, order)
	if err != nil {
		return err
	}
	if info.Event.Keys.Order != order {
		return ErrNotFound
	}
	if l.invoice != "" {
		info.Event.Keys.Invoice = l.invoice
	}
	l.found = []OrderInfo{info}
	return nil
}

// hand puts the answer on its way into the log, an order at a time, the newest
// last: the last to be written is in front of its customer's.
func (t *term) hand(ctx context.Context, l *lookup) {
	if len(l.found) == 0 && !l.asked {
		return
	}
	for i := len(l.found) - 1; i > 0; i-- {
		_ = t.queue.put(ctx, work{looked: &lookup{asked: l.asked, found: l.found[i : i+1]}}, false)
	}
	last := *l
	last.found = l.found[:min(len(l.found), 1)]
	_ = t.queue.put(ctx, work{looked: &last}, false)
	signal(t.queue.fed)
}
