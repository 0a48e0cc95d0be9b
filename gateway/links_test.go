package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A joinSetup is a leader, a node, and live subscribers of two customers.
type joinSetup struct {
	l            *memLog
	u            *upstream
	m            *member
	n            *Node
	mine, others *Subscriber
	mc, oc       *collector
}

func newJoinSetup(t *testing.T) *joinSetup {
	t.Helper()
	j := &joinSetup{l: newMemLog(), u: newUpstream()}
	j.m = startMember(t, j.l, j.u, testLease)
	leaderOf(t, time.Second, j.m)
	j.n, _ = startNode(t, j.l, NodeConfig{})
	time.Sleep(pollEvery)
	j.mine, j.mc = live(t, j.n, Scope{Customer: "c"})
	j.others, j.oc = live(t, j.n, Scope{Customer: "d"})
	return j
}

func (j *joinSetup) settle() {
	time.Sleep(2 * time.Second)
	synctest.Wait()
	j.mc.drain(j.mine)
	j.oc.drain(j.others)
}

func TestCustomerLearnedByAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.emit(testEvent(1, Keys{Order: "o"}), invoiceEvent(2, Keys{Order: "o", Invoice: "i"}))
		j.settle()
		wantIDs(t, "before it is known", j.mc.ids())
		if got := j.m.in.Stats().Unrouted; got != 2 {
			t.Errorf("%d unrouted, want 2", got)
		}
		j.u.emit(invoiceEvent(3, Keys{Invoice: "i", Customer: "c"}))
		j.settle()
		wantIDs(t, "the customer's", j.mc.ids(), 1, 2, 3)
		j.u.emit(testEvent(4, Keys{Order: "o"}), invoiceEvent(5, Keys{Invoice: "i"}))
		j.settle()
		wantIDs(t, "the customer's", j.mc.ids(), 1, 2, 3, 4, 5)
		wantIDs(t, "another's", j.oc.ids())
		wantAll(t, j.l, j.u)
	})
}

// What is handed on when the customer becomes known has the invoice that became
// known before: a filter asks for both.
func TestCustomerLearnedAfterTheInvoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		scope, err := Scope{Customer: "c"}.Narrow(Filter{Invoices: []string{"i"}})
		if err != nil {
			t.Fatal(err)
		}
		sub, c := live(t, j.n, scope)
		j.u.emit(invoiceEvent(1, Keys{Order: "o"}), testEvent(2, Keys{Order: "o", Invoice: "i"}), testEvent(3, Keys{Order: "o", Customer: "c"}))
		j.settle()
		c.drain(sub)
		wantIDs(t, "with the invoice", c.ids(), 2, 1, 3) // as snapshots are: the order first
	})
}

func TestCustomerLearnedByALookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.knows(50, Keys{Order: "o", Customer: "c"})
		j.u.emit(testEvent(1, Keys{Order: "o"}))
		j.settle()
		wantIDs(t, "the customer's", j.mc.ids(), 1)
		j.u.emit(testEvent(2, Keys{Order: "o"}))
		j.settle()
		wantIDs(t, "the customer's", j.mc.ids(), 1, 2)
		wantIDs(t, "another's", j.oc.ids())
		if got := j.u.called("order o"); got != 1 {
			t.Errorf("%d look-ups, want 1", got)
		}
	})
}

func TestInvoiceAloneReachesItsOrderByALookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		order, c := live(t, j.n, Scope{Orders: []string{"o"}})
		j.u.knows(50, Keys{Order: "o", Customer: "c", Invoice: "i"})
		j.u.emit(invoiceEvent(1, Keys{Invoice: "i"}))
		j.settle()
		j.u.emit(invoiceEvent(2, Keys{Invoice: "i"}))
		j.settle()
		wantIDs(t, "the customer's", j.mc.ids(), 1, 2)
		wantIDs(t, "another's", j.oc.ids())
		c.drain(order)
		wantIDs(t, "the order's", c.ids(), 1, 2)
	})
}

func TestFirstCustomerWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.emit(testEvent(1, Keys{Order: "o", Customer: "c"}), invoiceEvent(2, Keys{Order: "o", Customer: "d"}))
		j.settle()
		j.u.emit(testEvent(3, Keys{Order: "o"}))
		// The next leader knows it too.
		j.m.stop()
		<-j.m.ended
		next := startMember(t, j.l, j.u, testLease)
		leaderOf(t, time.Second, next)
		j.u.emit(invoiceEvent(4, Keys{Order: "o", Customer: "d"}))
		j.settle()
		wantIDs(t, "the first customer's", j.mc.ids(), 1, 3)
		wantIDs(t, "the second customer's", j.oc.ids())
		if got := j.m.in.Stats().Conflicts + next.in.Stats().Conflicts; got != 2 {
			t.Errorf("%d conflicts counted, want 2", got)
		}
		wantAll(t, j.l, j.u)
	})
}

// What the log knew is the next leader's too: no events lost to the join over a
// handover, and no look-ups again.
func TestLinksOutliveTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.emit(testEvent(1, Keys{Order: "o", Invoice: "i", Customer: "c"}))
		j.settle()
		j.m.stop()
		<-j.m.ended
		next := startMember(t, j.l, j.u, testLease)
		leaderOf(t, time.Second, next)
		j.u.emit(invoiceEvent(2, Keys{Invoice: "i"}))
		j.settle()
		wantIDs(t, "the customer's", j.mc.ids(), 1, 2)
		if got := next.in.Stats().Lookups; got != 0 {
			t.Errorf("%d look-ups, want none", got)
		}
	})
}

func TestLookUpsAreBoundedAndNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.knows(50, Keys{Order: "guest"})
		for i := range 50 {
			j.u.emit(testEvent(4*i, Keys{Order: "guest"}), testEvent(4*i+1, Keys{Order: "unknown"}), invoiceEvent(4*i+2, Keys{Invoice: "unknown"}))
			time.Sleep(10 * time.Millisecond)
		}
		const long = 5 * time.Minute
		time.Sleep(long)
		for what, want := range map[string]int{
			"order guest": 1, "order unknown": 1 + len(absentAgain), "invoice unknown": 1 + len(absentAgain),
		} {
			if got := j.u.called(what); got != want {
				t.Errorf("%s was asked for %d times within %v, want %d", what, got, long, want)
			}
		}
		j.u.emit(testEvent(1000, Keys{Order: "unknown"}), testEvent(1001, Keys{Order: "guest"}))
		time.Sleep(time.Second)
		for what, want := range map[string]int{"order guest": 2, "order unknown": 2 + len(absentAgain)} {
			if got := j.u.called(what); got != want {
				t.Errorf("%s was asked for %d times, want %d: once more for the next event", what, got, want)
			}
		}
		wantAll(t, j.l, j.u)
	})
}

// REST may lag the stream, or be down. The event still reaches its customer.
func TestLookUpIsRepeatedUntilItIsAnswered(t *testing.T) {
	for name, err := range map[string]error{"down for a while": errors.New("503"), "not known yet": ErrNotFound, "of no use for a while": ErrUnusable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJoinSetup(t)
				j.u.setRefusal(err)
				j.u.emit(testEvent(1, Keys{Order: "o"}))
				time.Sleep(lookupsStale + 10*time.Second)
				h, _ := j.m.in.Health()
				if down := err != ErrNotFound && err != ErrUnusable; down && h.State != CatchingUp || !down && h.State != Live {
					t.Errorf("health while the look-up waits = %+v", h)
				}
				j.u.knows(50, Keys{Order: "o", Customer: "c"})
				j.u.setRefusal(nil)
				time.Sleep(lookupBackoff)
				j.settle()
				wantIDs(t, "the customer's", j.mc.ids(), 1)
				if h, _ := j.m.in.Health(); h.State != Live {
					t.Errorf("health afterwards = %+v, want live", h)
				}
				if got := j.m.in.Stats().Waiting; got != 0 {
					t.Errorf("%d look-ups wait, want none", got)
				}
			})
		})
	}
}

// A pleaseWait is how an upstream says that it is asked too much.
type pleaseWait time.Duration

func (pleaseWait) Error() string               { return "429" }
func (w pleaseWait) RetryAfter() time.Duration { return time.Duration(w) }

func TestLookUpsWaitForAsLongAsTheUpstreamAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		const asked = 40 * time.Second
		j.u.setRefusal(fmt.Errorf("order: %w", pleaseWait(asked)))
		j.m.in.Ask(Ask{Order: "first"})
		time.Sleep(time.Second)
		j.u.setRefusal(nil)
		for range 4 {
			j.m.in.Ask(Ask{Order: "first"})
			j.m.in.Ask(Ask{Order: "second"})
			time.Sleep((asked - 2*time.Second) / 4)
		}
		if first, second := j.u.called("order first"), j.u.called("order second"); first != 1 || second != 0 {
			t.Errorf("%d and %d look-ups by the end of what it asked for, want only the one that it refused", first, second)
		}
		time.Sleep(3 * time.Second)
		if first, second := j.u.called("order first"), j.u.called("order second"); first != 2 || second != 1 {
			t.Errorf("%d and %d look-ups after that, want one more of each", first, second)
		}
	})
}

// What one id is answered is not what the stream is worth; what two are, may be.
func TestAnswersOfNoUseAreTheUpstreamsAffairOnlyWhenThereAreTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.setRefusal(fmt.Errorf("400: %w", ErrUnusable))
		health := func() State {
			time.Sleep(lookupsStale + lookupBackoff)
			h, _ := j.m.in.Health()
			return h.State
		}
		j.m.in.Ask(Ask{Order: "undefined"})
		if got := health(); got != Live {
			t.Errorf("with one id that is never answered the stream is %s, want live", got)
		}
		j.u.setRefusal(errors.New("503"))
		if got := health(); got != CatchingUp {
			t.Errorf("while the upstream is down it is %s, want catching_up", got)
		}
		j.u.setRefusal(fmt.Errorf("400: %w", ErrUnusable))
		if got := health(); got != Live {
			t.Errorf("with the one id again it is %s, want live", got)
		}
		j.m.in.Ask(Ask{Order: "null"})
		if got := health(); got != CatchingUp {
			t.Errorf("with two it is %s, want catching_up", got)
		}
		j.u.knows(50, Keys{Order: "o", Customer: "c"})
		j.u.setRefusal(nil)
		if got := health(); got != Live {
			t.Errorf("after an answer it is %s, want live", got)
		}
	})
}

func TestAsksAreBounded(t *testing.T) {
	a := newAsks()
	for i := range 2 * maxAsks {
		a.add(lookup{ask: Ask{Order: fmt.Sprint(i)}})
		a.add(lookup{ask: Ask{Order: fmt.Sprint(i)}})
	}
	if waiting, dropped := a.stats(); waiting != maxAsks || dropped != 2*maxAsks {
		t.Errorf("%d look-ups wait and %d were dropped, want %d and %d", waiting, dropped, maxAsks, 2*maxAsks)
	}
	for i := range 3 * maxAsks {
		a.answered(&question{lookup: lookup{ask: Ask{Order: fmt.Sprint(i)}}}, true)
	}
	if got := len(a.guests); got > maxAsks {
		t.Errorf("%d guests remembered, want at most %d", got, maxAsks)
	}
	a.clear()
	clear(a.guests)
	a.add(lookup{ask: Ask{Order: "first"}})
	a.add(lookup{ask: Ask{Order: "x"}})
	a.add(lookup{ask: Ask{Order: "x"}, asked: true})
	for _, want := range []string{"x", "first"} { // clients go first, and nothing is asked twice
		if q, ok := a.next(t.Context()); !ok || q.ask.Order != want || q.asked != (want == "x") {
			t.Errorf("next = %+v, %v, want %s", q, ok, want)
		}
	}
	if q, _ := a.pop(time.Now()); q != nil {
		t.Errorf("a third look-up: %+v", q)
	}
}

func TestAskedOrderIsCompletedAndCovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		j.u.knows(50, Keys{Order: "old", Customer: "c"})
		scope := Scope{Orders: []string{"old", "gone"}}
		order, c := live(t, j.n, scope)
		snap, err := j.n.Snapshot(t.Context(), scope)
		if want := []Ask{{Order: "old"}, {Order: "gone"}}; err != nil || snap.Complete || !slices.Equal(snap.Asks, want) {
			t.Fatalf("snapshot = %+v, %v, want asks %+v", snap, err, want)
		}
		for range 3 { // a hint may be repeated
			if err := j.n.Ask(t.Context(), snap.Asks); err != nil {
				t.Fatal(err)
			}
		}
		j.settle()
		c.drain(order)
		events, covered := 0, []Ask{}
		for _, f := range c.frames {
			switch f.Kind {
			case FrameEvent:
				events++
				if f.Event.ID != "synthetic_"+testEvent(50, Keys{}).ID {
					t.Errorf("event %s, want the synthetic one", f.Event.ID)
				}
			case FrameCovered:
				if !slices.Contains(covered, f.Covered) { // asked for twice, it may be answered twice
					covered = append(covered, f.Covered)
				}
			}
		}
		slices.SortFunc(covered, func(a, b Ask) int { return strings.Compare(b.Order, a.Order) })
		if want := []Ask{{Order: "old"}, {Order: "gone"}}; events != 1 || !slices.Equal(covered, want) {
			t.Errorf("%d events, covered %+v, want 1 and %+v", events, covered, want)
		}
		if got := len(j.mc.ids()); got != 1 {
			t.Errorf("the customer got %d events, want the synthetic one", got)
		}
		wantIDs(t, "another's", j.oc.ids())
		snap, err = j.n.Snapshot(t.Context(), scope)
		if err != nil || !snap.Complete || len(snap.Frames) != 1 {
			t.Errorf("snapshot afterwards = %+v, %v, want one event and complete", snap, err)
		}
		for _, e := range j.l.entries() {
			if e.Join != nil && e.Join.Covered && e.Join.Missing != (e.Join.Order == "gone") {
				t.Errorf("join entry %+v, want missing for the unknown order alone", e.Join)
			}
		}
	})
}

func TestAskedCustomerIsCompletedAndCovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		for i := range 5 {
			j.u.knows(50+i, Keys{Order: fmt.Sprint("old", i), Customer: "c"})
		}
		j.u.knows(60, Keys{Order: "foreign", Customer: "d"})
		scope := Scope{Customer: "c"}
		snap, err := j.n.Snapshot(t.Context(), scope)
		if want := []Ask{{Customer: "c"}}; err != nil || snap.Complete || !slices.Equal(snap.Asks, want) {
			t.Fatalf("snapshot = %+v, %v, want asks %+v", snap, err, want)
		}
		if err := j.n.Ask(t.Context(), snap.Asks); err != nil {
			t.Fatal(err)
		}
		j.settle()
		if got := len(j.mc.ids()); got != 5 {
			t.Errorf("the customer got %d events, want 5", got)
		}
		if last := j.mc.frames[len(j.mc.frames)-1]; last.Kind != FrameCovered || last.Covered != (Ask{Customer: "c"}) {
			t.Errorf("last frame = %+v, want covered, after all orders", last)
		}
		if got := len(j.oc.frames); got != 0 {
			t.Errorf("another customer got %d frames, want none", got)
		}
		snap, err = j.n.Snapshot(t.Context(), scope)
		if err != nil || !snap.Complete || len(snap.Frames) != 5 {
			t.Errorf("snapshot afterwards: %d frames, complete %v, %v, want 5 and complete", len(snap.Frames), snap.Complete, err)
		}
		var orders []string
		for _, f := range snap.Frames {
			orders = append(orders, f.Event.Keys.Order)
		}
		if want := []string{"old0", "old1", "old2", "old3", "old4"}; !slices.Equal(orders, want) {
			t.Errorf("snapshot afterwards = %v, want the oldest first", orders)
		}
	})
}

// A look-up of many orders does not push the one that moves now out of sight.
func TestAskedCustomerKeepsTheNewestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoinSetup(t)
		for i := range MaxSnapshotOrders + 20 {
			j.u.knows(50+i, Keys{Order: fmt.Sprint("old", i), Customer: "c"})
		}
		j.u.knows(5000, Keys{Order: "new", Customer: "c"})
		j.u.emit(testEvent(5000, Keys{Order: "new", Customer: "c"}))
		j.settle()
		if err := j.n.Ask(t.Context(), []Ask{{Customer: "c"}}); err != nil {
			t.Fatal(err)
		}
		j.settle()
		snap, err := j.n.Snapshot(t.Context(), Scope{Customer: "c"})
		shown := slices.ContainsFunc(snap.Frames, func(f *Frame) bool { return f.Event.Keys.Order == "new" })
		if err != nil || !snap.Complete || !snap.Truncated || !shown || len(snap.Frames) != MaxSnapshotOrders {
			t.Errorf("snapshot of %d orders, complete %v, truncated %v, %v, with the newest %v; want %d, both and with it",
				len(snap.Frames), snap.Complete, snap.Truncated, err, shown, MaxSnapshotOrders)
		}
	})
}

func TestAskWithoutLeadershipIsForgotten(t *testing.T) {
	in := NewIngest(newMemLog().client(), newUpstream(), IngestConfig{Lease: testLease})
	in.Ask(Ask{Order: "o"})
	if got := in.Stats().Waiting; got != 0 {
		t.Errorf("%d look-ups wait at a node that does not lead, want 0", got)
	}
}

// The log believes the leader and does not look: it must never be wrong, whatever
// it has forgotten, adopted, or seen already.
func TestEventIsCalledTheNewestOrSettledOnlyWhereItIs(t *testing.T) {
	l := newMemLog()
	w, r := newWriter(t, l), rand.New(rand.NewPCG(1, 2))
	known, called, settled, repeated := newLinks(), 0, 0, 0
	for i := range 20_000 {
		pick := func(kind string) string { // others every now and then: links stay once they are known
			if r.IntN(3) == 0 {
				return ""
			}
			return fmt.Sprint(kind, i/30, "_", r.IntN(4))
		}
		switch r.IntN(100) {
		case 0: // another leader
			w.lead(false)
			known = newLinks()
		case 1: // trimmed
			l.mu.Lock()
			delete(l.data.states, "o"+pick("o"))
			l.mu.Unlock()
		case 2: // somebody misses it
			delete(known.orders, pick("o"))
		}
		var batch []work
		for range 1 + r.IntN(3) {
			ev := testEvent(max(1, i+r.IntN(20)-10), Keys{Order: pick("o"), Invoice: pick("i"), Customer: pick("c")})
			ev.Object = Object(r.IntN(int(ObjectPayment) + 1))
			if r.IntN(10) == 0 {
				ev.ID, ev.Version = fmt.Sprint("unversioned", i), Version{}
			}
			batch = append(batch, work{arrival: Arrival{Event: ev}})
		}
		if o := pick("o"); o != "" && r.IntN(4) == 0 { // looked up, and put in front by that
			w := work{looked: &lookup{ask: Ask{Order: o}, asked: true, done: true}}
			batch = slices.Insert(batch, r.IntN(len(batch)+1), w)
		}
		if err := known.load(t.Context(), w.c, batch); err != nil {
			t.Fatal(err)
		}
		var out outcome
		for j := range batch {
			known.fill(&batch[j], w.term.Epoch, &out)
		}
		for j := range out.records {
			if out.records[j].Newest {
				called++
			}
			if out.records[j].Settled > 0 {
				settled++
			}
		}
		done := w.records(out.records...)
		repeated += done.Duplicates
		known.fronts.appended(out.records, done.Duplicates)
	}
	l.check(t)
	if called < 5000 || settled < 1000 || repeated < 1000 {
		t.Errorf("%d events were called the newest, %d settled, and %d repeated; want at least 5000, 1000 and 1000", called, settled, repeated)
	}
}
