package redisbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

var orderKeys = gateway.Keys{Order: "o1", Invoice: "i1", Customer: "c1"}

func TestFencedWriterChangesNothing(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		zombie := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, zombie, 0, event(1, orderKeys))
		leader := succeed(t, b, zombie)

		_, err := b.Append(t.Context(), zombie, 1, records(event(2, orderKeys)), cursorOf(event(2, orderKeys)))
		if !errors.Is(err, gateway.ErrFenced) {
			t.Errorf("zombie's Append = %v, want %v", err, gateway.ErrFenced)
		}
		if err := b.Renew(t.Context(), zombie, 0, time.Minute, gateway.Health{}); !errors.Is(err, gateway.ErrFenced) {
			t.Errorf("zombie's Renew = %v, want %v", err, gateway.ErrFenced)
		}
		if err := b.Release(t.Context(), zombie); err != nil {
			t.Errorf("zombie's Release = %v, want nil", err)
		}
		p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: leader.Epoch}})
		if p.Tip != 1 || p.Leader != leader.Fence {
			t.Errorf("tip %d, leader %q; want 1, %q", p.Tip, p.Leader, leader.Fence)
		}
		_, wait, err := b.Acquire(t.Context(), gateway.AcquireRequest{Nonce: nonce(), TTL: time.Minute})
		if !errors.Is(err, gateway.ErrHeld) || wait <= 0 {
			t.Errorf("third Acquire = wait %v, %v; want a wait and %v", wait, err, gateway.ErrHeld)
		}
	})
}

func TestAcquireRecognisesItsOwnLostReply(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		n := nonce()
		first := acquire(t, b, gateway.AcquireRequest{Nonce: n})
		mustAppend(t, b, first, 0, event(1, orderKeys))
		again := acquire(t, b, gateway.AcquireRequest{Nonce: n})
		if again.Fence != first.Fence || again.Seq != 1 {
			t.Errorf("second Acquire = %q at %d, want %q at 1", again.Fence, again.Seq, first.Fence)
		}
		if got, want := again.Cursor, cursorOf(event(1, orderKeys)); got != want {
			t.Errorf("cursor = %v, want %v", got, want)
		}
		succeed(t, b, again)
		if _, _, err := b.Acquire(t.Context(), gateway.AcquireRequest{Nonce: n, TTL: time.Minute, Previous: read(t, b, gateway.ReadFrom{Tip: true}).Leader}); !errors.Is(err, gateway.ErrNonceUsed) {
			t.Errorf("Acquire with an old term's nonce = %v, want %v", err, gateway.ErrNonceUsed)
		}
	})
}

func TestRepeatedBatchIsWrittenOnce(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys))
		r := mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys), event(3, orderKeys))
		if r.Seq != 3 || r.Added != 1 || r.Duplicates != 2 {
			t.Errorf("Append = %+v, want seq 3, 1 added, 2 duplicates", r)
		}
		p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch}})
		want := []string{event(1, orderKeys).ID, event(2, orderKeys).ID, event(3, orderKeys).ID}
		if got := idsOf(p.Entries); !reflect.DeepEqual(got, want) {
			t.Errorf("log = %v, want %v", got, want)
		}
	})
}

func TestRewoundLogStopsItsWriter(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys))
		_, err := b.Append(t.Context(), term, 5, records(event(2, orderKeys)), gateway.UpstreamCursor{})
		if !errors.Is(err, gateway.ErrRewound) {
			t.Errorf("Append with more acknowledged than logged = %v, want %v", err, gateway.ErrRewound)
		}
		if err := b.Renew(t.Context(), term, 5, time.Minute, gateway.Health{}); !errors.Is(err, gateway.ErrRewound) {
			t.Errorf("Renew with more acknowledged than logged = %v, want %v", err, gateway.ErrRewound)
		}
		if err := b.Renew(t.Context(), term, 1, time.Minute, gateway.Health{}); err != nil {
			t.Errorf("Renew with what is logged = %v", err)
		}
		if tip := read(t, b, gateway.ReadFrom{Tip: true}).Tip; tip != 1 {
			t.Errorf("tip = %d, want 1", tip)
		}
	})
}

func TestCursorIsStoredWithTheEvent(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		if !term.Cursor.IsZero() {
			t.Errorf("cursor of an empty log = %v, want none", term.Cursor)
		}
		mustAppend(t, b, term, 0, event(1, orderKeys))
		mustAppend(t, b, term, 1, event(2, orderKeys))
		// What does not come from the stream leaves the cursor alone.
		if _, err := b.Append(t.Context(), term, 2, records(event(9, orderKeys)), gateway.UpstreamCursor{}); err != nil {
			t.Fatal(err)
		}
		if got, want := succeed(t, b, term).Cursor, cursorOf(event(2, orderKeys)); got != want {
			t.Errorf("cursor = %v, want %v", got, want)
		}
	})
}

func TestReadResolvesPositions(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		if p := read(t, b, gateway.ReadFrom{Tip: true}); p.Status != gateway.PageNone {
			t.Fatalf("empty Redis: status %v, want PageNone", p.Status)
		}
		one := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, one, 0, event(1, orderKeys), event(2, orderKeys), event(3, orderKeys))
		two := succeed(t, b, one) // one ended at 3
		mustAppend(t, b, two, 3, event(4, orderKeys))
		at := func(e gateway.Epoch, seq uint64) gateway.Position { return gateway.Position{Epoch: e, Seq: seq} }
		for _, c := range []struct {
			name   string
			from   gateway.ReadFrom
			status gateway.PageStatus
			start  gateway.Position
			ids    int
		}{
			{"tip", gateway.ReadFrom{Tip: true}, gateway.PageOK, at(two.Epoch, 4), 0},
			{"start of the log", gateway.ReadFrom{}, gateway.PageOK, at(two.Epoch, 0), 4},
			{"same epoch", gateway.ReadFrom{Pos: at(two.Epoch, 3)}, gateway.PageOK, at(two.Epoch, 3), 1},
			{"ahead of the tip", gateway.ReadFrom{Pos: at(two.Epoch, 9)}, gateway.PageOK, at(two.Epoch, 4), 0},
			{"old epoch, before its end", gateway.ReadFrom{Pos: at(one.Epoch, 2)}, gateway.PageOK, at(two.Epoch, 2), 2},
			{"old epoch, past its end", gateway.ReadFrom{Pos: at(one.Epoch, 9)}, gateway.PageOK, at(two.Epoch, 3), 1},
			{"unknown epoch", gateway.ReadFrom{Pos: at(77, 2)}, gateway.PageUnknown, at(two.Epoch, 4), 0},
			{"event id", gateway.ReadFrom{ID: event(4, orderKeys).ID, Scope: gateway.Scope{Account: true}}, gateway.PageOK, at(two.Epoch, 3), 1},
			{"event id before every epoch's end", gateway.ReadFrom{ID: event(2, orderKeys).ID, Scope: gateway.Scope{Account: true}}, gateway.PageOK, at(two.Epoch, 2), 2},
			{"unknown event id", gateway.ReadFrom{ID: "evt_5-5", Scope: gateway.Scope{Account: true}}, gateway.PageUnknown, at(two.Epoch, 4), 0},
			{"another's event id", gateway.ReadFrom{ID: event(2, orderKeys).ID, Scope: gateway.Scope{Customer: "c2"}}, gateway.PageUnknown, at(two.Epoch, 4), 0},
		} {
			p := read(t, b, c.from)
			if p.Status != c.status || p.Start != c.start || len(p.Entries) != c.ids {
				t.Errorf("%s: status %v, start %v, %d entries; want %v, %v, %d", c.name, p.Status, p.Start, len(p.Entries), c.status, c.start, c.ids)
			}
		}
	})
}

func TestTrimmedPositionIsExpired(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{RetentionEvents: 10})
	term := acquire(t, b, gateway.AcquireRequest{})
	const n = 500 // the log is trimmed by whole nodes of 100
	for i := range n {
		k := orderKeys
		if i == 3 {
			k = gateway.Keys{Order: "quiet", Customer: "c9"}
		}
		mustAppend(t, b, term, uint64(i), event(i+1, k))
	}
	if p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch, Seq: 1}}); p.Status != gateway.PageExpired {
		t.Errorf("status = %v, want PageExpired", p.Status)
	}
	scope := gateway.Scope{Orders: []string{"quiet"}}
	p := read(t, b, gateway.ReadFrom{ID: event(4, orderKeys).ID, Scope: scope})
	if p.Status != gateway.PageOK || p.Start.Seq != n {
		t.Errorf("newest event of a quiet order: %v at %d, want PageOK at %d", p.Status, p.Start.Seq, n)
	}
	scope.Customer = "c1"
	if p := read(t, b, gateway.ReadFrom{ID: event(4, orderKeys).ID, Scope: scope}); p.Status != gateway.PageUnknown {
		t.Errorf("the same for another customer: %v, want PageUnknown", p.Status)
	}
	if p := read(t, b, gateway.ReadFrom{ID: event(2, orderKeys).ID, Scope: gateway.Scope{Account: true}}); p.Status != gateway.PageUnknown {
		t.Errorf("trimmed event id: %v, want PageUnknown", p.Status)
	}
}

// After a rewind the suffix comes again in another order. A client that names
// an event of it by id may have missed what now stands before it.
func TestEventIDAfterAForkReplaysFromTheFork(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	one := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, one, 0, event(1, orderKeys), event(2, orderKeys))
	two := succeed(t, b, one)
	mustAppend(t, b, two, 2, event(4, orderKeys), event(3, orderKeys), event(5, orderKeys))
	p := read(t, b, gateway.ReadFrom{ID: event(3, orderKeys).ID, Scope: gateway.Scope{Account: true}})
	if p.Start.Seq != 2 || len(p.Entries) != 3 {
		t.Errorf("start %d with %d entries, want 2 with 3", p.Start.Seq, len(p.Entries))
	}
}

// A new history has what the old one had in another order, perhaps. A client that
// names an event by its id does not say in which of them it got it.
func TestEventIDFromBeforeTheHistoryIsUnknown(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	account := gateway.Scope{Account: true}
	old := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, old, 0, event(1, orderKeys), event(2, orderKeys), event(3, orderKeys))
	term := acquire(t, b, gateway.AcquireRequest{Previous: old.Fence, NewHistory: true})
	if term.Cursor.Began != 0 {
		t.Errorf("a new history began at %d, want not known", term.Cursor.Began)
	}
	const began = 1_767_225_600
	put := func(acked uint64, prior bool, evs ...*gateway.Event) {
		t.Helper()
		cursor, all := gateway.UpstreamCursor{}, records(evs...)
		if prior { // the first
			cursor.Began, all[0].Prior = began, true
		}
		if _, err := b.Append(t.Context(), term, acked, all, cursor); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
	wantStatus := func(n int, scope gateway.Scope, want gateway.PageStatus) {
		t.Helper()
		if p := read(t, b, gateway.ReadFrom{ID: event(n, orderKeys).ID, Scope: scope}); p.Status != want {
			t.Errorf("after event %d: status %v, want %v", n, p.Status, want)
		}
	}
	put(0, true, event(1, orderKeys))
	put(1, true, event(3, orderKeys), event(4, orderKeys))
	wantStatus(3, account, gateway.PageUnknown)
	wantStatus(4, account, gateway.PageOK)
	term = succeed(t, b, term)
	if term.Cursor.Began != began || !term.Cursor.IsZero() {
		t.Errorf("the next term's cursor = %+v, want none, and when the history began", term.Cursor)
	}
	put(3, true, event(1, orderKeys), event(5, orderKeys)) // it is known: nothing older was added
	wantStatus(1, account, gateway.PageUnknown)
	wantStatus(4, account, gateway.PageOK)
	put(4, true, event(2, orderKeys), event(6, orderKeys)) // late
	wantStatus(1, account, gateway.PageUnknown)
	wantStatus(2, gateway.Scope{Orders: []string{"o1"}}, gateway.PageUnknown)
	wantStatus(5, account, gateway.PageUnknown) // event 2 may have come before it
	wantStatus(6, account, gateway.PageOK)

	next := acquire(t, b, gateway.AcquireRequest{Previous: term.Fence, NewHistory: true})
	if next.Cursor.Began != 0 {
		t.Errorf("the history after it began at %d, want not known", next.Cursor.Began)
	}
	term = next
	put(0, false, event(3, orderKeys))
	wantStatus(3, account, gateway.PageOK)
}

// The log need not hold an event any more for its id to be refused.
// What a join hands on comes in an order of its own, and a client may be cut
// within it: the last of it that it saw is not all that there is.
func TestEventIDFromWithinAJoinResumesBeforeIt(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		of := func(n int, object gateway.Object, keys gateway.Keys) *gateway.Event {
			ev := event(n, keys)
			ev.Object = object
			return ev
		}
		order, invoice := gateway.Keys{Order: "o1", Customer: "c1"}, gateway.Keys{Invoice: "i1"}
		mustAppend(t, b, term, 0, of(1, gateway.ObjectOrder, order))
		mustAppend(t, b, term, 1, of(2, gateway.ObjectPayment, invoice), of(3, gateway.ObjectInvoice, invoice))
		join := gateway.Record{ID: "#join", Join: &gateway.Join{Order: "o1", Invoice: "i1", Customer: "c1", Link: true}, NewLinks: true}
		if _, err := b.Append(t.Context(), term, 3, []gateway.Record{join}, gateway.UpstreamCursor{}); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			p := read(t, b, gateway.ReadFrom{ID: event(n, orderKeys).ID, Scope: gateway.Scope{Orders: []string{"o1"}}})
			if p.Status != gateway.PageOK || p.Start.Seq != uint64(n) || len(p.Entries) != 4-n {
				t.Errorf("event %d: status %v at %d with %d entries, want PageOK at %d with the join", n, p.Status, p.Start.Seq, len(p.Entries), n)
			}
		}
	})
}

// A quiet order's events were joined out of order: the last is not the newest.
func TestTrimmedEventIDOfAnOrderThatGoesOnIsUnknown(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{RetentionEvents: 10})
	term := acquire(t, b, gateway.AcquireRequest{})
	payment := event(1, gateway.Keys{Invoice: "i1"})
	payment.Object = gateway.ObjectPayment
	mustAppend(t, b, term, 0, payment)
	for n := range 500 {
		mustAppend(t, b, term, uint64(1+n), event(2+n, gateway.Keys{Order: "o2", Customer: "c2"}))
	}
	mustAppend(t, b, term, 501, event(502, gateway.Keys{Order: "o1", Customer: "c1"}))
	join := gateway.Record{ID: "#join", Join: &gateway.Join{Order: "o1", Invoice: "i1", Customer: "c1", Link: true}, NewLinks: true}
	if _, err := b.Append(t.Context(), term, 502, []gateway.Record{join}, gateway.UpstreamCursor{}); err != nil {
		t.Fatal(err)
	}
	p := read(t, b, gateway.ReadFrom{ID: payment.ID, Scope: gateway.Scope{Orders: []string{"o1"}}})
	if p.Status != gateway.PageUnknown {
		t.Errorf("status %v at %d, want PageUnknown: another event of the order is newer", p.Status, p.Start.Seq)
	}
}

func TestTrimmedEventIDFromBeforeTheHistoryIsUnknown(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{RetentionEvents: 10})
	term := acquire(t, b, gateway.AcquireRequest{})
	quiet := records(event(1, orderKeys))
	quiet[0].Prior = true
	if _, err := b.Append(t.Context(), term, 0, quiet, gateway.UpstreamCursor{Began: 1}); err != nil {
		t.Fatal(err)
	}
	for n := range 500 {
		mustAppend(t, b, term, uint64(1+n), event(2+n, gateway.Keys{Order: "o2", Customer: "c2"}))
	}
	p := read(t, b, gateway.ReadFrom{ID: event(1, orderKeys).ID, Scope: gateway.Scope{Orders: []string{"o1"}}})
	if p.Status != gateway.PageUnknown { // though it is the order's newest
		t.Errorf("status %v, want %v", p.Status, gateway.PageUnknown)
	}
}

func TestDeletedKeyStartsANewHistory(t *testing.T) {
	for _, key := range []string{"meta", "log", "seen", "fork", "state", "state_at", "join"} {
		t.Run(key, func(t *testing.T) {
			b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
			term := acquire(t, b, gateway.AcquireRequest{})
			mustAppend(t, b, term, 0, event(1, orderKeys))
			before := gateway.Position{Epoch: term.Epoch, Seq: 1}
			if err := b.client.Del(t.Context(), "{rt:test}:"+key).Err(); err != nil {
				t.Fatal(err)
			}
			_, err := b.Append(t.Context(), term, 1, records(event(2, orderKeys)), gateway.UpstreamCursor{})
			if !errors.Is(err, gateway.ErrHistoryLost) && !errors.Is(err, gateway.ErrFenced) {
				t.Errorf("Append = %v, want history lost or fenced", err)
			}
			if err := b.Renew(t.Context(), term, 0, time.Minute, gateway.Health{}); !errors.Is(err, gateway.ErrHistoryLost) && !errors.Is(err, gateway.ErrFenced) {
				t.Errorf("Renew = %v, want history lost or fenced", err)
			}
			if p := read(t, b, gateway.ReadFrom{Pos: before}); p.Status == gateway.PageOK {
				t.Errorf("Read before the new history = PageOK, want anything else")
			}
			next := succeed(t, b, term)
			if next.Seq != 0 || !next.Cursor.IsZero() {
				t.Errorf("new term starts at %d with cursor %v, want 0 and none", next.Seq, next.Cursor)
			}
			r := mustAppend(t, b, next, 0, event(1, orderKeys)) // a surviving seen would swallow it
			if r.Added != 1 {
				t.Errorf("added %d, want 1", r.Added)
			}
			if p := read(t, b, gateway.ReadFrom{Pos: before}); p.Status != gateway.PageUnknown {
				t.Errorf("position of the old history: %v, want PageUnknown", p.Status)
			}
		})
	}
}

// A log that is not as long as meta says may lack any of its entries.
func TestShortenedLogStartsANewHistory(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys))
		if err := b.client.XDel(t.Context(), "{rt:test}:log", "2-0").Err(); err != nil {
			t.Fatal(err)
		}
		if next := succeed(t, b, term); next.Seq != 0 || !next.Cursor.IsZero() {
			t.Errorf("next term starts at %d with %v, want a new history", next.Seq, next.Cursor)
		}
	})
}

func TestFirstCustomerOfAnOrderStays(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		second := orderKeys
		second.Customer = "c2"
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, second))
		links, _, err := b.Links(t.Context(), []string{"o1"}, nil)
		if err != nil || links[0].Customer != "c1" {
			t.Errorf("links = %+v, %v; want c1", links, err)
		}
		if s, err := b.Snapshot(t.Context(), nil, "c2"); err != nil || len(s.States) != 0 {
			t.Errorf("the second customer's snapshot = %v, %v; want nothing", s.States, err)
		}
	})
}

func TestNewHistoryOnRequestForgetsEverything(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys))
		next := acquire(t, b, gateway.AcquireRequest{Previous: term.Fence, NewHistory: true})
		if next.Seq != 0 || !next.Cursor.IsZero() {
			t.Errorf("new history starts at %d with %v, want 0 and none", next.Seq, next.Cursor)
		}
		p := read(t, b, gateway.ReadFrom{ID: event(1, orderKeys).ID, Scope: gateway.Scope{Account: true}})
		if p.Status != gateway.PageUnknown {
			t.Errorf("id of the old history: %v, want PageUnknown", p.Status)
		}
		s, err := b.Snapshot(t.Context(), []string{"o1"}, "")
		if err != nil || len(s.States) != 0 || len(s.Missing) != 1 {
			t.Errorf("snapshot = %d states, %v missing, %v; want none, [o1]", len(s.States), s.Missing, err)
		}
	})
}

func TestEventsAreStoredByteForByte(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		ev := event(1, gateway.Keys{Order: "o1", Invoice: "i1", Customer: "c1", Wallet: "0xab", Network: "bsc"})
		ev.Data = []byte("{\"id\":\"x\",\r\n \"n\": 1e400, \"é\":\"\u2028\\u0000\"}")
		ev.Contest, ev.Received = true, -5
		mustAppend(t, b, term, 0, ev)
		got := read(t, b, gateway.ReadFrom{}).Entries[0].Event
		if !reflect.DeepEqual(got, ev) {
			t.Errorf("read back %+v, want %+v", got, ev)
		}
		if !bytes.Equal(got.Data, ev.Data) {
			t.Errorf("data = %q, want %q", got.Data, ev.Data)
		}
	})
}

func TestStateKeepsTheNewestVersion(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		invoice := event(5, orderKeys)
		invoice.Object, invoice.Type = gateway.ObjectInvoice, "invoice.updated"
		mustAppend(t, b, term, 0, event(10, orderKeys), invoice, event(2, orderKeys))
		s, err := b.Snapshot(t.Context(), nil, "c1")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, ev := range s.States {
			got = append(got, ev.ID)
		}
		if want := []string{event(10, orderKeys).ID, invoice.ID}; !reflect.DeepEqual(got, want) {
			t.Errorf("state = %v, want %v", got, want)
		}
		if s.Pos != (gateway.Position{Epoch: term.Epoch, Seq: 3}) {
			t.Errorf("position = %v, want the tip", s.Pos)
		}
		if !s.Uncovered {
			t.Error("a young history must not claim to know all of a customer's orders")
		}
	})
}

func TestContestedEventLeavesTheStateAlone(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		contested := event(2, gateway.Keys{Order: "o1", Invoice: "i1"})
		contested.Contest = true
		mustAppend(t, b, term, 0, event(1, orderKeys), contested)
		s, err := b.Snapshot(t.Context(), nil, "c1")
		if err != nil || len(s.States) != 1 || s.States[0].ID != event(1, orderKeys).ID {
			t.Errorf("state = %v, %v; want the uncontested event", s.States, err)
		}
	})
}

func TestJoinHandsOnWhatWasLoggedBefore(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		payment := event(1, gateway.Keys{Invoice: "i1"})
		payment.Object, payment.Type = gateway.ObjectPayment, "invoice_payment.updated"
		order := event(2, gateway.Keys{Order: "o1"})
		mustAppend(t, b, term, 0, payment, order)
		join := &gateway.Join{Order: "o1", Invoice: "i1", Customer: "c1", Link: true}
		r, err := b.Append(t.Context(), term, 2, []gateway.Record{{ID: "join_1", Join: join}}, gateway.UpstreamCursor{})
		if err != nil || r.Seq != 3 {
			t.Fatalf("Append = %+v, %v", r, err)
		}
		got := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch, Seq: 2}}).Entries[0].Join
		if len(got.States) != 2 || got.States[0].ID != order.ID || got.States[1].ID != payment.ID {
			t.Fatalf("states = %v, want the order's and the payment's", got.States)
		}
		if k := got.Keys(&got.States[1]); k != (gateway.Keys{Order: "o1", Invoice: "i1", Customer: "c1"}) {
			t.Errorf("keys of the payment = %+v, want them filled", k)
		}
		s, err := b.Snapshot(t.Context(), nil, "c1")
		if err != nil || len(s.States) != 2 {
			t.Errorf("snapshot by customer after the join: %d states, %v; want 2", len(s.States), err)
		}
		mustAppend(t, b, term, 3, event(4, orderKeys))
		s, err = b.Snapshot(t.Context(), nil, "c1")
		if err != nil || len(s.States) != 2 || s.States[0].Keys.Customer != "c1" {
			t.Errorf("snapshot by customer = %v, %v; want the payment and the order, with customer", s.States, err)
		}
		found, err := b.Recent(t.Context(), nil, "c1")
		if err != nil || len(found) != 3 || found[2].Event.Keys.Customer != "c1" {
			t.Errorf("recent = %v, %v; want three events with customer", idsOf(found), err)
		}
		e, err := b.Find(t.Context(), payment.ID)
		if err != nil || e.Event.Keys.Customer != "c1" {
			t.Errorf("find = %+v, %v; want the payment with its customer", e.Event, err)
		}
	})
}

func TestStateIsBounded(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{MaxOrders: 5})
	term := acquire(t, b, gateway.AcquireRequest{})
	for i := range 48 { // trimmed with every sixteenth
		k := gateway.Keys{Order: fmt.Sprintf("o%d", i), Invoice: fmt.Sprintf("i%d", i), Customer: fmt.Sprintf("c%d", i%3)}
		mustAppend(t, b, term, uint64(i), event(i+1, k))
		if n, most := b.client.ZCard(t.Context(), "{rt:test}:state_at").Val(), int64(1+5+15); n > most {
			t.Fatalf("state of %d orders after %d events, want at most %d and the mark", n-1, i+1, most-1)
		}
	}
	for key, most := range map[string]int64{"state": 1 + 5*2, "state_at": 1 + 5, "join": 1 + 5*3 + 3} {
		var n int64
		if key == "state_at" {
			n = b.client.ZCard(t.Context(), "{rt:test}:"+key).Val()
		} else {
			n = b.client.HLen(t.Context(), "{rt:test}:"+key).Val()
		}
		if n > most || n < 6 {
			t.Errorf("%s holds %d fields, want at most %d and at least 6", key, n, most)
		}
	}
	if s, err := b.Snapshot(t.Context(), []string{"o47"}, ""); err != nil || len(s.States) != 1 {
		t.Errorf("newest order: %d states, %v; want 1", len(s.States), err)
	}
}

// The writer remembers links that were trimmed here meanwhile.
func TestTrimmedOrderIsLearnedAgain(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{MaxOrders: 5})
	term := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, term, 0, event(1, orderKeys))
	for i := range 30 {
		mustAppend(t, b, term, uint64(i+1), event(i+2, gateway.Keys{Order: fmt.Sprint("other", i), Customer: "x"}))
	}
	again := event(100, orderKeys)
	known := []gateway.Record{{ID: again.ID, Event: again}}
	if _, err := b.Append(t.Context(), term, 31, known, cursorOf(again)); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Snapshot(t.Context(), nil, "c1"); err != nil || len(s.States) != 1 || s.States[0].ID != again.ID {
		t.Errorf("snapshot = %v, %v; want the order again", s.States, err)
	}
}

func TestRecentSeqsOfAnOrderAreBounded(t *testing.T) {
	for _, start := range []int{0, 9_999_990, 99_999_990, 999_999_990, 99_999_999_990} {
		b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys))
		if start > 0 {
			if err := b.client.HSet(t.Context(), "{rt:test}:meta", "seq", start).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 400 {
			mustAppend(t, b, term, 0, event(i+2, orderKeys))
		}
		if n := len(b.client.HGet(t.Context(), "{rt:test}:state", "roo1").Val()); n > 1000 {
			t.Errorf("from seq %d: %d bytes, want at most 1000", start, n)
		}
		if found, err := b.Recent(t.Context(), []string{"o1"}, ""); err != nil || len(found) < 60 || found[0].Event.ID != event(401, orderKeys).ID {
			t.Errorf("from seq %d: %d recent events, %v; want at least 60, the newest first", start, len(found), err)
		}
	}
}

func TestScansGoBothWays(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		for i := range 5 {
			mustAppend(t, b, term, uint64(i), event(i+1, orderKeys))
		}
		seqs := func(entries []gateway.Entry, err error) (out []uint64) {
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				out = append(out, e.Seq)
			}
			return out
		}
		for _, c := range []struct{ got, want []uint64 }{
			{seqs(b.Scan(t.Context(), 0, 2)), []uint64{5, 4}},
			{seqs(b.Scan(t.Context(), 4, 9)), []uint64{3, 2, 1}},
			{seqs(b.Scan(t.Context(), 1, 9)), nil},
			{seqs(b.ScanUp(t.Context(), 0, 2)), []uint64{1, 2}},
			{seqs(b.ScanUp(t.Context(), 3, 9)), []uint64{4, 5}},
			{seqs(b.ScanUp(t.Context(), 5, 9)), nil},
		} {
			if !reflect.DeepEqual(c.got, c.want) {
				t.Errorf("scan = %v, want %v", c.got, c.want)
			}
		}
	})
}

func TestTailAnnouncesAppends(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		got := make(chan gateway.Announcement, 64)
		done := tail(t, b, got)
		defer done()
		if a := next(t, got); !a.Nudge {
			t.Fatalf("first announcement = %+v, want a nudge", a)
		}
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys))
		a := next(t, got)
		if a.Epoch != term.Epoch || a.From != 0 || len(a.Entries) != 2 || a.Entries[1].Seq != 2 {
			t.Errorf("announcement = %+v, want two entries from 0", a)
		}
		if err := b.Ask(t.Context(), gateway.Ask{Order: "o1"}); err != nil {
			t.Fatal(err)
		}
		if a := next(t, got); a.Ask.Order != "o1" {
			t.Errorf("announcement = %+v, want the ask", a)
		}
		if err := b.Release(t.Context(), term); err != nil {
			t.Fatal(err)
		}
		if a := next(t, got); !a.Nudge {
			t.Errorf("announcement = %+v, want a nudge when the lease is free", a)
		}
	})
}

// A leader that took the lease and says nothing must not pass for one that is live.
func TestTermBeginsCatchingUp(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		old := acquire(t, b, gateway.AcquireRequest{})
		live := gateway.Health{State: gateway.Live, Since: time.UnixMilli(1)}
		if err := b.Renew(t.Context(), old, 0, time.Minute, live); err != nil {
			t.Fatal(err)
		}
		n := nonce()
		acquire(t, b, gateway.AcquireRequest{Nonce: n, Previous: old.Fence})
		got := read(t, b, gateway.ReadFrom{Tip: true}).Health
		if got.State != gateway.CatchingUp || got.Reason != "starting" || time.Since(got.Since).Abs() > 10*time.Second {
			t.Errorf("health of a new term = %+v, want catching up since now", got)
		}
		term := acquire(t, b, gateway.AcquireRequest{Nonce: n}) // the reply was lost
		if err := b.Renew(t.Context(), term, 0, time.Minute, live); err != nil {
			t.Fatal(err)
		}
		if got := read(t, b, gateway.ReadFrom{Tip: true}).Health; got.State != gateway.Live {
			t.Errorf("health after its renewal = %+v, want live", got)
		}
	})
}

func TestRenewalRingsUnderItsFence(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		old := acquire(t, b, gateway.AcquireRequest{})
		health := gateway.Health{State: gateway.Live, Since: time.UnixMilli(1)}
		renew := func(term gateway.Term) error { return b.Renew(t.Context(), term, 0, time.Minute, health) }
		term := succeed(t, b, old)
		if err := renew(term); err != nil { // the health is news once
			t.Fatal(err)
		}
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys))
		before := read(t, b, gateway.ReadFrom{Tip: true}).Rung
		got := make(chan gateway.Announcement, 64)
		defer tail(t, b, got)()
		next(t, got) // the subscription's own
		if err := renew(old); !errors.Is(err, gateway.ErrFenced) {
			t.Errorf("Renew of an old term = %v, want %v", err, gateway.ErrFenced)
		}
		if after := read(t, b, gateway.ReadFrom{Tip: true}).Rung; after != before {
			t.Errorf("%d rings after a fenced renewal, want %d", after, before)
		}
		for i := range uint64(3) {
			if err := renew(term); err != nil {
				t.Fatal(err)
			}
			if a := next(t, got); a.Nudge || a.Epoch != term.Epoch || a.From != 2 || len(a.Entries) != 0 {
				t.Errorf("announcement = %+v, want nothing new at 2 of %v", a, term.Epoch)
			}
			if after := read(t, b, gateway.ReadFrom{Tip: true}).Rung; after != before+i+1 {
				t.Errorf("%d rings counted, want %d", after, before+i+1)
			}
		}
	})
}

func TestTailComesBackAfterItsConnectionIsKilled(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	got := make(chan gateway.Announcement, 64)
	done := tail(t, b, got)
	defer done()
	next(t, got)
	if err := b.client.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	if a := next(t, got); !a.Nudge {
		t.Errorf("after the kill: %+v, want a nudge", a)
	}
	if n := b.Resubscribes(); n == 0 {
		t.Error("Resubscribes() = 0, want some")
	}
}

func next(t *testing.T, got <-chan gateway.Announcement) gateway.Announcement {
	t.Helper()
	select {
	case a := <-got:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no announcement")
		return gateway.Announcement{}
	}
}

func tail(t *testing.T, b *Bus, got chan<- gateway.Announcement) (done func()) {
	t.Helper()
	return tailAs(t, b, false, got)
}

func TestScriptsAreLoadedAgain(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	term := acquire(t, b, gateway.AcquireRequest{})
	for i := range 5 {
		if err := b.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, b, term, uint64(i), event(i+1, orderKeys))
	}
}

// Nobody bounds an append but the bus itself, and what it gives up may be sent again.
func TestAppendEndsByItself(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	term := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, term, 0, event(1, orderKeys))
	if err := b.client.Do(t.Context(), "CLIENT", "PAUSE", "600000", "WRITE").Err(); err != nil {
		t.Fatal(err)
	}
	batch := records(event(2, orderKeys))
	var timeout net.Error
	if _, err := b.Append(context.Background(), term, 1, batch, cursorOf(event(2, orderKeys))); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("Append to a Redis that does not answer = %v, want a timeout", err)
	}
	if err := b.client.Do(t.Context(), "CLIENT", "UNPAUSE").Err(); err != nil {
		t.Fatal(err)
	}
	r, err := b.Append(t.Context(), term, 1, batch, cursorOf(event(2, orderKeys)))
	if err != nil || r.Seq != 2 {
		t.Errorf("Append again = %+v, %v, want seq 2", r, err)
	}
}

func TestFullMemoryRefusesTheWholeBatch(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	term := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, term, 0, event(1, orderKeys))
	if err := b.client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	batch := records(event(2, orderKeys), event(3, orderKeys))
	if _, err := b.Append(t.Context(), term, 1, batch, cursorOf(event(3, orderKeys))); err == nil {
		t.Fatal("Append with full memory = nil, want an error")
	}
	if err := b.client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch}})
	if p.Tip != 1 || len(p.Entries) != 1 {
		t.Errorf("tip %d with %d entries, want 1 with 1", p.Tip, len(p.Entries))
	}
	if r, err := b.Append(t.Context(), term, 1, batch, cursorOf(event(3, orderKeys))); err != nil || r.Added != 2 {
		t.Errorf("the same batch later = %+v, %v; want 2 added", r, err)
	}
}

func TestCheckRefusesAnEvictingPolicy(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t, "--maxmemory-policy", "allkeys-lru")+"/0", Config{})
	if err := b.Check(t.Context()); !errors.Is(err, ErrEvicting) {
		t.Errorf("Check() = %v, want %v", err, ErrEvicting)
	}
	good := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	if err := good.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
}

func TestGarbageInTheLogIsSkippedAndCounted(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	term := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, term, 0, event(1, orderKeys))
	garbage := []string{"XADD", "{rt:test}:log", "2-0", "e", term.Epoch.String(), "b", "\x01egarbage"}
	args := make([]any, len(garbage))
	for i := range garbage {
		args[i] = garbage[i]
	}
	if err := b.client.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.client.HSet(t.Context(), "{rt:test}:meta", "seq", 2).Err(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, b, term, 2, event(3, orderKeys))
	p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch}})
	if len(p.Entries) != 3 || p.Entries[1].Event != nil || p.Entries[2].Event == nil {
		t.Errorf("entries = %+v, want the second one empty", p.Entries)
	}
	if b.Garbage() == 0 {
		t.Error("Garbage() = 0, want it counted")
	}
}

func TestBeatKeepsOnlyLiveNodes(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		if _, err := b.Beat(t.Context(), "a", []byte(`{"x":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := b.client.HSet(t.Context(), b.nodes, "old", "1:gone").Err(); err != nil {
			t.Fatal(err)
		}
		all, err := b.Beat(t.Context(), "b", []byte("2"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]byte{"a": []byte(`{"x":1}`), "b": []byte("2")}
		if !reflect.DeepEqual(all, want) {
			t.Errorf("Beat() = %q, want %q", all, want)
		}
	})
}
