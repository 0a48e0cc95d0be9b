package gateway

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxAsks bounds the look-ups waiting; past it the oldest stay and newer
	// ones are dropped, to be asked for again.
	maxAsks = 10_000
	// lookupEvery paces the look-ups, so that they never crowd out the stream's
	// own requests at the upstream.
	lookupEvery = 20 * time.Millisecond
	// missingFor is how long an order that the upstream does not know is not
	// asked for again on behalf of events.
	missingFor = 5 * time.Minute
	// lookupTimeout bounds one look-up.
	lookupTimeout = 10 * time.Second
	lookupRetries = 3
)

// A lookup is one question to the upstream's REST API, and its answer.
type lookup struct {
	ask     Ask    // an order, or a customer
	invoice string // else: the order of this invoice
	asked   bool   // a client waits: the answer must say that the state is complete

	found   []OrderInfo
	done    bool          // the upstream answered
	missing bool          // it knows no such order
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

// asks is the bounded set of look-ups waiting for the leader. Safe for
// concurrent use.
type asks struct {
	mu      sync.Mutex
	waiting []lookup
	names   map[string]bool // of waiting: asked or not
	missing map[string]time.Time
	fed     chan struct{}
}

func newAsks() *asks {
	return &asks{names: map[string]bool{}, missing: map[string]time.Time{}, fed: make(chan struct{}, 1)}
}

func (a *asks) add(l lookup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := l.name()
	if asked, ok := a.names[name]; ok {
		a.names[name] = asked || l.asked
		return
	}
	if len(a.waiting) >= maxAsks || !l.asked && time.Since(a.missing[name]) < missingFor {
		return
	}
	a.names[name] = l.asked
	a.waiting = append(a.waiting, l)
	signal(a.fed)
}

func (a *asks) next(ctx context.Context) (lookup, bool) {
	for {
		a.mu.Lock()
		if len(a.waiting) > 0 {
			l := a.waiting[0]
			a.waiting = a.waiting[1:]
			l.asked = a.names[l.name()]
			delete(a.names, l.name())
			a.mu.Unlock()
			return l, true
		}
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			return lookup{}, false
		case <-a.fed:
		}
	}
}

func (a *asks) notFound(l *lookup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.missing) >= maxAsks {
		clear(a.missing)
	}
	a.missing[l.name()] = time.Now()
}

func (a *asks) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = nil
	clear(a.names)
}

// lookupLoop asks the upstream about orders whose customer or state is unknown.
// No event waits for it.
func (t *term) lookupLoop(ctx context.Context) {
	for {
		l, ok := t.in.asks.next(ctx)
		if !ok {
			return
		}
		t.lookUp(ctx, &l)
		sleep(ctx, lookupEvery)
	}
}

func (t *term) lookUp(ctx context.Context, l *lookup) {
	wait := retryMax
	for range lookupRetries {
		t.in.lookups.Add(1)
		cctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		err := t.lookUpOnce(cctx, l)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if len(l.found) == 1 && l.found[0].Event.Keys.Customer == "" {
				t.in.asks.notFound(l) // nor will the next event's look-up find it
			}
			t.hand(ctx, l)
			return
		case errors.Is(err, ErrNotFound):
			l.done, l.missing = true, true
			t.in.asks.notFound(l)
			t.hand(ctx, l)
			return
		}
		t.in.out.Debug("look-up", "err", err)
		sleep(ctx, jitter(wait))
		wait *= 2
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

// hand puts the answer on its way into the log, an order at a time.
func (t *term) hand(ctx context.Context, l *lookup) {
	if len(l.found) == 0 && !l.asked {
		return
	}
	for i := 0; i < len(l.found)-1; i++ {
		_ = t.queue.put(ctx, work{looked: &lookup{asked: l.asked, found: l.found[i : i+1]}}, false)
	}
	last := *l
	if n := len(l.found); n > 0 {
		last.found = l.found[n-1:]
	}
	_ = t.queue.put(ctx, work{looked: &last}, false)
}
