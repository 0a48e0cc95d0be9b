package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An upstream is one merchant's stream as several nodes see it: it replays from
// a cursor in a stable order.
type upstream struct {
	mu        sync.Mutex
	events    []Event
	changed   chan struct{} // closed when something does
	down      bool
	refusal   error // of look-ups of orders
	overlap   int   // how many events before the cursor come again
	orders    map[string]OrderInfo
	invoices  map[string]string
	calls     map[string]int
	froms     []UpstreamCursor
	active    int
	maxActive int
}

func newUpstream() *upstream {
	return &upstream{changed: make(chan struct{}), orders: map[string]OrderInfo{}, invoices: map[string]string{}, calls: map[string]int{}}
}

func (u *upstream) emit(events ...Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events = append(u.events, events...)
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *upstream) setDown(down bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = down
	close(u.changed)
	u.changed = make(chan struct{})
}

// setRefusal has look-ups of orders fail.
func (u *upstream) setRefusal(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refusal = err
}

// knows has the REST API tell of an order.
func (u *upstream) knows(n int, k Keys) {
	u.mu.Lock()
	defer u.mu.Unlock()
	ev := testEvent(n, k)
	ev.ID = "synthetic_" + ev.ID
	u.orders[k.Order] = OrderInfo{Event: ev}
	if k.Invoice != "" {
		u.invoices[k.Invoice] = k.Order
	}
}

func (u *upstream) called(what string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls[what]
}

func (u *upstream) connections() (now, most int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.active, u.maxActive
}

func (u *upstream) Run(ctx context.Context, from UpstreamCursor, sink SourceSink) error {
	for {
		err := sink.Confirm(ctx)
		if err == nil {
			break
		}
		if errors.Is(err, ErrFenced) || ctx.Err() != nil {
			return err
		}
		sleep(ctx, retryMin)
	}
	u.mu.Lock()
	u.froms = append(u.froms, from)
	u.active++
	u.maxActive = max(u.maxActive, u.active)
	at := 0
	if !from.IsZero() {
		at = slices.IndexFunc(u.events, func(e Event) bool { return e.ID == from.ID })
	}
	gap := at < 0
	if !from.IsZero() {
		at = max(0, at+1-u.overlap)
	}
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.active--
		u.mu.Unlock()
	}()
	if gap {
		return ErrGap
	}
	sink.Report(Health{State: CatchingUp, Reason: "backfill", Since: time.Now()})
	said := CatchingUp
	for {
		u.mu.Lock()
		next, changed, down := u.events[at:], u.changed, u.down
		u.mu.Unlock()
		at += len(next)
		for i := range next {
			ev := next[i]
			ev.Received = time.Now().UnixMilli()
			a := Arrival{Event: ev, Cursor: UpstreamCursor{ID: ev.ID, Created: int64(ev.Version.Millis / 1000)}}
			if err := sink.Put(ctx, i+1 < len(next), a); err != nil {
				return err
			}
		}
		switch {
		case down && said != Stale:
			said = Stale
			sink.Report(Health{State: Stale, Reason: "upstream_down", Since: time.Now()})
		case !down && said != Live:
			said = Live
			sink.Report(Health{State: Live, Reason: "ok", Since: time.Now()})
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

func (u *upstream) Order(ctx context.Context, id string) (OrderInfo, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls["order "+id]++
	o, ok := u.orders[id]
	switch {
	case u.refusal != nil:
		return OrderInfo{}, u.refusal
	case !ok:
		return OrderInfo{}, ErrNotFound
	}
	return o, nil
}

func (u *upstream) OrderOfInvoice(ctx context.Context, invoice string) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls["invoice "+invoice]++
	o, ok := u.invoices[invoice]
	if !ok {
		return "", ErrNotFound
	}
	return o, nil
}

func (u *upstream) OrdersOf(ctx context.Context, customer string, limit int) ([]OrderInfo, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls["customer "+customer]++
	var out []OrderInfo
	for _, o := range u.orders {
		if o.Event.Keys.Customer == customer {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b OrderInfo) int { return int(b.Event.Version.Millis) - int(a.Event.Version.Millis) })
	return out[:min(len(out), limit)], nil
}

const testLease = 6 * time.Second

// A member is one node that campaigns.
type member struct {
	in    *Ingest
	c     *memClient
	stop  context.CancelFunc
	ended chan struct{}
}

// startMember starts one, with faults from the first call on if any are given.
func startMember(t *testing.T, l *memLog, src Source, lease time.Duration, faults ...func(op string) memFault) *member {
	t.Helper()
	return startMemberWith(t, l, src, IngestConfig{Lease: lease}, faults...)
}

func startMemberWith(t *testing.T, l *memLog, src Source, cfg IngestConfig, faults ...func(op string) memFault) *member {
	t.Helper()
	m := &member{c: l.client(), ended: make(chan struct{})}
	for _, f := range faults {
		m.c.setFault(f)
	}
	m.in = NewIngest(m.c, src, cfg)
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = m.c.Tail(ctx, false, func(a Announcement) {
			switch {
			case a.Nudge:
				m.in.Nudge()
			case a.Ask != Ask{}:
				m.in.Ask(a.Ask)
			}
		})
	})
	go func() {
		defer close(m.ended)
		_ = m.in.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		wg.Wait()
		<-m.ended
	})
	return m
}

// crash ends m as a power cut does: nothing of what it still wants to write arrives.
func (m *member) crash() {
	m.c.cut(memFault{refuse: true})
	m.stop()
}

// leaderOf waits, at most d, for one of members to lead.
func leaderOf(t *testing.T, d time.Duration, members ...*member) *member {
	t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		for _, m := range members {
			if m.in.Leading() != "" {
				return m
			}
		}
		if !time.Now().Before(end) {
			t.Fatalf("nobody leads after %v", d)
		}
	}
}

// wantAll fails unless the log holds every event of the upstream, once, in order.
func wantAll(t *testing.T, l *memLog, u *upstream) {
	t.Helper()
	l.check(t)
	var got, want []string
	for _, e := range l.entries() {
		if e.Event != nil {
			got = append(got, e.Event.ID)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.events {
		want = append(want, e.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log holds %d events, want %d, and in the upstream's order", len(got), len(want))
	}
}

func someEvents(from, n int) []Event {
	var out []Event
	for i := range n {
		out = append(out, testEvent(from+i, Keys{Order: "o", Customer: "c"}))
	}
	return out
}
