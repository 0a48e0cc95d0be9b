package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var account = Scope{Account: true}

func entriesOf(from uint64, epoch Epoch, events ...Event) []Entry {
	var out []Entry
	for i := range events {
		out = append(out, Entry{Seq: from + 1 + uint64(i), Epoch: epoch, Event: &events[i]})
	}
	return out
}

func TestHubTakesABatchOnlyExactlyAtItsPosition(t *testing.T) {
	two := []Event{testEvent(1, Keys{}), testEvent(2, Keys{})}
	tests := map[string]struct {
		epoch Epoch
		from  uint64
		took  bool
		pos   uint64
	}{
		"next":             {1, 10, true, 12},
		"gap":              {1, 11, false, 10},
		"known already":    {1, 8, true, 10},
		"long known":       {1, 2, true, 10},
		"partly known":     {1, 9, false, 10},
		"another epoch":    {2, 10, false, 10},
		"epoch of nothing": {0, 10, false, 10},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := NewNode(nil, NodeConfig{})
			n.hub.advance(Position{}, true, Page{Start: Position{1, 10}, Key: testKey})
			s, c := live(t, n, account)
			took := n.hub.take(Announcement{Epoch: tt.epoch, From: tt.from, Entries: entriesOf(tt.from, tt.epoch, two...)})
			if took != tt.took || n.Position() != (Position{1, tt.pos}) {
				t.Errorf("take = %v at %v, want %v at %d", took, n.Position(), tt.took, tt.pos)
			}
			if c.drain(s); len(c.frames) != int(tt.pos-10) {
				t.Errorf("%d frames delivered, want %d", len(c.frames), tt.pos-10)
			}
		})
	}
}

// Earlier versions take a ring as this one does: it is a batch of nothing.
func TestRingAtTheTipChangesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		ring Announcement
		took bool // else the log is read
	}{
		"at the tip":    {Announcement{Epoch: 1, From: 10}, true},
		"behind":        {Announcement{Epoch: 1, From: 9}, true},
		"ahead":         {Announcement{Epoch: 1, From: 11}, false},
		"another epoch": {Announcement{Epoch: 2, From: 10}, false},
	} {
		n := NewNode(nil, NodeConfig{})
		n.hub.advance(Position{}, true, Page{Start: Position{1, 10}, Key: testKey})
		s, c := live(t, n, account)
		moved := n.hub.waitMove()
		took := n.hub.take(tt.ring)
		c.drain(s)
		if took != tt.took || n.Position() != (Position{1, 10}) || len(c.frames) != 0 {
			t.Errorf("%s: take = %v at %v with %d frames, want %v at 10 with none", name, took, n.Position(), len(c.frames), tt.took)
		}
		select {
		case <-moved:
			t.Errorf("%s: the hub moved, want it where it was", name)
		default:
		}
	}
}

func TestHubTakesNothingBeforeItHasAPosition(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	if n.hub.take(Announcement{Epoch: 0, From: 0, Entries: entriesOf(0, 0, testEvent(1, Keys{}))}) {
		t.Errorf("take before the first read = true, want false")
	}
	if n.Ready() == nil {
		t.Errorf("Ready before the first read = nil, want an error")
	}
}

func TestHubIgnoresAPageOfAnotherPlace(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 10}, Key: testKey})
	s, c := live(t, n, account)
	n.hub.take(Announcement{Epoch: 1, From: 10, Entries: entriesOf(10, 1, testEvent(1, Keys{}))})
	if more := n.hub.advance(Position{1, 10}, false, Page{Start: Position{1, 10}, Tip: 11, Entries: entriesOf(10, 1, testEvent(1, Keys{}))}); !more {
		t.Errorf("advance with an outdated page = false, want another read")
	}
	c.drain(s)
	wantIDs(t, "delivered", c.ids(), 1)
}

func TestHubReadsTheLogOverAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		s, c := live(t, n, account)
		nc.setAnnounce(func(Announcement) []time.Duration { return nil })
		w.events(testEvent(1, Keys{}))
		nc.setAnnounce(nil)
		before := time.Now()
		w.events(testEvent(2, Keys{})) // its announcement finds a gap
		synctest.Wait()
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 1, 2)
		if d := time.Since(before); d > 0 {
			t.Errorf("the gap was closed after %v, want at once", d)
		}
	})
}

func TestHubFindsByPollingWhatNobodyAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		s, c := live(t, n, account)
		nc.setAnnounce(func(Announcement) []time.Duration { return nil })
		w.events(testEvent(1, Keys{}), testEvent(2, Keys{}))
		time.Sleep(pollEvery)
		synctest.Wait()
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 1, 2)
	})
}

func TestSlowSubscriberIsDetachedAndCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		slow, sc := live(t, n, account)
		const total = QueueFrames + 500
		quick := &viewer{log: l, scope: account}
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		wg.Go(func() { quick.run(ctx, n) })
		synctest.Wait()
		var want []int
		for i := range total {
			w.events(testEvent(i, Keys{}))
			want = append(want, i)
			if i%16 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		stop()
		wg.Wait()
		quick.check(t, "the quick one", false)
		if got := len(quick.got); got != total {
			t.Errorf("the quick one got %d events, want %d", got, total)
		}

		if err := detached(slow); !errors.Is(err, ErrSlow) {
			t.Fatalf("Why = %v, want ErrSlow", err)
		}
		if got := slow.Queued(); got != QueueFrames {
			t.Errorf("%d frames wait for the slow one, want the whole queue of %d", got, QueueFrames)
		}
		if got := n.Stats(); got.Slow != 1 || got.Subscribers != 0 {
			t.Errorf("stats = %+v, want 1 slow and nobody live", got)
		}
		sc.drain(slow)
		if err := slow.CatchUp(t.Context(), sc.write); err != nil {
			t.Fatalf("CatchUp = %v, want nil", err)
		}
		sc.drain(slow)
		wantIDs(t, "the slow one's events", sc.ids(), want...)
		w.events(testEvent(total, Keys{}))
		synctest.Wait()
		sc.drain(slow)
		wantIDs(t, "after it caught up", sc.ids(), append(want, total)...)
	})
}

// What several frames of one item need room for is all or nothing: half a join
// entry would be a gap that no cursor shows.
func TestFullQueueTakesNoPartOfAnItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		s, c := live(t, n, Scope{Customer: "c"})
		w.events(testEvent(0, Keys{Order: "late"}), invoiceEvent(1, Keys{Order: "late", Invoice: "inv"}))
		for i := range QueueFrames - 1 {
			w.events(testEvent(2+i, Keys{Customer: "c"}))
		}
		w.join("1", Join{Order: "late", Customer: "c", Link: true})
		synctest.Wait()
		if err := detached(s); !errors.Is(err, ErrSlow) {
			t.Fatalf("Why = %v, want ErrSlow", err)
		}
		c.drain(s)
		if got := len(c.frames); got != QueueFrames-1 {
			t.Fatalf("%d frames before the join entry, want %d", got, QueueFrames-1)
		}
		if err := s.CatchUp(t.Context(), c.write); err != nil {
			t.Fatal(err)
		}
		c.drain(s)
		wantIDs(t, "the join entry's states", c.ids()[QueueFrames-1:], 0, 1)
	})
}

func TestResetReachesEverySubscriber(t *testing.T) {
	tests := map[string]struct {
		lose func(l *memLog, w *writer, nc *memClient)
		want string
	}{
		"new history": {func(_ *memLog, w *writer, _ *memClient) { w.lead(true) }, "history_lost"},
		"empty restart": {func(l *memLog, w *writer, _ *memClient) {
			l.wipe()
			w.lead(false)
		}, "history_lost"},
		"key deleted": {func(l *memLog, w *writer, _ *memClient) {
			l.deleteKey()
			w.lead(false)
		}, "history_lost"},
		"trimmed past the node": {func(l *memLog, w *writer, nc *memClient) {
			nc.cut(memFault{refuse: true})
			for i := range 10 {
				w.events(testEvent(100+i, Keys{}))
			}
			nc.heal()
		}, "expired"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newMemLog()
				l.retain = 5
				w := newWriter(t, l)
				w.events(testEvent(1, Keys{}))
				n, nc := startNode(t, l, NodeConfig{})
				var subs []*Subscriber
				for i := range 20 {
					scope := []Scope{account, {Customer: fmt.Sprint("c", i)}, {Orders: []string{"a", "b"}}}[i%3]
					if i == 19 {
						scope, _ = account.Narrow(Filter{Invoices: []string{"i", "j"}, Wallets: []string{"w"}})
					}
					s, _ := live(t, n, scope)
					subs = append(subs, s)
				}
				tt.lose(l, w, nc)
				time.Sleep(2 * pollEvery)
				synctest.Wait()
				for i, s := range subs {
					var reset *ResetError
					if err := detached(s); !errors.As(err, &reset) || reset.Reason != tt.want {
						t.Errorf("subscriber %d: Why = %v, want reset: %s", i, err, tt.want)
					}
				}
				if got := n.Stats(); got.Resets != 1 || got.Subscribers != 0 {
					t.Errorf("stats = %+v, want one reset and nobody live", got)
				}
				s, c := live(t, n, account) // and then goes on
				w.events(testEvent(1000, Keys{}))
				synctest.Wait()
				c.drain(s)
				wantIDs(t, "after the reset", c.ids(), 1000)
			})
		})
	}
}

func TestForkWithoutLossCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		s, c := live(t, n, account)
		w.events(testEvent(1, Keys{}))
		synctest.Wait()
		old := n.Cursor(n.Position())
		for i := range 5 {
			w.lead(false)
			w.events(testEvent(2+i, Keys{}))
			synctest.Wait()
		}
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 1, 2, 3, 4, 5, 6)
		if err := detached(s); err != nil {
			t.Errorf("Why = %v, want a subscriber that is still live", err)
		}
		if got := n.Stats(); got.Resets+got.Rewinds+got.Slow != 0 {
			t.Errorf("stats = %+v, want no reset, rewind or slow subscriber", got)
		}
		at, err := n.Locate(t.Context(), old, account)
		if err != nil || !at.Resumed {
			t.Fatalf("Locate of the first term's cursor = %+v, %v, want resumed", at, err)
		}
		late, lc := n.Subscribe(account), &collector{}
		late.Seek(at.Pos)
		if err := late.CatchUp(t.Context(), lc.write); err != nil {
			t.Fatal(err)
		}
		lc.drain(late)
		wantIDs(t, "resumed over five terms", lc.ids(), 2, 3, 4, 5, 6)
	})
}

// The log loses 3 and 4, and the upstream brings them again in another order:
// the position of a lost event must lead to the place where its timeline ended.
func TestForkWithALostSuffixDeliversItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		s, c := live(t, n, account)
		in := Keys{Order: "o", Customer: "c"}
		for i := range 4 {
			w.events(testEvent(1+i, in))
		}
		synctest.Wait()
		afterThree := c.cursorAfter(s, 3)
		l.rewind(2)
		w.lead(false)
		w.events(testEvent(4, in))
		w.events(testEvent(3, in), testEvent(5, in))
		time.Sleep(pollEvery)
		synctest.Wait()
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 1, 2, 3, 4, 4, 3, 5)
		if got := n.Stats(); got.Rewinds != 1 || got.Resets != 0 {
			t.Errorf("stats = %+v, want one rewind and no reset", got)
		}

		// One that was written 3 on the lost timeline, and comes back.
		at, err := n.Locate(t.Context(), afterThree, account)
		if err != nil || !at.Resumed {
			t.Fatalf("Locate = %+v, %v, want resumed", at, err)
		}
		for _, what := range []string{"by the hub", "by the order's chain", "by the customer's chain", "by the log"} {
			again := n.Subscribe(map[string]Scope{
				"by the hub": account, "by the log": account, "by the order's chain": {Orders: []string{"o"}}, "by the customer's chain": {Customer: "c"},
			}[what])
			again.Seek(at.Pos)
			ac := &collector{}
			switch what {
			case "by the hub":
			case "by the log":
				n.hub.ring.reset(n.Position().Seq) // the window moved on
			default: // as one does who is too far behind to be attached at once
				if err := again.catchUpOnce(t.Context(), ac.write); err != nil {
					t.Fatal(err)
				}
			}
			if err := again.CatchUp(t.Context(), ac.write); err != nil {
				t.Fatal(err)
			}
			ac.drain(again)
			wantIDs(t, "resumed "+what, ac.ids(), 4, 3, 5)
		}
	})
}

// cursorAfter drains s and returns the cursor of event n.
func (c *collector) cursorAfter(s *Subscriber, n int) string {
	c.drain(s)
	for _, f := range c.frames {
		if f.Event != nil && f.Event.ID == testEvent(n, Keys{}).ID {
			return f.Cursor
		}
	}
	return ""
}

// Rewound without any traffic: what is live stays so and gets the new suffix.
func TestRewindWithoutTrafficIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		s, c := live(t, n, account)
		w.events(testEvent(1, Keys{}))
		w.events(testEvent(2, Keys{}))
		synctest.Wait()
		l.rewind(1)
		time.Sleep(pollEvery)
		synctest.Wait()
		if got, want := n.Position().Seq, uint64(1); got != want {
			t.Errorf("position %d after the rewind, want %d", got, want)
		}
		w.lead(false)
		w.events(testEvent(2, Keys{}), testEvent(3, Keys{}))
		synctest.Wait()
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 1, 2, 2, 3)
	})
}

func TestNoneIsAPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		n, _ := startNode(t, l, NodeConfig{})
		if err := n.Ready(); err != nil {
			t.Fatalf("Ready on an empty log = %v, want nil", err)
		}
		s, c := live(t, n, account)
		if got := n.Cursor(n.Position()); got != "" {
			t.Errorf("the start of an empty log has the cursor %q, want none", got)
		}
		s.Tip()
		w := newWriter(t, l)
		w.events(testEvent(1, Keys{}))
		w.events(testEvent(2, Keys{}))
		synctest.Wait()
		c.drain(s)
		wantIDs(t, "delivered", c.ids(), 1, 2)
		if c.frames[0].Kind != FrameTip || c.frames[0].Cursor != "" {
			t.Errorf("the tip of an empty log = %+v, want one without cursor", c.frames[0])
		}
		late, lc := n.Subscribe(account), &collector{}
		late.Seek(Position{})
		if err := late.CatchUp(t.Context(), lc.write); err != nil {
			t.Fatalf("CatchUp from the start = %v, want nil", err)
		}
		lc.drain(late)
		wantIDs(t, "from the start", lc.ids(), 1, 2)
	})
}

func TestTipNeverPassesAnEvent(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
	s, c := live(t, n, account)
	take := func(from uint64, ev Event) {
		n.hub.take(Announcement{Epoch: 1, From: from, Entries: entriesOf(from, 1, ev)})
	}
	s.Tip()
	take(0, testEvent(1, Keys{}))
	take(1, testEvent(2, Keys{}))
	s.Tip()
	s.Tip()
	take(2, testEvent(3, Keys{}))
	s.Tip()
	c.drain(s)
	var last uint64
	var kinds strings.Builder
	for _, f := range c.frames {
		if f.Pos.Seq < last || f.Kind == FrameTip && f.Pos.Seq != last {
			t.Errorf("a frame of %d after one of %d", f.Pos.Seq, last)
		}
		last = f.Pos.Seq
		if p, ok := n.hub.decode(f.Cursor); !ok || p != f.Pos {
			t.Errorf("cursor of %v decodes to %v, %v", f.Pos, p, ok)
		}
		fmt.Fprint(&kinds, f.Kind)
	}
	if got, want := kinds.String(), "1001101"; got != want {
		t.Errorf("kinds = %s, want %s (0 event, 1 tip)", got, want)
	}
	if c.frames[3] != c.frames[4] {
		t.Errorf("two tips of one position are two frames, want one shared")
	}
}

func TestTipToADetachedOrFullSubscriberIsForgotten(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
	s, _ := live(t, n, account)
	for range QueueFrames + 5 {
		s.Tip()
	}
	if got := s.Queued(); got != QueueFrames || !s.live {
		t.Errorf("%d tips queued, live %v, want %d and true", got, s.live, QueueFrames)
	}
	s.Close()
	s.Close()
	for s.Queued() > 0 {
		s.Next()
	}
	if s.Tip(); s.Queued() != 0 {
		t.Errorf("a closed subscriber got a tip")
	}
	if n.hub.take(Announcement{Epoch: 1, From: 0, Entries: entriesOf(0, 1, testEvent(1, Keys{}))}); s.Queued() != 0 {
		t.Errorf("a closed subscriber got an event")
	}
}

// The scope of a late look-up: who newly matches gets the states, nobody else.
func TestJoinGivesStatesToThoseWhoNewlyMatch(t *testing.T) {
	byInvoice, err := Scope{Customer: "c"}.Narrow(Filter{Invoices: []string{"inv"}})
	if err != nil {
		t.Fatal(err)
	}
	onlyInvoices, err := Scope{Customer: "c"}.Narrow(Filter{Types: []string{"invoice.*"}})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		scope Scope
		want  []int
	}{
		"its customer":                 {Scope{Customer: "c"}, []int{1, 2}},
		"another customer":             {Scope{Customer: "cc"}, nil},
		"knew it by order":             {Scope{Orders: []string{"o"}}, nil},
		"knew it all":                  {account, nil},
		"customer and order":           {Scope{Customer: "c", Orders: []string{"o"}}, []int{1, 2}},
		"customer and another order":   {Scope{Customer: "c", Orders: []string{"oo"}}, nil},
		"customer, one of its invoice": {byInvoice, []int{2}},
		"customer, one of the types":   {onlyInvoices, []int{2}},
		"nothing":                      {Scope{}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newMemLog()
				w := newWriter(t, l)
				w.events(testEvent(0, Keys{Order: "oo", Customer: "cc"}))
				w.events(testEvent(1, Keys{Order: "o"}), invoiceEvent(2, Keys{Order: "o", Invoice: "inv"}))
				n, _ := startNode(t, l, NodeConfig{})
				before := n.Position()
				s, c := live(t, n, tt.scope)
				w.join("1", Join{Order: "o", Customer: "c", Link: true})
				synctest.Wait()
				c.drain(s)
				wantIDs(t, "live", c.ids(), tt.want...)
				for _, f := range c.frames {
					if f.Cursor != "" {
						t.Errorf("a state of a join entry moves the cursor; half of them would be a gap")
					}
				}
				for _, from := range []string{"the ring", "the log"} {
					if from == "the log" {
						n.hub.ring.reset(n.Position().Seq)
					}
					late, lc := n.Subscribe(tt.scope), &collector{}
					late.Seek(before)
					if err := late.CatchUp(t.Context(), lc.write); err != nil {
						t.Fatal(err)
					}
					lc.drain(late)
					wantIDs(t, "replayed from "+from, lc.ids(), tt.want...)
				}
			})
		})
	}
}

// What was seen of an invoice alone becomes its order's, once.
func TestJoinHandsOnWhatAnInvoiceAloneWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		order, oc := live(t, n, Scope{Orders: []string{"o"}})
		invoices, err := account.Narrow(Filter{Invoices: []string{"inv"}})
		if err != nil {
			t.Fatal(err)
		}
		invoice, ic := live(t, n, invoices)
		w.events(invoiceEvent(1, Keys{Invoice: "inv"}))
		w.join("1", Join{Order: "o", Invoice: "inv", Link: true})
		synctest.Wait()
		oc.drain(order)
		wantIDs(t, "the order's", oc.ids(), 1)
		ic.drain(invoice)
		wantIDs(t, "the invoice's", ic.ids(), 1)
	})
}

func TestContestedEventReachesNoCustomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		start := n.Position()
		scopes := []Scope{{Customer: "a"}, {Customer: "b"}, {Customer: "a", Orders: []string{"o"}}}
		var subs []*Subscriber
		for _, sc := range scopes {
			s, _ := live(t, n, sc)
			subs = append(subs, s)
		}
		contested := invoiceEvent(2, Keys{Order: "o"})
		contested.Contest = true
		w.events(testEvent(1, Keys{Order: "o", Customer: "a"}), contested)
		w.join("1", Join{Order: "o", Customer: "a", Link: true}) // must not hand it on either
		synctest.Wait()
		n.hub.ring.reset(n.Position().Seq)
		for i, s := range subs {
			c, rc := &collector{}, &collector{}
			c.drain(s)
			late := n.Subscribe(scopes[i])
			late.Seek(start)
			if err := late.CatchUp(t.Context(), rc.write); err != nil {
				t.Fatal(err)
			}
			for _, got := range [][]string{c.ids(), rc.ids()} {
				if slices.Contains(got, contested.ID) {
					t.Errorf("%+v got the contested event", scopes[i])
				}
			}
		}
		snap, err := n.Snapshot(t.Context(), Scope{Customer: "a"})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range snap.Frames {
			if f.Event.ID == contested.ID {
				t.Errorf("the customer's snapshot holds the contested event")
			}
		}
	})
}

func TestCoveredGoesToThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		start := n.Position()
		customerInvoice, _ := Scope{Customer: "c"}.Narrow(Filter{Invoices: []string{"inv"}})
		customerOrder, _ := Scope{Customer: "c"}.Narrow(Filter{Orders: []string{"q"}})
		scopes := map[string]Scope{
			"order": {Orders: []string{"o", "p"}}, "customer": {Customer: "c"}, "account": account, "other": {Customer: "cc"},
			"customer's invoice": customerInvoice, "customer's order": customerOrder,
			"one order of a customer": {Customer: "c", Orders: []string{"o", "q"}},
		}
		want := map[string][]Ask{
			"order": {{Order: "o"}}, "customer": {{Customer: "c"}}, "customer's invoice": {{Customer: "c"}},
			"customer's order": {{Customer: "c"}}, "one order of a customer": {{Order: "o"}, {Customer: "c"}},
		}
		subs := map[string]*Subscriber{}
		for name, sc := range scopes {
			subs[name], _ = live(t, n, sc)
		}
		w.join("1", Join{Order: "o", Customer: "c", Covered: true, Missing: true})
		w.join("2", Join{Customer: "c", Covered: true})
		synctest.Wait()
		for name, s := range subs {
			c, rc := &collector{}, &collector{}
			c.drain(s)
			late := n.Subscribe(scopes[name])
			late.Seek(start)
			if err := late.CatchUp(t.Context(), rc.write); err != nil {
				t.Fatal(err)
			}
			rc.drain(late)
			for _, frames := range [][]*Frame{c.frames, rc.frames} {
				var got []Ask
				for _, f := range frames {
					if f.Kind == FrameCovered {
						got = append(got, f.Covered)
					}
				}
				if !slices.Equal(got, want[name]) {
					t.Errorf("%s: covered = %+v, want %+v", name, got, want[name])
				}
			}
		}
	})
}

// Everything at once, without a bubble: the race detector and the final count
// are what is tested.
func TestHubConcurrentUse(t *testing.T) {
	n := NewNode(nil, NodeConfig{})
	n.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
	ctx := t.Context()
	const total, readers = 3000, 16
	var wg sync.WaitGroup
	got := make([][]string, readers)
	for i := range readers {
		wg.Go(func() {
			scope := []Scope{account, {Customer: "c1"}, {Orders: []string{"o1", "o2"}}}[i%3]
			s := n.Subscribe(scope)
			s.Seek(Position{1, 0})
			rung := signalled(s)
			c := &collector{}
			defer func() { got[i] = c.ids() }()
			defer s.Close()
			for !c.has(total - 1) {
				if err := s.CatchUp(ctx, c.write); err != nil {
					t.Errorf("CatchUp = %v, want nil", err)
					return
				}
				s.Tip()
				for live := true; live && !c.has(total-1); {
					<-rung
					live = s.Detached() == nil
					for f := s.Next(); f != nil; f = s.Next() {
						c.frames = append(c.frames, f)
						f.Encoded(WS, func(f *Frame) any { return f.Pos })
					}
				}
			}
		})
	}
	for i := range total {
		k := Keys{Order: fmt.Sprint("o", i%3), Customer: fmt.Sprint("c", i%2)}
		if i == total-1 {
			k = Keys{Order: "o1", Customer: "c1"}
		}
		n.hub.take(Announcement{Epoch: 1, From: uint64(i), Entries: entriesOf(uint64(i), 1, testEvent(i, k))})
		if i%50 == 0 {
			_, _ = n.Health()
			_, _ = n.Locate(ctx, n.Cursor(n.Position()), account)
			_ = n.Stats()
		}
	}
	wg.Wait()
	for i, ids := range got {
		want := total
		if i%3 == 1 {
			want = total / 2
		}
		if i%3 == 2 {
			want = 2 * total / 3
		}
		seen := map[string]bool{}
		for _, id := range ids {
			seen[id] = true
		}
		if d := len(ids) - want; len(seen) != len(ids) || d < 0 || d > 1 {
			t.Errorf("reader %d got %d events, %d different, want %d once each", i, len(ids), len(seen), want)
		}
	}
}
