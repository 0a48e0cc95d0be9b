package gateway

import (
	"fmt"
	"slices"
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
		j.u.knows(50, Keys{Order: "anonymous"})
		for i := range 50 {
			j.u.emit(testEvent(4*i, Keys{Order: "anonymous"}), testEvent(4*i+1, Keys{Order: "unknown"}), invoiceEvent(4*i+2, Keys{Invoice: "unknown"}))
			j.settle()
		}
		for _, what := range []string{"order anonymous", "order unknown", "invoice unknown"} {
			if got := j.u.called(what); got != 1 {
				t.Errorf("%s was asked for %d times within %v, want once", what, got, missingFor)
			}
		}
		time.Sleep(missingFor)
		j.u.emit(testEvent(1000, Keys{Order: "unknown"}))
		j.settle()
		if got := j.u.called("order unknown"); got != 2 {
			t.Errorf("an unknown order was asked for %d times, want again after %v", got, missingFor)
		}
		wantAll(t, j.l, j.u)
	})
}

func TestAsksAreBounded(t *testing.T) {
	a := newAsks()
	for i := range 2 * maxAsks {
		a.add(lookup{ask: Ask{Order: fmt.Sprint(i)}})
		a.add(lookup{ask: Ask{Order: fmt.Sprint(i)}})
	}
	if got := len(a.waiting); got != maxAsks || len(a.names) != maxAsks {
		t.Errorf("%d look-ups and %d names wait, want %d", got, len(a.names), maxAsks)
	}
	for i := range 3 * maxAsks {
		a.notFound(&lookup{ask: Ask{Order: fmt.Sprint(i)}})
	}
	if got := len(a.missing); got > maxAsks {
		t.Errorf("%d missing orders remembered, want at most %d", got, maxAsks)
	}
	a.clear()
	a.add(lookup{ask: Ask{Order: "x"}})
	a.add(lookup{ask: Ask{Order: "x"}, asked: true})
	if l, ok := a.next(t.Context()); !ok || !l.asked {
		t.Errorf("next = %+v, %v, want the look-up, asked for by a client", l, ok)
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
	})
}

func TestAskWithoutLeadershipIsForgotten(t *testing.T) {
	in := NewIngest(newMemLog().client(), newUpstream(), IngestConfig{Lease: testLease})
	in.Ask(Ask{Order: "o"})
	if got := len(in.asks.waiting); got != 0 {
		t.Errorf("%d look-ups wait at a node that does not lead, want 0", got)
	}
}
