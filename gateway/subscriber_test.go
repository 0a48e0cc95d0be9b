package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttachOnlyExactlyAtTheTip(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 10}, Key: testKey, Forks: map[Epoch]uint64{9: 8}})
	for i := range uint64(20) {
		n.hub.take(Announcement{Epoch: 1, From: 10 + i, Entries: entriesOf(10+i, 1, testEvent(int(11+i), Keys{Customer: "c"}))})
	}
	tests := map[string]struct {
		pos  Position
		ok   bool
		want []int // queued while attaching
	}{
		"at the tip":             {Position{1, 30}, true, nil},
		"just behind it":         {Position{1, 28}, true, []int{29, 30}},
		"ahead":                  {Position{1, 31}, false, nil},
		"before the ring":        {Position{1, 9}, false, nil},
		"epoch unknown":          {Position{5, 30}, false, nil},
		"older epoch, too old":   {Position{9, 8}, false, nil},
		"the start":              {Position{}, false, nil},
		"start of what was held": {Position{1, 10}, true, []int{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, c := n.Subscribe(Scope{Customer: "c"}), &collector{}
			defer s.Close()
			s.Seek(tt.pos)
			if got := n.hub.attach(s); got != tt.ok {
				t.Errorf("attach = %v, want %v", got, tt.ok)
			}
			c.drain(s)
			wantIDs(t, "queued", c.ids(), tt.want...)
		})
	}
}

func TestAttachLooksAtABoundedTail(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
	for i := range uint64(attachWindow + 1) {
		n.hub.take(Announcement{Epoch: 1, From: i, Entries: entriesOf(i, 1, testEvent(int(i), Keys{Customer: "c"}))})
	}
	for _, tt := range []struct {
		scope Scope
		back  uint64
		want  bool
	}{
		{Scope{Customer: "other"}, attachWindow + 1, false},
		{Scope{Customer: "other"}, attachWindow, true},
		{Scope{Customer: "c"}, attachMatches + 1, false},
		{Scope{Customer: "c"}, attachMatches, true},
	} {
		s := n.Subscribe(tt.scope)
		s.Seek(Position{1, attachWindow + 1 - tt.back})
		if got := n.hub.attach(s); got != tt.want {
			t.Errorf("%+v attaches %d behind: %v, want %v", tt.scope, tt.back, got, tt.want)
		}
		if !tt.want && s.Queued() > 0 {
			t.Errorf("%+v was refused with %d frames queued", tt.scope, s.Queued())
		}
	}
}

// Subscribers come, go and come back while events pour in, and announcements
// are lost, doubled and late: each event once, in order.
func TestAttachWhileEventsPourIn(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pour(t, seed, false) })
		})
	}
}

// The same while leaders change and Redis loses suffixes: doubles are allowed
// now, and resets where a timeline is gone.
func TestRewindsWhileEventsPourIn(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pour(t, seed, true) })
		})
	}
}

func pour(t *testing.T, seed uint64, rewinds bool) {
	const viewers, total = 24, 1500
	rng := rand.New(rand.NewPCG(seed, 1))
	l := newMemLog()
	w := newWriter(t, l)
	w.c.setAnnounce(func(Announcement) []time.Duration { return nil })
	var nodes []*Node
	for i := range uint64(2) {
		n, c := startNode(t, l, NodeConfig{})
		frng := rand.New(rand.NewPCG(seed, 100+i)) // used under the log's lock
		c.setAnnounce(func(Announcement) []time.Duration {
			switch frng.IntN(10) {
			case 0:
				return nil
			case 1:
				return []time.Duration{0, 0}
			case 2:
				return []time.Duration{time.Duration(frng.IntN(1500)) * time.Millisecond}
			}
			return []time.Duration{0}
		})
		c.setFault(func(string) memFault { return memFault{delay: time.Duration(frng.IntN(3)) * time.Millisecond} })
		nodes = append(nodes, n)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var vs []*viewer
	var poured atomic.Bool // from then on nobody is slow
	for i := range viewers {
		vrng := rand.New(rand.NewPCG(seed, 1000+uint64(i)))
		v := &viewer{log: l, scope: []Scope{account, {Customer: fmt.Sprint("c", i%4)}, {Orders: []string{fmt.Sprint("o", i%7)}}}[i%3]}
		if i%6 == 0 {
			v.pace = func() {
				if vrng.IntN(20) == 0 && !poured.Load() {
					time.Sleep(time.Duration(vrng.IntN(400)) * time.Millisecond)
				}
			}
		}
		vs = append(vs, v)
		wg.Go(func() {
			sleep(ctx, time.Duration(vrng.IntN(3000))*time.Millisecond)
			for ctx.Err() == nil {
				life, end := context.WithTimeout(ctx, time.Duration(50+vrng.IntN(4000))*time.Millisecond)
				v.run(life, nodes[vrng.IntN(2)])
				end()
				sleep(ctx, time.Duration(vrng.IntN(300))*time.Millisecond)
			}
		})
	}
	var sent []Event // the upstream's order, for what has to come again
	for n := 0; n < total; {
		var batch []Event
		for range min(1+rng.IntN(30), total-n) {
			batch = append(batch, testEvent(n, Keys{Order: fmt.Sprint("o", n%7), Customer: fmt.Sprint("c", n%7%4)}))
			n++
		}
		sent = append(sent, batch...)
		w.events(batch...)
		time.Sleep(time.Duration(rng.IntN(120)) * time.Millisecond)
		if rewinds && rng.IntN(12) == 0 {
			if rng.IntN(2) == 0 {
				l.rewind(max(1, l.tip()-uint64(rng.IntN(60))))
			}
			w.lead(false)
			w.events(sent...) // seen absorbs what was not lost
		}
	}
	poured.Store(true)
	time.Sleep(10 * time.Second)
	synctest.Wait()
	stop()
	wg.Wait()
	l.check(t)
	for i, v := range vs {
		v.check(t, fmt.Sprintf("viewer %d", i), rewinds)
		if v.busy > 0 && !rewinds {
			t.Errorf("viewer %d was turned away %d times, want never", i, v.busy)
		}
		if !rewinds && len(v.resets) != 1 {
			t.Errorf("viewer %d: resets %q, want its first attach alone", i, v.resets)
		}
	}
}

// A client that comes from a node which was further waits for this one, and is
// then served without a gap.
func TestPositionAheadOfTheHubWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		nc.setAnnounce(func(Announcement) []time.Duration { return nil })
		nc.setFault(func(string) memFault { return memFault{delay: 300 * time.Millisecond} })
		w.lead(false)
		w.events(testEvent(1, Keys{}), testEvent(2, Keys{}))
		s, c := n.Subscribe(account), &collector{}
		s.Seek(Position{w.term.Epoch, 2})
		reads := nc.called("read")
		if err := s.CatchUp(t.Context(), c.write); err != nil {
			t.Fatalf("CatchUp = %v, want nil", err)
		}
		if got := nc.called("read") - reads; got > 10 {
			t.Errorf("%d reads while waiting, want few", got)
		}
		w.events(testEvent(3, Keys{}))
		time.Sleep(2 * pollEvery)
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 3)
	})
}

func TestPositionAheadOfTheHubEndsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		reader := l.client()
		stuck := NewNode(reader, NodeConfig{}) // never run: its hub stays where it is
		stuck.hub.advance(Position{}, true, Page{Start: n.Position(), Key: testKey})
		w.lead(false) // of this epoch the stuck hub never hears
		w.events(testEvent(1, Keys{}))
		synctest.Wait()
		s := stuck.Subscribe(account)
		s.Seek(n.Position())
		start := time.Now()
		err := s.CatchUp(t.Context(), (&collector{}).write)
		if d := time.Since(start); !errors.Is(err, ErrBusy) || d < aheadWait || d > aheadWait+aheadWait/4 {
			t.Errorf("CatchUp = %v after %v, want ErrBusy after about %v", err, d, aheadWait)
		}
		if got := reader.called("read"); got > 20 {
			t.Errorf("%d reads while waiting, want few", got)
		}
	})
}

func TestCatchUpEndsWithItsContextOrItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		start := n.Position()
		for i := range 200 {
			w.events(testEvent(i, Keys{}))
		}
		synctest.Wait()
		s := n.Subscribe(account)
		s.Seek(start)
		broken := errors.New("socket gone")
		if err := s.CatchUp(t.Context(), func(*Frame) error { return broken }); err != broken {
			t.Errorf("CatchUp = %v, want the writer's %v", err, broken)
		}
		nc.cut(memFault{hang: true})
		n.hub.ring.reset(n.Position().Seq)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		s.Seek(start)
		if err := s.CatchUp(ctx, func(*Frame) error { return nil }); err == nil || ctx.Err() == nil {
			t.Errorf("CatchUp = %v, want an error when ctx ended", err)
		}
		if got := n.Stats().Subscribers; got != 0 {
			t.Errorf("%d subscribers live, want 0", got)
		}
		nc.heal()
	})
}

func TestReplayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		time.Sleep(pollEvery)
		start := n.Position()
		for i := range 400 {
			w.events(testEvent(i, Keys{Order: "o"}))
		}
		time.Sleep(2 * pollEvery)
		ctx, cancel := context.WithCancel(t.Context())
		s := n.Subscribe(account)
		defer s.Close()
		s.Seek(start)
		wrote := 0
		err := s.CatchUp(ctx, func(*Frame) error {
			if wrote++; wrote == 3 {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) || wrote > 4 {
			t.Errorf("CatchUp = %v after %d frames, want it to end at once", err, wrote)
		}
	})
}
