package gateway

import (
	"context"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A whole is a node as it is served: it campaigns, and hands out itself what it
// appends.
type whole struct {
	*Node
	in     *Ingest
	c      *memClient
	resign context.CancelFunc // ends the campaign, not the node
	ended  chan struct{}
}

func startWhole(t *testing.T, l *memLog, src Source) *whole {
	t.Helper()
	w := &whole{c: l.client(), ended: make(chan struct{})}
	w.in = NewIngest(w.c, src, IngestConfig{
		Lease:    testLease,
		OnLead:   func(leading bool) { w.Lead(leading) },
		OnAppend: func(a Announcement) { w.Take(a) },
	})
	w.Node = NewNode(w.c, NodeConfig{OnAsk: w.in.Ask, OnNudge: w.in.Nudge})
	ctx, resign := context.WithCancel(t.Context())
	w.resign = resign
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(t.Context()) })
	go func() {
		defer close(w.ended)
		_ = w.in.Run(ctx)
	}()
	t.Cleanup(func() {
		resign()
		<-w.ended
		wg.Wait()
	})
	return w
}

// startLeader starts a whole that leads and is live.
func startLeader(t *testing.T, l *memLog, src Source) *whole {
	t.Helper()
	w := startWhole(t, l, src)
	time.Sleep(3 * time.Second)
	synctest.Wait()
	if w.in.Leading() == "" {
		t.Fatal("the only node does not lead")
	}
	return w
}

func TestLeaderHandsOutWhatItAppendsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		w := startLeader(t, l, u)
		sub, got := live(t, w.Node, account)
		polls := w.c.called("read")
		for i := range 50 {
			u.emit(testEvent(i, Keys{}))
			synctest.Wait() // no time passes
			if got.drain(sub); !got.has(i) {
				t.Fatalf("event %d is not handed out at once", i)
			}
		}
		if n := w.c.called("read") - polls; n != 0 {
			t.Errorf("%d reads of the log, want none", n)
		}
	})
}

func TestEventIsHandedOutOnlyOnceItIsAppended(t *testing.T) {
	for name, fault := range map[string]memFault{
		"slow":   {delay: 500 * time.Millisecond},
		"failed": {refuse: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, u := newMemLog(), newUpstream()
				w := startLeader(t, l, u)
				sub, got := live(t, w.Node, account)
				w.c.setFault(func(op string) memFault {
					if op == "append" {
						return fault
					}
					return memFault{}
				})
				u.emit(testEvent(1, Keys{}))
				time.Sleep(400 * time.Millisecond)
				synctest.Wait()
				if got.drain(sub); len(got.frames) != 0 || l.tip() != 0 {
					t.Errorf("%q handed out, tip %d; want nothing before the append is through", got.ids(), l.tip())
				}
				w.c.setFault(nil)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				got.drain(sub)
				wantIDs(t, "handed out", got.ids(), 1)
			})
		})
	}
}

// What the leader hands out itself is what the others are announced, whatever
// the log made of the batch.
func TestLeaderHandsOutWhatOthersAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		u.knows(100, Keys{Order: "late", Invoice: "inv", Customer: "c"})
		leader := startLeader(t, l, u)
		other, _ := startNode(t, l, NodeConfig{})
		time.Sleep(2 * time.Second)
		customer := Scope{Customer: "c"}
		mine, gotMine := live(t, leader.Node, customer)
		theirs, gotTheirs := live(t, other, customer)
		u.emit(
			invoiceEvent(1, Keys{Invoice: "inv"}),         // its order is looked up
			testEvent(2, Keys{Order: "o"}),                // nobody's yet
			testEvent(3, Keys{Order: "o"}),                // nor this
			testEvent(2, Keys{Order: "o"}),                // a duplicate
			testEvent(4, Keys{Order: "o", Customer: "c"}), // they were c's
			testEvent(5, Keys{Order: "x", Customer: "d"}),
			testEvent(4, Keys{Order: "o", Customer: "c"}),
		)
		for i := 6; i < 40; i++ {
			u.emit(testEvent(i, Keys{Order: "o"}), testEvent(i-1, Keys{Order: "o"}))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		gotMine.drain(mine)
		gotTheirs.drain(theirs)
		if s := leader.in.Stats(); s.Duplicates == 0 || l.tip() == uint64(s.Appended-s.Duplicates) {
			t.Fatalf("stats = %+v, want some duplicates", s)
		}
		if a, b := gotMine.ids(), gotTheirs.ids(); !slices.Equal(a, b) || len(a) < 37 {
			t.Errorf("the leader's client got %q, want as another node's %q", a, b)
		}
		var a, b []Position
		for _, f := range gotMine.frames {
			a = append(a, f.Pos)
		}
		for _, f := range gotTheirs.frames {
			b = append(b, f.Pos)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("positions %v, want %v", a, b)
		}
		l.check(t)
	})
}

func TestFailedAppendIsLeftToTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		w := startLeader(t, l, u)
		w.c.setFault(func(op string) memFault { return memFault{hang: op == "append"} })
		before := len(w.c.appended())
		u.emit(testEvent(0, Keys{}))
		time.Sleep(commandTimeout + 50*time.Millisecond) // the source's own attempt is over
		for i := 1; i <= 100; i++ {
			u.emit(testEvent(i, Keys{}))
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if got := w.in.Stats().Queued; got != int64(i) {
				t.Fatalf("%d queued while the log hangs, want %d: the source goes on reading", got, i)
			}
		}
		u.emit(someEvents(101, 2*queueRecords)...)
		time.Sleep(10 * time.Second)
		if got := w.in.Stats().Queued; got > queueRecords || got < queueRecords-1 {
			t.Errorf("%d queued, want the queue full with %d", got, queueRecords)
		}
		w.c.setFault(nil)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		wantAll(t, l, u)
		calls := w.c.appended()[before:]
		first := calls[0]
		for i := 1; calls[i-1].err != nil; i++ {
			if !reflect.DeepEqual(first.records, calls[i].records) {
				t.Errorf("attempt %d has %d records, want the first one's %d again", i, len(calls[i].records), len(first.records))
			}
		}
	})
}

// A log that is away is not asked for each event that arrives meanwhile.
func TestRefusedAppendsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		w := startLeader(t, l, u)
		w.c.setFault(func(op string) memFault { return memFault{refuse: op == "append"} })
		before := w.c.called("append")
		for i := range 2000 {
			u.emit(testEvent(i, Keys{}))
			time.Sleep(time.Millisecond)
		}
		if n := w.c.called("append") - before; n > 10 {
			t.Errorf("%d appends within 2s of being refused, want no more than the loop makes", n)
		}
		w.c.setFault(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		wantAll(t, l, u)
	})
}

// The source's context ends with the batch in flight, applied or not.
func TestBatchInFlightWhenTheSourceEndsIsFlushed(t *testing.T) {
	for name, fault := range map[string]memFault{
		"not applied": {delay: 300 * time.Millisecond},
		"applied":     {lateReply: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, u := newMemLog(), newUpstream()
				w := startLeader(t, l, u)
				sub, got := live(t, w.Node, account)
				w.c.setFault(func(op string) memFault {
					if op == "append" {
						return fault
					}
					return memFault{}
				})
				u.emit(testEvent(1, Keys{}))
				time.Sleep(100 * time.Millisecond)
				w.resign()
				<-w.ended
				time.Sleep(pollEvery)
				synctest.Wait()
				wantAll(t, l, u)
				got.drain(sub)
				wantIDs(t, "handed out", got.ids(), 1)
			})
		})
	}
}

func TestNodeThatStopsLeadingFollowsTheOthers(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, a *whole){
		"resigns": func(_ *testing.T, a *whole) {
			a.resign()
			<-a.ended
		},
		"is cut off past its lease": func(_ *testing.T, a *whole) {
			a.c.cut(memFault{hang: true})
			time.Sleep(2 * testLease)
			a.c.heal()
			time.Sleep(2 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, u := newMemLog(), newUpstream()
				a := startLeader(t, l, u)
				b := startWhole(t, l, u)
				v := &viewer{log: l, scope: account}
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { v.run(ctx, a.Node) })
				emitted := make(chan struct{})
				go func() {
					defer close(emitted)
					for i := range 3000 {
						u.emit(testEvent(i, Keys{}))
						time.Sleep(7 * time.Millisecond)
					}
				}()
				time.Sleep(3 * time.Second)
				end(t, a)
				<-emitted
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if a.in.Leading() != "" || b.in.Leading() == "" {
					t.Fatal("the other does not lead")
				}
				sub, got := live(t, a.Node, account)
				reads := a.c.called("read")
				for i := range 10 {
					u.emit(testEvent(5000+i, Keys{}))
					synctest.Wait()
					if got.drain(sub); !got.has(5000 + i) {
						t.Fatalf("event %d does not arrive at once at the node that led before", i)
					}
				}
				if n := a.c.called("read") - reads; n != 0 {
					t.Errorf("%d reads of the log, want none: the channel brings it", n)
				}
				stop()
				wg.Wait()
				wantAll(t, l, u)
				v.check(t, "viewer", false)
			})
		})
	}
}

// Whoever leads next appends what this node must hear of.
func TestLeaderFollowsTheOthersBeforeItReleasesTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		w := startLeader(t, l, u)
		var leading, released bool
		w.c.setFault(func(op string) memFault {
			if op == "release" {
				w.tail.mu.Lock()
				leading, released = w.tail.leading, true
				w.tail.mu.Unlock()
			}
			return memFault{}
		})
		w.resign()
		<-w.ended
		if !released || leading {
			t.Errorf("released: %t, following as a leader then: %t; want true and false", released, leading)
		}
	})
}

func TestLeaderHearsAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		u.knows(1, Keys{Order: "o", Customer: "c"})
		startLeader(t, l, u)
		other := l.client()
		if err := other.Ask(t.Context(), Ask{Order: "o"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if u.called("order o") == 0 {
			t.Error("the order is not looked up, want it asked of the upstream")
		}
	})
}

func TestDeadSubscriptionOfALeaderIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		u.knows(1, Keys{Order: "o", Customer: "c"})
		w := startLeader(t, l, u)
		tails := w.c.called("tail")
		deafen(w.c, tails)
		for dead := time.Now(); w.c.called("tail") == tails; time.Sleep(10 * time.Millisecond) {
			if time.Since(dead) > 5*time.Second {
				t.Fatal("not noticed within 5s")
			}
		}
		if got := w.Stats().DeadTails; got != 1 {
			t.Errorf("%d subscriptions given up, want 1", got)
		}
		time.Sleep(time.Minute)
		if got := w.c.called("tail"); got != tails+1 {
			t.Errorf("%d subscriptions made, want 1 more", got-tails)
		}
		if err := l.client().Ask(t.Context(), Ask{Order: "o"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if u.called("order o") == 0 {
			t.Error("the new subscription brings no asks")
		}
	})
}

// The clients of the leader learn of the upstream's state as soon as others do.
func TestLeadersOwnClientsLearnOfItsHealthAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		w := startLeader(t, l, u)
		other, _ := startNode(t, l, NodeConfig{})
		for i := range 10 {
			time.Sleep(1357 * time.Millisecond)
			u.setDown(i%2 == 0)
			synctest.Wait()
			mine, _ := w.Health()
			theirs, _ := other.Health()
			if mine != theirs {
				t.Errorf("the leader's clients are told %v, want %v as elsewhere", mine, theirs)
			}
		}
	})
}

func TestSubscriptionIsWhatWasSaidLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		rng := rand.New(rand.NewSource(1))
		emitted := 0
		for range 200 {
			for range rng.Intn(4) {
				n.Lead(rng.Intn(2) == 0)
				if rng.Intn(2) == 0 {
					synctest.Wait()
				}
			}
			leading := rng.Intn(2) == 0
			n.Lead(leading)
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			before := n.Position().Seq
			w.events(testEvent(emitted, Keys{}))
			emitted++
			synctest.Wait()
			if followed := n.Position().Seq > before; followed == leading {
				t.Fatalf("leads: %t, hears others' events: %t; want one of them", leading, followed)
			}
			time.Sleep(2 * pollEvery)
		}
	})
}

// Several nodes take the lead from one another, by every way there is, while each
// hands out by own appends, announcements and polls in turn.
func TestNothingIsLostOrDoubledAcrossLeaders(t *testing.T) {
	for seed := range int64(15) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewSource(seed))
				l, u := newMemLog(), newUpstream()
				u.overlap = rng.Intn(10)
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				var nodes []*whole
				var viewers []*viewer
				for i := range 3 {
					w := startWhole(t, l, u)
					v := &viewer{log: l, scope: account}
					if i == 1 {
						v.scope = Scope{Customer: "c1"}
					}
					nodes, viewers = append(nodes, w), append(viewers, v)
					time.Sleep(2 * time.Second)
					wg.Go(func() { // a browser that comes back
						for ctx.Err() == nil {
							v.run(ctx, w.Node)
							sleep(ctx, retryMin)
						}
					})
				}
				at := 0
				for range 40 {
					for range rng.Intn(30) {
						order := rng.Intn(50)
						u.emit(testEvent(at, Keys{Order: fmt.Sprint("o", order), Customer: fmt.Sprint("c", order%3)}))
						at++
						time.Sleep(time.Duration(rng.Intn(20)) * time.Millisecond)
					}
					w := nodes[rng.Intn(len(nodes))]
					switch rng.Intn(6) {
					case 0:
						w.c.cut(memFault{hang: true})
					case 1:
						w.c.setFault(func(string) memFault { return memFault{lateReply: 300 * time.Millisecond} })
					case 2:
						n := 0
						w.c.setFault(func(op string) memFault {
							n++ // under the log's lock
							return memFault{loseReply: op == "append" && n%3 == 0, refuse: op == "append" && n%5 == 0}
						})
					case 3:
						w.c.setAnnounce(func(a Announcement) []time.Duration {
							return []time.Duration{0, time.Duration(a.From%7) * time.Millisecond}
						})
					}
					time.Sleep(time.Duration(rng.Intn(4000)) * time.Millisecond)
					if rng.Intn(2) == 0 {
						w.c.heal()
					}
				}
				for _, w := range nodes {
					w.c.heal()
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				stop()
				wg.Wait()
				wantAll(t, l, u)
				for i, v := range viewers {
					v.check(t, fmt.Sprint("viewer ", i), false)
				}
			})
		})
	}
}

// A hoard is a source that has everything at hand at once.
type hoard struct {
	*upstream
	arrivals []Arrival
}

func (h *hoard) Run(ctx context.Context, _ UpstreamCursor, sink SourceSink) error {
	if err := sink.Put(ctx, true, h.arrivals...); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestOnePutThatFillsTheQueueIsAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, h := newMemLog(), &hoard{upstream: newUpstream()}
		for _, ev := range someEvents(0, 3*queueRecords) {
			h.arrivals = append(h.arrivals, Arrival{Event: ev})
		}
		startLeader(t, l, h)
		if got, want := l.tip(), uint64(len(h.arrivals)); got != want {
			t.Errorf("tip %d, want %d", got, want)
		}
	})
}

// Which of a batch may be older is told, and when the history began, whoever
// brings the cursor.
func TestLogIsToldOfABatchThatMayBeOlderThanIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, evs := newMemLog(), someEvents(0, 2)
		h := &hoard{upstream: newUpstream(), arrivals: []Arrival{
			{Event: evs[0], Cursor: UpstreamCursor{Began: 7}, Prior: true},
			{Event: evs[1], Cursor: UpstreamCursor{ID: evs[1].ID, Created: 9}},
		}}
		startLeader(t, l, h)
		l.mu.Lock()
		defer l.mu.Unlock()
		if want := (UpstreamCursor{ID: evs[1].ID, Created: 9, Began: 7}); l.data.cursor != want || l.data.prior != 1 {
			t.Errorf("cursor %+v, up to %d may be older; want %+v, up to 1", l.data.cursor, l.data.prior, want)
		}
	})
}

// Who is at it may have looked into the queue for the last time already.
func TestQueuedWhileTheTurnIsTakenIsAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		c := l.client()
		won, _, err := c.Acquire(t.Context(), AcquireRequest{Nonce: newEpoch(), TTL: testLease})
		if err != nil {
			t.Fatal(err)
		}
		tm := newTerm(NewIngest(c, newUpstream(), IngestConfig{Lease: testLease}), won)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = tm.appendLoop(ctx) })
		tm.turn <- struct{}{}
		if err := tm.Put(ctx, false, Arrival{Event: testEvent(1, Keys{})}); err != nil {
			t.Fatal(err)
		}
		<-tm.turn
		synctest.Wait()
		if got := l.tip(); got != 1 {
			t.Errorf("tip %d, want 1", got)
		}
		stop()
		wg.Wait()
	})
}

func TestEachBatchIsHandedOutBeforeTheNextIsAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		var mu sync.Mutex
		var handed, batches, late, misplaced int
		m := startMemberWith(t, l, u, IngestConfig{Lease: testLease, OnAppend: func(a Announcement) {
			mu.Lock()
			defer mu.Unlock()
			if a.From != uint64(handed) {
				misplaced++
			}
			handed += len(a.Entries)
		}})
		m.c.setFault(func(op string) memFault { // called under the log's lock
			mu.Lock()
			defer mu.Unlock()
			if op == "append" {
				batches++
				if uint64(handed) != l.data.seq {
					late++
				}
			}
			return memFault{}
		})
		for i := range 20 {
			u.emit(someEvents(i*1000, 1000)...)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if late > 0 || misplaced > 0 || handed != 20_000 || batches < 70 {
			t.Errorf("%d of %d batches began before the last one was handed out, %d misplaced, %d events in all; want none, none and 20000",
				late, batches, misplaced, handed)
		}
	})
}
