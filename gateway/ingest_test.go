package gateway

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneOfThreeLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		var all []*member
		for range 3 {
			all = append(all, startMember(t, l, u, testLease))
		}
		for i := range 50 {
			u.emit(someEvents(10*i, 10)...)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		wantAll(t, l, u)
		leading, terms := 0, int64(0)
		for _, m := range all {
			if m.in.Leading() != "" {
				leading++
			}
			terms += m.in.Stats().Terms
		}
		if leading != 1 || terms != 1 {
			t.Errorf("%d lead after %d terms, want one and one", leading, terms)
		}
		if _, most := u.connections(); most != 1 {
			t.Errorf("%d connections at once, want 1", most)
		}
	})
}

func TestCrashedLeaderIsReplacedAfterItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		b := startMember(t, l, u, testLease)
		u.emit(someEvents(0, 100)...)
		synctest.Wait()
		a.crash()
		u.emit(someEvents(100, 100)...)
		time.Sleep(testLease / 3)
		if got := b.in.Leading(); got != "" {
			t.Errorf("b leads as %s within a's lease", got)
		}
		leaderOf(t, testLease+contendEvery, b)
		synctest.Wait()
		wantAll(t, l, u)
		if _, most := u.connections(); most != 1 {
			t.Errorf("%d connections at once, want 1", most)
		}
	})
}

func TestLeaderThatEndsHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		b := startMember(t, l, u, testLease)
		connected := -1
		a.c.setFault(func(op string) memFault {
			switch op {
			case "release":
				connected, _ = u.connections()
			case "append":
				return memFault{delay: 100 * time.Millisecond}
			}
			return memFault{}
		})
		u.emit(someEvents(0, 5*batchRecords)...)
		synctest.Wait() // all of it is queued, the first batch on its way
		if got := l.tip(); got != 0 {
			t.Fatalf("tip %d before the first append is through, want 0", got)
		}
		a.stop()
		<-a.ended
		if got, want := l.tip(), uint64(5*batchRecords); got != want {
			t.Errorf("tip %d when the leader was gone, want its queue flushed to %d", got, want)
		}
		if connected != 0 {
			t.Errorf("%d connections when the lease was released, want the source stopped before", connected)
		}
		leaderOf(t, 0, b)
		u.emit(someEvents(5*batchRecords, 10)...)
		synctest.Wait()
		wantAll(t, l, u)
	})
}

func TestFlushIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		a.c.cut(memFault{hang: true})
		u.emit(someEvents(0, 10)...)
		synctest.Wait()
		start := time.Now()
		a.stop()
		<-a.ended
		if d := time.Since(start); d > flushTimeout+2*commandTimeout {
			t.Errorf("stopped after %v without a log, want within %v", d, flushTimeout+2*commandTimeout)
		}
	})
}

// The log may have what the leader does not know of. Only the same bytes again
// cannot give two events one name.
func TestLostReplyIsAnsweredWithTheSameBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		lost := 0
		a.c.setFault(func(op string) memFault {
			if lost++; op == "append" && lost%3 != 0 {
				return memFault{loseReply: lost%2 == 0, refuse: lost%2 == 1}
			}
			return memFault{}
		})
		for i := range 200 {
			u.emit(someEvents(10*i, 10)...)
			u.emit(testEvent(10000+i, Keys{Order: fmt.Sprint("late", i)}), testEvent(20000+i, Keys{Order: fmt.Sprint("late", i), Customer: "c"}))
			time.Sleep(70 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		wantAll(t, l, u)
		calls := a.c.appended()
		retries := 0
		for i := 1; i < len(calls); i++ {
			if calls[i-1].err == nil {
				continue
			}
			retries++
			was, is := calls[i-1], calls[i]
			was.err, is.err = nil, nil
			if !reflect.DeepEqual(was, is) {
				t.Fatalf("call %d after an error: %d records from %d, want the same %d again", i, len(is.records), is.acked, len(was.records))
			}
		}
		if retries < 10 {
			t.Errorf("%d retries, want more: nothing was tested", retries)
		}
		if got := a.in.Stats(); got.Appended+got.Duplicates != int64(l.tip()) {
			t.Errorf("stats = %+v, want %d appended or found there", got, l.tip())
		}
	})
}

func TestRewoundLogIsFilledAgain(t *testing.T) {
	for _, overlap := range []int{0, 20} {
		t.Run(fmt.Sprint(overlap), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, u := newMemLog(), newUpstream()
				u.overlap = overlap
				a := startMember(t, l, u, testLease)
				n, _ := startNode(t, l, NodeConfig{})
				v := &viewer{log: l, scope: account}
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { v.run(ctx, n) })
				leaderOf(t, time.Second, a)
				time.Sleep(2 * pollEvery)
				for i := range 100 {
					u.emit(testEvent(i, Keys{}))
					synctest.Wait()
				}
				first := a.in.Leading()
				l.rewind(50)
				u.emit(someEvents(100, 5)...)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				wantAll(t, l, u)
				if got := a.in.Leading(); got == first || got == "" {
					t.Errorf("leads as %q after the rewind, want another epoch than %q", got, first)
				}
				u.mu.Lock()
				if got, want := u.froms[len(u.froms)-1].ID, testEvent(49, Keys{}).ID; got != want {
					t.Errorf("the source went on from %s, want the log's own cursor %s", got, want)
				}
				u.mu.Unlock()
				stop()
				wg.Wait()
				v.check(t, "viewer", true)
				if got := n.Stats(); got.Resets != 0 || got.Rewinds != 1 {
					t.Errorf("stats = %+v, want one rewind and no reset", got)
				}
			})
		})
	}
}

// A shop where nothing happens for hours must not lack for hours what a Redis
// that came back older has lost.
func TestRewoundLogIsFilledAgainThoughNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		u.emit(someEvents(0, 100)...)
		time.Sleep(time.Minute)
		first := a.in.Leading()
		l.rewind(50)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantAll(t, l, u)
		if got := a.in.Leading(); got == first || got == "" {
			t.Errorf("leads as %q after the rewind, want another epoch than %q", got, first)
		}
	})
}

func TestEmptiedLogStartsANewHistory(t *testing.T) {
	for name, lose := range map[string]func(*memLog){"wiped": (*memLog).wipe, "a key deleted": (*memLog).deleteKey} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, u := newMemLog(), newUpstream()
				a := startMember(t, l, u, testLease)
				leaderOf(t, time.Second, a)
				u.emit(someEvents(0, 50)...)
				synctest.Wait()
				lose(l)
				u.emit(someEvents(50, 5)...)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				wantAll(t, l, u)
				if got := a.in.Stats().Histories; got != 2 {
					t.Errorf("%d histories, want 2", got)
				}
			})
		})
	}
}

func TestFencedLeaderStopsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		u.emit(someEvents(0, 10)...)
		synctest.Wait()
		w := newWriter(t, l) // takes the lease away
		before := l.tip()
		u.emit(someEvents(10, 10)...)
		time.Sleep(time.Second)
		if got := a.in.Leading(); got != "" {
			t.Errorf("still leads as %q", got)
		}
		if now, _ := u.connections(); now != 0 {
			t.Errorf("%d connections of a fenced leader, want 0", now)
		}
		if got := l.tip(); got != before {
			t.Errorf("tip %d, want %d: a fenced leader wrote", got, before)
		}
		if _, ok := a.in.Health(); ok {
			t.Errorf("a node that does not lead tells the upstream's health")
		}
		_ = w.c.Release(t.Context(), w.term)
		leaderOf(t, time.Second, a)
		synctest.Wait()
		wantAll(t, l, u)
	})
}

// Whatever way the leader loses its log, and whenever: its connection is gone
// before another may dial.
func TestSourceEndsBeforeTheLeaseDoes(t *testing.T) {
	for _, lease := range []time.Duration{time.Second, 3 * time.Second, 6 * time.Second, 15 * time.Second} {
		for name, how := range map[string]memFault{"silent": {hang: true}, "refused": {refuse: true}, "slow": {delay: lease}} {
			for part := range time.Duration(6) {
				t.Run(fmt.Sprint(lease, name, int(part)), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						l, u := newMemLog(), newUpstream()
						a := startMember(t, l, u, lease)
						leaderOf(t, 2*time.Second, a)
						b := startMember(t, l, u, lease)
						time.Sleep(lease/3*2 + lease/18*part)
						a.c.cut(how)
						leaderOf(t, 2*lease+contendEvery, b)
						if _, most := u.connections(); most != 1 {
							t.Errorf("%d connections at once, want 1", most)
						}
						if got := a.in.Leading(); got != "" {
							t.Errorf("a still leads as %s", got)
						}
					})
				})
			}
		}
	}
}

// The same when the reply that made it leader came late, and was the last.
func TestLeaseCountsFromWhenItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = 3 * time.Second
		l, u := newMemLog(), newUpstream()
		asked := false
		startMember(t, l, &impolite{u}, lease, func(op string) memFault {
			if op == "acquire" && !asked {
				asked = true
				return memFault{lateReply: commandTimeout - time.Millisecond}
			}
			return memFault{hang: true}
		})
		time.Sleep(lease / 2)
		b := startMember(t, l, u, lease)
		leaderOf(t, 2*lease, b)
		if _, most := u.connections(); most != 1 {
			t.Errorf("%d connections at once, want 1", most)
		}
	})
}

// impolite dials without asking whether it still may.
type impolite struct{ *upstream }

func (i *impolite) Run(ctx context.Context, from UpstreamCursor, sink SourceSink) error {
	return i.upstream.Run(ctx, from, unasked{sink})
}

type unasked struct{ SourceSink }

func (unasked) Confirm(context.Context) error { return nil }

// A reply to an acquire that is lost is asked for again, with the same nonce.
func TestLostAcquireIsOneTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease, func(op string) memFault { return memFault{loseReply: op == "acquire"} })
		time.Sleep(2 * time.Second)
		a.c.setFault(nil)
		leaderOf(t, time.Second, a)
		u.emit(someEvents(0, 3)...)
		synctest.Wait()
		wantAll(t, l, u)
		if got := l.data.term; got != 1 {
			t.Errorf("%d terms in the log, want 1", got)
		}
	})
}

func TestGapStartsANewHistoryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		u.emit(someEvents(0, 20)...)
		synctest.Wait()
		a.stop()
		<-a.ended
		u.mu.Lock()
		u.events = someEvents(1000, 20) // the upstream forgot
		u.mu.Unlock()
		b := startMember(t, l, u, testLease)
		time.Sleep(5 * time.Second)
		leaderOf(t, time.Second, b)
		wantAll(t, l, u)
		if got := b.in.Stats(); got.Terms != 2 || got.Histories != 1 {
			t.Errorf("stats = %+v, want two terms and one new history", got)
		}
	})
}

// gappy is an upstream that cannot prove continuity to this node, once.
type gappy struct {
	*upstream
	once sync.Once
}

func (g *gappy) Run(ctx context.Context, from UpstreamCursor, sink SourceSink) error {
	gap := false
	g.once.Do(func() { gap = true })
	if gap {
		return ErrGap
	}
	return g.upstream.Run(ctx, from, sink)
}

func TestGapIsForgottenWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		u.emit(someEvents(0, 20)...)
		synctest.Wait()
		a.stop()
		<-a.ended

		acquires := 0
		b := startMember(t, l, &gappy{upstream: u}, testLease, func(op string) memFault { // after its first term it is cut off
			if op == "acquire" {
				acquires++
			}
			return memFault{refuse: acquires > 1}
		})
		time.Sleep(2 * testLease)
		c := startMember(t, l, u, testLease)
		leaderOf(t, testLease, c) // and another one has continuity
		b.c.setFault(nil)
		time.Sleep(2 * contendEvery) // b learns that the lease is held
		c.stop()
		<-c.ended
		leaderOf(t, time.Second, b)
		u.emit(someEvents(20, 5)...)
		synctest.Wait()
		wantAll(t, l, u)
		if got := b.in.Stats().Histories; got != 0 {
			t.Errorf("b began %d histories, want none: whoever led meanwhile judged continuity", got)
		}
	})
}

// The short way: the lease is held when it is asked for.
func TestHeldLeaseEndsTheWishForANewHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		in := NewIngest(l.client(), newUpstream(), IngestConfig{Lease: testLease})
		time.AfterFunc(contendEvery*3/2, func() { _ = w.c.Release(context.Background(), w.term) })
		if _, _, err := in.campaign(t.Context(), "", true); err != nil {
			t.Fatal(err)
		}
		if got, want := l.data.history, w.term.Epoch; got != want {
			t.Errorf("history %v, want still %v", got, want)
		}
	})
}

// The reply to an acquire is lost, and before the node can ask again others have
// led: its nonce is spent, and it must take another to lead ever again.
func TestSpentNonceIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		applied := false
		a := startMember(t, l, u, testLease, func(op string) memFault {
			if op == "acquire" && !applied {
				applied = true
				return memFault{loseReply: true}
			}
			return memFault{refuse: true}
		})
		time.Sleep(commandTimeout + time.Second + testLease)
		synctest.Wait()
		if l.data.term == 0 {
			t.Fatal("a never asked for the lease")
		}
		b := startMember(t, l, u, testLease)
		leaderOf(t, testLease, b)
		b.stop()
		<-b.ended
		a.c.setFault(nil)
		leaderOf(t, 2*testLease, a)
	})
}

// A log that stood still does first, when it goes on, what was sent to it
// meanwhile. The lease that this takes must not lie idle until it runs out.
func TestLeaseTakenByALateCommandIsRecognised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a, b := startMember(t, l, u, testLease), startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a, b)
		for _, outage := range []time.Duration{testLease / 2, 2 * testLease, time.Minute} {
			for _, m := range []*member{a, b} {
				m.c.setFault(func(op string) memFault { return memFault{late: op == "acquire", hang: op != "acquire"} })
			}
			time.Sleep(outage)
			a.c.heal()
			b.c.heal()
			leaderOf(t, commandTimeout+contendEvery, a, b)
		}
		u.emit(someEvents(0, 5)...)
		synctest.Wait()
		wantAll(t, l, u)
	})
}

func TestQueueIsBoundedWhileTheLogIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		a.c.setFault(func(op string) memFault { return memFault{refuse: op == "append"} })
		u.emit(someEvents(0, 2*queueRecords)...)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := a.in.Stats().Queued; got > queueRecords {
			t.Errorf("%d events queued, want at most %d", got, queueRecords)
		}
		a.c.setFault(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantAll(t, l, u)
		if h, _ := a.in.Health(); h.State != Live {
			t.Errorf("health = %+v after healing, want live", h)
		}
	})
}

func TestQueueIsBoundedByBytes(t *testing.T) {
	q := newQueue()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	n := 0
	for ; n < 1000; n++ {
		if err := q.put(ctx, work{arrival: Arrival{Event: Event{Data: make([]byte, MaxEventBytes)}}}, false); err != nil {
			break
		}
	}
	if n > queueBytes/MaxEventBytes {
		t.Errorf("%d MiB queued, want at most %d", n, queueBytes/MaxEventBytes)
	}
	if got := len(q.take(nil)); got != 1 {
		t.Errorf("a batch of %d large events, want 1", got)
	}
	if err := q.put(ctx, work{health: &Health{}}, true); err != nil {
		t.Errorf("put of a mark into a full queue = %v, want nil", err)
	}
}

func TestLiveOnlyOnceEverythingBeforeIsAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		u.emit(someEvents(0, 3*batchRecords)...)
		a := startMember(t, l, u, testLease)
		a.c.setFault(func(op string) memFault {
			if h, ok := a.in.Health(); ok && h.State == Live && l.data.seq < 3*batchRecords {
				t.Errorf("live at tip %d, want not before %d", l.data.seq, 3*batchRecords)
			}
			if op == "append" {
				return memFault{delay: 500 * time.Millisecond}
			}
			return memFault{}
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if h, _ := a.in.Health(); h.State != Live {
			t.Errorf("health = %+v, want live", h)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if got := l.data.health; got.State != Live {
			t.Errorf("the log tells %+v, want live", got)
		}
	})
}

// An upstream that was live and is not any more stays so, however late the
// mark of the first report comes out of the queue.
func TestLateLiveNeverHidesABrokenUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		a.c.setFault(func(op string) memFault {
			if op == "append" {
				return memFault{delay: time.Second}
			}
			return memFault{}
		})
		u.setDown(true)
		synctest.Wait()
		u.emit(someEvents(0, 10)...)
		u.setDown(false)
		synctest.Wait() // live is queued behind the events
		u.setDown(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if h, _ := a.in.Health(); h.State != Stale {
			t.Errorf("health = %+v, want stale: upstream_down", h)
		}
		u.setDown(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if h, _ := a.in.Health(); h.State != Live {
			t.Errorf("health = %+v, want live", h)
		}
	})
}

func TestIngestConcurrentUse(t *testing.T) {
	l, u := newMemLog(), newUpstream()
	a := startMember(t, l, u, time.Second)
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := 0; j < 200 && ctx.Err() == nil; j++ {
				a.in.Nudge()
				a.in.Ask(Ask{Order: fmt.Sprint(i, j)})
				_, _ = a.in.Health()
				_ = a.in.Leading()
				_ = a.in.Stats()
				u.emit(testEvent(1000*i+j, Keys{Order: fmt.Sprint(i)}))
			}
		})
	}
	wg.Wait()
}

func TestFailingAppendsAreToldAsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		a := startMember(t, l, u, testLease)
		leaderOf(t, time.Second, a)
		time.Sleep(time.Second)
		a.c.setFault(func(op string) memFault { return memFault{refuse: op == "append"} })
		u.emit(testEvent(1, Keys{Order: "o"}))
		time.Sleep(staleAfter + 2*retryMax)
		if h, _ := a.in.Health(); h.State != Stale || h.Reason != "append_failing" {
			t.Errorf("health = %+v, want stale, append_failing", h)
		}
		a.c.setFault(func(string) memFault { return memFault{} })
		time.Sleep(2 * retryMax)
		if h, _ := a.in.Health(); h.State != Live {
			t.Errorf("health = %+v, want live", h)
		}
		wantAll(t, l, u)
	})
}
