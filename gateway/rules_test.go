package gateway

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Rules of the protocol that nothing else would notice the absence of.

// An epoch is given once for ever, by nodes that know nothing of each other:
// each of its 48 bits has to be as good as a coin.
func TestEpochsAreRandom(t *testing.T) {
	const draws = 400
	seen := map[Epoch]bool{}
	var ones [48]int
	for range draws {
		e := newEpoch()
		if e == 0 || e>>48 != 0 || seen[e] {
			t.Fatalf("newEpoch() = %v, want 48 bits that never were", e)
		}
		seen[e] = true
		for bit := range ones {
			ones[bit] += int(e >> bit & 1)
		}
	}
	for bit, n := range ones {
		if n < draws/4 || n > 3*draws/4 { // ten standard deviations
			t.Errorf("bit %d was set %d times of %d, want about half", bit, n, draws)
		}
	}
}

func TestQuietEventIsAppendedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		leaderOf(t, time.Second, startMember(t, l, u, testLease))
		for i := range 3 {
			time.Sleep(time.Second)
			u.emit(testEvent(i, Keys{}))
			synctest.Wait() // no time passes
			if got, want := l.tip(), uint64(i+1); got != want {
				t.Errorf("tip %d the moment event %d came, want %d", got, i, want)
			}
		}
	})
}

func TestBatchesAreBounded(t *testing.T) {
	sized := func(bytes int) work { return work{arrival: Arrival{Event: Event{Data: make([]byte, bytes)}}} }
	for name, tt := range map[string]struct {
		items []work
		want  []int
	}{
		"many small":          {make([]work, 2*batchRecords+10), []int{batchRecords, batchRecords, 10}},
		"large":               {[]work{sized(batchBytes / 3), sized(batchBytes / 3), sized(batchBytes / 3), sized(10)}, []int{2, 2}},
		"larger than a batch": {[]work{sized(10), sized(2 * batchBytes), sized(10)}, []int{1, 1, 1}},
	} {
		q := newQueue()
		for _, w := range tt.items {
			if err := q.put(t.Context(), w, false); err != nil {
				t.Fatal(err)
			}
		}
		for i, want := range tt.want {
			if got := len(q.take(nil)); got != want {
				t.Errorf("%s: batch %d has %d records, want %d", name, i, got, want)
			}
		}
		if got := q.len(); got != 0 {
			t.Errorf("%s: %d records left, want none", name, got)
		}
	}
}

func TestFrameIsEncodedOncePerTransport(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
	var frames []*Frame
	var subs []*Subscriber
	for _, scope := range []Scope{account, {Customer: "c"}, {Orders: []string{"o"}}, account} {
		s, _ := live(t, n, scope)
		subs = append(subs, s)
	}
	n.hub.take(Announcement{Epoch: 1, From: 0, Entries: entriesOf(0, 1, testEvent(1, Keys{Order: "o", Customer: "c"}))})
	for _, s := range subs {
		frames = append(frames, s.Next())
	}
	var encodings [transports]atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		for _, f := range frames {
			wg.Go(func() {
				for tr := range transports {
					got := f.Encoded(tr, func(f *Frame) any { return encodings[tr].Add(1) })
					if got != any(int64(1)) {
						t.Errorf("Encoded = %v, want the first encoding", got)
					}
				}
			})
		}
	}
	wg.Wait()
	for tr := range encodings {
		if got := encodings[tr].Load(); got != 1 {
			t.Errorf("transport %d: %d encodings for %d subscribers, want 1", tr, got, len(subs))
		}
	}
}

// What a client has yet to read may be trimmed while it reads.
func TestPlaceTrimmedWhileCatchingUpIsAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		l.retain = 10
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		s := n.Subscribe(account)
		for i := range 50 {
			w.events(testEvent(i, Keys{}))
		}
		synctest.Wait()
		n.hub.ring.reset(n.Position().Seq)
		var reset *ResetError
		if err := s.CatchUp(t.Context(), (&collector{}).write); !errors.As(err, &reset) || reset.Reason != "expired" {
			t.Errorf("CatchUp = %v, want reset: expired", err)
		}
	})
}

// A storm of reconnects must not become one of Redis.
func TestReconnectsAreServedFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		start := n.Position()
		for i := range attachWindow + 100 { // more than is looked at while attaching
			w.events(testEvent(i, Keys{Customer: "c"}))
		}
		synctest.Wait()
		reads := nc.called("read")
		for _, scope := range []Scope{account, {Customer: "c"}} {
			s, c := n.Subscribe(scope), &collector{}
			s.Seek(start)
			if err := s.CatchUp(t.Context(), c.write); err != nil {
				t.Fatal(err)
			}
			if c.drain(s); len(c.frames) != attachWindow+100 {
				t.Errorf("%d frames, want %d", len(c.frames), attachWindow+100)
			}
		}
		if got := nc.called("read") - reads; got != 0 {
			t.Errorf("%d reads of the log, want none", got)
		}
	})
}

func TestReadsForSubscribersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		start := n.Position()
		for i := range 10 {
			w.events(testEvent(i, Keys{}))
		}
		synctest.Wait()
		n.hub.ring.reset(n.Position().Seq) // what they miss is in the log alone
		reads := nc.called("read")
		nc.setFault(func(op string) memFault { return memFault{delay: 100 * time.Millisecond} })
		var wg sync.WaitGroup
		for range 3 * replayReads {
			wg.Go(func() {
				s, c := n.Subscribe(account), &collector{}
				s.Seek(start)
				if err := s.CatchUp(t.Context(), c.write); err != nil || len(c.frames) != 10 {
					t.Errorf("CatchUp = %v with %d frames, want nil with 10", err, len(c.frames))
				}
			})
		}
		synctest.Wait()
		if got := nc.called("read") - reads; got != replayReads {
			t.Errorf("%d reads at a time, want %d", got, replayReads)
		}
		wg.Wait()
	})
}
