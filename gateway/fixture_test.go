package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testEvent is the n-th event of the upstream.
func testEvent(n int, k Keys) Event {
	id := fmt.Sprintf("evt_%d-0", 1_000_000+n*1000)
	v, _ := ParseEventID(id)
	return Event{
		ID: id, Type: "commerce.order.updated", Object: ObjectOrder, Version: v, Keys: k,
		Data: []byte(`{"id":"` + id + `"}`),
	}
}

func invoiceEvent(n int, k Keys) Event {
	ev := testEvent(n, k)
	ev.Type, ev.Object = "invoice.updated", ObjectInvoice
	return ev
}

// A writer appends to a memLog as a leader would, without an Ingest.
type writer struct {
	t    testing.TB
	c    *memClient
	term Term
}

func newWriter(t testing.TB, l *memLog) *writer {
	t.Helper()
	w := &writer{t: t, c: l.client()}
	w.lead(false)
	return w
}

// lead begins the next term.
func (w *writer) lead(newHistory bool) {
	w.t.Helper()
	w.c.log.mu.Lock()
	holder := w.c.log.data.holder() // after a rewind, an earlier term of its own
	w.c.log.mu.Unlock()
	var err error
	w.term, _, err = w.c.Acquire(context.Background(), AcquireRequest{
		Nonce: newEpoch(), TTL: time.Hour, Previous: holder, NewHistory: newHistory,
	})
	if err == nil {
		err = w.c.Renew(context.Background(), w.term, 0, time.Hour, Health{State: Live, Reason: "ok"})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) events(events ...Event) {
	w.t.Helper()
	records := make([]Record, len(events))
	for i := range events {
		records[i] = Record{ID: events[i].ID, Event: &events[i], NewLinks: true}
	}
	w.records(records...)
}

func (w *writer) join(id string, j Join) {
	w.t.Helper()
	w.records(Record{ID: "join_" + id, Join: &j})
}

func (w *writer) records(records ...Record) Appended {
	w.t.Helper()
	out, err := w.c.Append(context.Background(), w.term, 0, records, UpstreamCursor{})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// startNode runs a node until the bubble ends.
func startNode(t *testing.T, l *memLog, cfg NodeConfig) (*Node, *memClient) {
	t.Helper()
	c := l.client()
	n := NewNode(c, cfg)
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Run(t.Context()) })
	t.Cleanup(wg.Wait)
	synctest.Wait()
	return n, c
}

// collector gathers what a subscriber is written.
type collector struct{ frames []*Frame }

func (c *collector) write(f *Frame) error {
	c.frames = append(c.frames, f)
	return nil
}

// drain takes what waits in s's queue.
func (c *collector) drain(s *Subscriber) {
	for s.Queued() > 0 {
		c.frames = append(c.frames, s.Next())
	}
}

func (c *collector) ids() []string {
	var out []string
	for _, f := range c.frames {
		if f.Kind == FrameEvent {
			out = append(out, f.Event.ID)
		}
	}
	return out
}

// has says whether the newest event is the n-th.
func (c *collector) has(n int) bool {
	for i := len(c.frames) - 1; i >= 0; i-- {
		if c.frames[i].Kind == FrameEvent {
			return c.frames[i].Event.ID == testEvent(n, Keys{}).ID
		}
	}
	return false
}

func wantIDs(t testing.TB, what string, got []string, want ...int) {
	t.Helper()
	var ids []string
	for _, n := range want {
		ids = append(ids, testEvent(n, Keys{}).ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("%s = %q, want %q", what, got, ids)
	}
}

// live returns a subscriber that is attached at the node's position.
func live(t testing.TB, n *Node, s Scope) (*Subscriber, *collector) {
	t.Helper()
	sub, c := n.Subscribe(s), &collector{}
	if err := sub.CatchUp(t.Context(), c.write); err != nil {
		t.Fatalf("CatchUp = %v, want nil", err)
	}
	return sub, c
}

// detached takes the notice of a detachment, and why.
func detached(s *Subscriber) error {
	return s.Detached()
}

// signalled has s ring the channel it returns.
func signalled(s *Subscriber) <-chan struct{} {
	rung := make(chan struct{}, 1)
	s.Wake = func() { signal(rung) }
	return rung
}

// A viewer is a browser: it keeps its cursor, reconnects, and after a reset
// starts again from the state of the log.
type viewer struct {
	log   *memLog
	scope Scope
	pace  func() // before each frame is taken; may be nil

	mu      sync.Mutex // guards the fields below
	got     []string
	cursor  string
	resets  []string
	covered map[string]bool // by a snapshot
	busy    int
}

func (v *viewer) write(f *Frame) error {
	if v.pace != nil {
		v.pace()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if f.Kind == FrameEvent {
		v.got = append(v.got, f.Event.ID)
	}
	if f.Cursor != "" {
		v.cursor = f.Cursor
	}
	return nil
}

func (v *viewer) reset(s *Subscriber, reason string) {
	v.log.mu.Lock()
	d := v.log.data
	s.Seek(Position{d.epoch, d.seq})
	cursor := s.node.Cursor(s.Position())
	v.mu.Lock()
	v.cursor = cursor
	for i := range d.entries {
		if ev := d.entries[i].Event; ev != nil {
			v.covered[ev.ID] = true
		}
	}
	v.resets = append(v.resets, reason)
	v.mu.Unlock()
	v.log.mu.Unlock()
}

// run is one connection, until ctx ends or the node cannot serve it.
func (v *viewer) run(ctx context.Context, n *Node) {
	s := n.Subscribe(v.scope)
	rung := signalled(s)
	defer s.Close()
	v.mu.Lock()
	since := v.cursor
	if v.covered == nil {
		v.covered = map[string]bool{}
	}
	v.mu.Unlock()
	if since == "" {
		v.reset(s, "new")
	} else if at, err := n.Locate(ctx, since, v.scope); err != nil {
		return
	} else if at.Resumed {
		s.Seek(at.Pos)
	} else {
		v.reset(s, at.Reason)
	}
	for ctx.Err() == nil {
		var reset *ResetError
		switch err := s.CatchUp(ctx, v.write); {
		case err == nil:
			v.live(ctx, s, rung)
		case errors.As(err, &reset):
			v.reset(s, reset.Reason)
		case errors.Is(err, ErrBusy):
			v.mu.Lock()
			v.busy++
			v.mu.Unlock()
			return
		default:
			sleep(ctx, retryMin)
		}
	}
}

func (v *viewer) live(ctx context.Context, s *Subscriber, rung <-chan struct{}) {
	for ctx.Err() == nil {
		why := s.Detached() // nothing is queued any more when there is a reason
		for f := s.Next(); f != nil; f = s.Next() {
			_ = v.write(f)
		}
		if why != nil {
			var reset *ResetError
			if errors.As(why, &reset) {
				v.reset(s, reset.Reason)
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-rung:
		}
	}
}

// check holds v against the log: nothing foreign, nothing missing, first
// occurrences in the log's order, and, unless doubles are allowed, each once.
func (v *viewer) check(t testing.TB, name string, doubles bool) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	place := map[string]int{}
	for i, id := range v.got {
		if _, again := place[id]; !again {
			place[id] = i
		} else if !doubles {
			t.Errorf("%s got %s twice", name, id)
		}
	}
	last, missing := -1, 0
	for _, e := range v.log.entries() {
		if e.Event == nil || !v.scope.Allows(e.Event.Keys) || !v.scope.Wants(e.Event.Type) {
			if e.Event != nil && slices.Contains(v.got, e.Event.ID) {
				t.Errorf("%s got %s, which is outside its scope", name, e.Event.ID)
			}
			continue
		}
		at, ok := place[e.Event.ID]
		switch {
		case v.covered[e.Event.ID]: // it may come again, after a rewind
		case !ok:
			missing++
		case at < last:
			t.Errorf("%s got %s out of order", name, e.Event.ID)
		default:
			last = at
		}
	}
	if missing > 0 {
		t.Errorf("%s misses %d events, want none (%d got, resets %q)", name, missing, len(v.got), v.resets)
	}
}
