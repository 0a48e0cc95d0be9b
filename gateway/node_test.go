package gateway

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// watch records every change of a node's health until the bubble ends.
func watch(t *testing.T, n *Node) func() []string {
	var mu sync.Mutex
	var all []string
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			h, changed := n.Health()
			mu.Lock()
			all = append(all, string(h.State)+" "+h.Reason)
			mu.Unlock()
			select {
			case <-t.Context().Done():
				return
			case <-changed:
			}
		}
	})
	t.Cleanup(wg.Wait)
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func state(n *Node) string {
	h, _ := n.Health()
	return string(h.State) + " " + h.Reason
}

func TestHealthWhenTheLogIsUnreachable(t *testing.T) {
	for name, how := range map[string]memFault{
		"refused": {refuse: true}, "silent": {hang: true}, "too slow": {delay: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newMemLog()
				newWriter(t, l)
				n, nc := startNode(t, l, NodeConfig{})
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if got, want := state(n), "live ok"; got != want {
					t.Fatalf("health = %q, want %q", got, want)
				}
				_, changed := n.Health()
				nc.cut(how)
				cut := time.Now()
				select {
				case <-changed:
				case <-time.After(time.Minute):
				}
				if d := time.Since(cut); d > 3*time.Second {
					t.Errorf("stale after %v, want within 3s", d)
				}
				if got, want := state(n), "stale log_unreachable"; got != want {
					t.Errorf("health = %q, want %q", got, want)
				}
				if n.Ready() != nil {
					t.Errorf("a node without its log is not ready any more, want ready")
				}
				nc.heal()
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if got, want := state(n), "live ok"; got != want {
					t.Errorf("health after healing = %q, want %q", got, want)
				}
			})
		})
	}
}

func TestHealthWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		changes := watch(t, n)
		time.Sleep(time.Second)
		// A handover shorter than the grace is no news, nor is the new leader's
		// moment of catching up.
		for range 3 {
			_ = w.c.Release(t.Context(), w.term)
			time.Sleep(leaderGrace - pollEvery/2)
			w.term, _, _ = w.c.Acquire(t.Context(), AcquireRequest{Nonce: newEpoch(), TTL: time.Hour})
			_ = w.c.Renew(t.Context(), w.term, 0, time.Hour, Health{State: CatchingUp, Reason: "backfill"})
			time.Sleep(healthGrace / 2)
			_ = w.c.Renew(t.Context(), w.term, 0, time.Hour, Health{State: Live, Reason: "ok"})
			time.Sleep(5 * time.Second)
		}
		synctest.Wait()
		if got, want := changes(), []string{"live ok"}; !slices.Equal(got, want) {
			t.Errorf("health over three handovers = %q, want %q", got, want)
		}
		_ = w.c.Release(t.Context(), w.term)
		time.Sleep(leaderGrace + pollEvery)
		synctest.Wait()
		if got, want := state(n), "stale no_leader"; got != want {
			t.Errorf("health = %q, want %q", got, want)
		}
		if got := n.Leader(); got != "" {
			t.Errorf("Leader = %q, want none", got)
		}
		w.lead(false)
		time.Sleep(pollEvery)
		synctest.Wait()
		if got, want := state(n), "live ok"; got != want {
			t.Errorf("health with the next leader = %q, want %q", got, want)
		}
	})
}

// What the last leader said of the upstream is no news of today.
func TestNodeThatStartsWithoutALeaderIsNotLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		_ = w.c.Release(t.Context(), w.term)
		n, _ := startNode(t, l, NodeConfig{})
		changes := watch(t, n)
		time.Sleep(leaderGrace + pollEvery)
		synctest.Wait()
		if got, want := changes(), []string{"catching_up starting", "stale no_leader"}; !slices.Equal(got, want) {
			t.Errorf("health = %q, want %q", got, want)
		}
	})
}

func TestHealthTellsWhenCatchingUpLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		_ = w.c.Renew(t.Context(), w.term, 0, time.Hour, Health{State: CatchingUp, Reason: "backfill"})
		time.Sleep(healthGrace / 2)
		if got, want := state(n), "live ok"; got != want {
			t.Errorf("health at once = %q, want %q", got, want)
		}
		time.Sleep(healthGrace)
		if got, want := state(n), "catching_up backfill"; got != want {
			t.Errorf("health = %q, want %q", got, want)
		}
		_ = w.c.Renew(t.Context(), w.term, 0, time.Hour, Health{State: Stale, Reason: "upstream_down"})
		synctest.Wait()
		if got, want := state(n), "stale upstream_down"; got != want {
			t.Errorf("health = %q, want %q at once", got, want)
		}
		l.deleteKey()
		time.Sleep(2 * pollEvery)
		if got, want := state(n), "catching_up history_lost"; got != want {
			t.Errorf("health with a key gone = %q, want %q", got, want)
		}
	})
}

func TestHealthOfAnEmptyLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := startNode(t, newMemLog(), NodeConfig{})
		if got, want := state(n), "catching_up starting"; got != want {
			t.Errorf("health = %q, want %q", got, want)
		}
		time.Sleep(leaderGrace + time.Second)
		if got, want := state(n), "stale no_leader"; got != want {
			t.Errorf("health = %q, want %q", got, want)
		}
	})
}

func TestLocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		l.retain = 100
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		start := n.Position()
		for i := range 20 {
			w.events(testEvent(i, Keys{Order: fmt.Sprint("o", i%2), Customer: fmt.Sprint("c", i%2)}))
		}
		synctest.Wait()
		mine := Scope{Customer: "c0"}
		reads := nc.called("read")
		at, err := n.Locate(t.Context(), n.Cursor(Position{start.Epoch, 7}), mine)
		if want := (Start{Resumed: true, Pos: Position{start.Epoch, 7}}); at != want || err != nil {
			t.Errorf("Locate of a cursor = %+v, %v, want %+v", at, err, want)
		}
		if got := nc.called("read") - reads; got != 0 {
			t.Errorf("%d reads for a cursor that the ring holds, want 0", got)
		}

		at, err = n.Locate(t.Context(), testEvent(4, Keys{}).ID, mine)
		if want := (Start{Resumed: true, Pos: Position{start.Epoch, 5}}); at != want || err != nil {
			t.Errorf("Locate of an own event = %+v, %v, want %+v", at, err, want)
		}
		at, err = n.Locate(t.Context(), testEvent(18, Keys{}).ID, Scope{Orders: []string{"o0"}})
		if want := (Start{Resumed: true, Pos: n.Position()}); at != want || err != nil {
			t.Errorf("Locate of the order's newest event = %+v, %v, want the tip", at, err)
		}
		unknown := Start{Reason: "unknown"}
		for what, since := range map[string]string{
			"another's event": testEvent(5, Keys{}).ID, "no event": "evt_1-1", "no cursor": "cur_AAAAAAAAAAAAAAAAAAAAAA",
			"another epoch's cursor": n.Cursor(Position{77, 3}), "another key's cursor": testCodec(t, "fedcba9876543210").Encode(Position{start.Epoch, 3}),
		} {
			if at, err := n.Locate(t.Context(), since, mine); at != unknown || err != nil {
				t.Errorf("Locate of %s = %+v, %v, want %+v", what, at, err, unknown)
			}
		}

		for i := range 200 {
			w.events(testEvent(100+i, Keys{}))
		}
		synctest.Wait()
		n.hub.ring.reset(n.Position().Seq)
		at, err = n.Locate(t.Context(), n.Cursor(Position{start.Epoch, 7}), mine)
		if want := (Start{Reason: "expired"}); at != want || err != nil {
			t.Errorf("Locate of a trimmed place = %+v, %v, want %+v", at, err, want)
		}
		nc.cut(memFault{refuse: true})
		if at, err := n.Locate(t.Context(), "evt_1-1", mine); err == nil {
			t.Errorf("Locate without a log = %+v, want an error", at)
		}
	})
}

func TestSnapshotShowsOnlyTheScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		w.events(testEvent(3, Keys{Order: "a", Customer: "c"}), testEvent(1, Keys{Order: "a", Customer: "c"}), // older, late
			invoiceEvent(4, Keys{Order: "a", Customer: "c", Invoice: "i"}), testEvent(5, Keys{Order: "b", Customer: "d"}),
			invoiceEvent(6, Keys{Order: "e", Customer: "c"}))
		frames := func(s Scope) []string {
			t.Helper()
			snap, err := n.Snapshot(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return (&collector{snap.Frames}).ids()
		}
		wantIDs(t, "the customer's", frames(Scope{Customer: "c"}), 3, 4, 6)
		wantIDs(t, "the order's", frames(Scope{Orders: []string{"b"}}), 5)
		wantIDs(t, "of another's order", frames(Scope{Customer: "c", Orders: []string{"b"}}))
		snap, err := n.Snapshot(t.Context(), Scope{Customer: "c"})
		if want := []Ask{{Customer: "c"}}; err != nil || snap.Complete || !slices.Equal(snap.Asks, want) {
			t.Errorf("complete %v, asks %+v, %v, want %+v", snap.Complete, snap.Asks, err, want)
		}
		synctest.Wait()
		if snap.Pos != n.Position() {
			t.Errorf("snapshot of %v, want %v", snap.Pos, n.Position())
		}
		snap, err = n.Snapshot(t.Context(), Scope{Orders: []string{"a"}})
		if err != nil || !snap.Complete || len(snap.Asks) > 0 {
			t.Errorf("snapshot of a known order = %+v, %v, want complete", snap, err)
		}
		if _, err := n.Snapshot(t.Context(), account); err == nil {
			t.Errorf("Snapshot of the account = nil, want an error")
		}
	})
}

func TestNodePassesAsksAndNudgesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		var mu sync.Mutex
		var asked []Ask
		nudges := 0
		n, _ := startNode(t, l, NodeConfig{
			OnAsk:   func(a Ask) { mu.Lock(); asked = append(asked, a); mu.Unlock() },
			OnNudge: func() { mu.Lock(); nudges++; mu.Unlock() },
		})
		want := []Ask{{Order: "o"}, {Customer: "c"}}
		if err := n.Ask(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		newWriter(t, l)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(asked, want) || nudges == 0 {
			t.Errorf("asks %+v and %d nudges passed on, want %+v and some", asked, nudges, want)
		}
	})
}

// Within a customer's scope an order that is not theirs looks the same whether
// it exists or not, and nobody is asked about it.
func TestSnapshotTellsNothingOfOthersOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		w.events(testEvent(1, Keys{Order: "theirs", Customer: "d"}))
		for _, covered := range []bool{false, true} {
			if covered {
				w.join("covered", Join{Customer: "c", Covered: true})
			}
			for _, order := range []string{"theirs", "nobody's"} {
				scope, err := Scope{Customer: "c"}.Narrow(Filter{Orders: []string{order}})
				if err != nil {
					t.Fatal(err)
				}
				snap, err := n.Snapshot(t.Context(), scope)
				var want []Ask
				if !covered {
					want = []Ask{{Customer: "c"}}
				}
				if err != nil || snap.Complete != covered || len(snap.Frames) != 0 || !slices.Equal(snap.Asks, want) {
					t.Errorf("%s, covered %v: %+v, %v; want asks %v", order, covered, snap, err, want)
				}
			}
		}
	})
}

// An order that the merchant signed into the token is asked about, also when the
// customer is known: its state may have been trimmed.
func TestSnapshotMissesOrdersThatTheTokenNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		w.join("covered", Join{Customer: "c", Covered: true})
		snap, err := n.Snapshot(t.Context(), Scope{Customer: "c", Orders: []string{"trimmed"}})
		if want := []Ask{{Order: "trimmed"}}; err != nil || snap.Complete || !slices.Equal(snap.Asks, want) {
			t.Errorf("%+v, %v; want incomplete, asks %v", snap, err, want)
		}
	})
}
