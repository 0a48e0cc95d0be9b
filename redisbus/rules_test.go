package redisbus

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"pepay-gateway/gateway"
)

// Rules of the log that nothing else would notice the absence of.

func TestHoleInTheLogIsNotReadOver(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys), event(3, orderKeys))
		if err := b.client.XDel(t.Context(), "{rt:test}:log", "2-0").Err(); err != nil {
			t.Fatal(err)
		}
		p, err := b.Read(t.Context(), gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch}}, 100)
		if err == nil && p.Status == gateway.PageOK && len(p.Entries) > 1 {
			t.Errorf("Read over a hole = %v, want no entry behind it", idsOf(p.Entries))
		}
		p, err = b.Read(t.Context(), gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch, Seq: 1}}, 100)
		if err != nil || p.Status != gateway.PageExpired {
			t.Errorf("Read at a hole = %v, %v; want PageExpired", p.Status, err)
		}
	})
}

func TestFullMemoryRefusesANewHistory(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	term := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, term, 0, event(1, orderKeys))
	if err := b.client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	req := gateway.AcquireRequest{Nonce: nonce(), TTL: time.Minute, Previous: term.Fence, NewHistory: true}
	if _, _, err := b.Acquire(t.Context(), req); err == nil {
		t.Error("Acquire with full memory = nil, want an error")
	}
	if err := b.client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch}}); p.Status != gateway.PageOK || len(p.Entries) != 1 {
		t.Errorf("after the refusal: %v with %d entries, want the old history whole", p.Status, len(p.Entries))
	}
}

// With another key a cursor would not even decode, and every client would be reset.
func TestCursorKeyOutlivesTerms(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		key := read(t, b, gateway.ReadFrom{Tip: true}).Key
		if len(key) != gateway.CursorKeyBytes {
			t.Fatalf("key of %d bytes, want %d", len(key), gateway.CursorKeyBytes)
		}
		term = succeed(t, b, term)
		acquire(t, b, gateway.AcquireRequest{Previous: term.Fence, NewHistory: true})
		if got := read(t, b, gateway.ReadFrom{Tip: true}).Key; got != key {
			t.Error("the key changed with the term, want the first one for ever")
		}
	})
}

func TestSnapshotOfALostHistoryIsAnError(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys))
		if err := b.client.Del(t.Context(), "{rt:test}:state").Err(); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Snapshot(t.Context(), []string{"o1"}, ""); !errors.Is(err, gateway.ErrHistoryLost) {
			t.Errorf("Snapshot = %+v, %v; want %v", s, err, gateway.ErrHistoryLost)
		}
	})
}

func TestForksAreBounded(t *testing.T) {
	b := newTestBus(t, "redis://"+startRedis(t)+"/0", Config{})
	const terms, kept = 300, 256
	var all []gateway.Term
	for i := range terms {
		var term gateway.Term
		if i == 0 {
			term = acquire(t, b, gateway.AcquireRequest{})
		} else {
			term = succeed(t, b, all[i-1])
		}
		mustAppend(t, b, term, uint64(i), event(i+1, orderKeys))
		all = append(all, term)
	}
	if got, want := b.client.ZCard(t.Context(), "{rt:test}:fork").Val(), int64(kept+1); got != want {
		t.Errorf("%d members after %d terms, want %d and the mark", got, terms, kept)
	}
	last := len(all) - 1
	for i, want := range map[int]gateway.PageStatus{last - kept - 1: gateway.PageUnknown, last - kept: gateway.PageOK} {
		if p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: all[i].Epoch, Seq: uint64(i) + 1}}); p.Status != want {
			t.Errorf("position of %d terms ago: status %v, want %v", last-i, p.Status, want)
		}
	}
}

func TestRecordOfAnotherSchemaIsGarbage(t *testing.T) {
	for name, blob := range map[string]string{
		"event": string(appendEvent(nil, event(1, orderKeys))), "join": string(appendJoin(nil, &gateway.Join{Order: "o1", Customer: "c1"})),
	} {
		if _, _, err := unpack(blob, ""); err != nil {
			t.Errorf("%s of schema %d: %v, want nil", name, schema, err)
		}
		for _, version := range []byte{0, schema + 1, 255} {
			if ev, j, err := unpack(string([]byte{version})+blob[1:], ""); !errors.Is(err, errGarbage) {
				t.Errorf("%s of schema %d = %+v, %+v, %v; want %v", name, version, ev, j, err, errGarbage)
			}
		}
	}
}

func TestSeenIsBounded(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		const most, sent = 10, 32 // trimmed with every sixteenth
		b.append = newAppendScript(b, most)
		appendOne := func(n int) (added int) {
			t.Helper()
			ev := event(n, orderKeys)
			return mustAppend(t, b, term, 0, ev).Added
		}
		var held int64
		for n := range sent {
			appendOne(n + 1)
			held = b.client.ZCard(t.Context(), "{rt:test}:seen").Val()
			if limit := int64(most + 16); held > limit {
				t.Fatalf("%d members after %d events, want at most %d", held, n+1, limit)
			}
		}
		if want := int64(most + 1); held != want {
			t.Errorf("%d members, want %d and the mark", held, most)
		}
		if got := appendOne(sent - most + 1); got != 0 {
			t.Errorf("the oldest id that is remembered was added %d times, want it deduped", got)
		}
	})
}

func TestStateWithoutNewsIsForgotten(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		for i, order := range []string{"old", "older"} {
			mustAppend(t, b, term, uint64(i), event(i+1, gateway.Keys{Order: order, Customer: "c1"}))
		}
		for order, age := range map[string]time.Duration{"old": stateMaxAge - time.Hour, "older": stateMaxAge + time.Hour} {
			at := redis.Z{Score: float64(time.Now().Add(-age).UnixMilli()), Member: "o" + order}
			if err := b.client.ZAdd(t.Context(), "{rt:test}:state_at", at).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for n := 3; n <= 16; n++ { // the sixteenth trims
			mustAppend(t, b, term, uint64(n-1), event(n, gateway.Keys{Order: "new", Customer: "c1"}))
		}
		s, err := b.Snapshot(t.Context(), nil, "c1")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, ev := range s.States {
			got = append(got, ev.Keys.Order)
		}
		if want := "[old new]"; fmt.Sprint(got) != want {
			t.Errorf("orders with state = %v, want %s", got, want)
		}
	})
}

// Where orders had to go for want of room, and not for their age, a customer is told
// that there may be more.
func TestSnapshotTellsThatOrdersWerePushedOut(t *testing.T) {
	const most, day = 20, 24 * time.Hour
	eachStore(t, Config{MaxOrders: most}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		n := 0
		fill := func(upTo int, customer string) {
			t.Helper()
			for ; n < upTo; n++ {
				mustAppend(t, b, term, uint64(n), event(n+1, gateway.Keys{Order: fmt.Sprint("o", n), Customer: customer}))
			}
		}
		aged := func(member string, age time.Duration) {
			t.Helper()
			at := redis.Z{Score: float64(time.Now().Add(-age).UnixMilli()) + 0.5, Member: member}
			if err := b.client.ZAdd(t.Context(), "{rt:test}:state_at", at).Err(); err != nil {
				t.Fatal(err)
			}
		}
		truncated := func(when string, want bool) {
			t.Helper()
			if s, err := b.Snapshot(t.Context(), nil, "c1"); err != nil || s.Truncated != want {
				t.Errorf("%s: truncated %v, %v; want %v", when, s.Truncated, err, want)
			}
			if s, err := b.Snapshot(t.Context(), []string{"o3"}, "c1"); err != nil || s.Truncated {
				t.Errorf("%s: truncated %v, %v, of one order; want false", when, s.Truncated, err)
			}
		}
		fill(15, "c1")
		aged("oo0", stateMaxAge+day)
		fill(16, "c1") // the sixteenth trims
		truncated("forgotten for its age", false)
		for i := range 12 { // in front of all orders: these are looked-up customers
			aged(fmt.Sprint("kcustomer", i), stateMaxAge-day)
		}
		fill(32, "c1") // 31 orders and 12 customers: 23 too many
		truncated("pushed out", true)
		if err := b.client.HSet(t.Context(), "{rt:test}:meta", "pushed", time.Now().Add(time.Hour).UnixMilli()).Err(); err != nil {
			t.Fatal(err)
		}
		truncated("by a clock that was ahead", true)
		if err := b.client.HSet(t.Context(), "{rt:test}:meta", "pushed", time.Now().Add(-stateMaxAge-day).UnixMilli()).Err(); err != nil {
			t.Fatal(err)
		}
		truncated("pushed out long ago", false)
		acquire(t, b, gateway.AcquireRequest{Previous: term.Fence, NewHistory: true})
		if had := b.client.HExists(t.Context(), "{rt:test}:meta", "pushed").Val(); had {
			t.Error("a new history knows of orders that were pushed out")
		}
	})
}

// A customer who may have more orders than were looked up is told so.
func TestSnapshotTellsThatThereAreMoreThanWereLookedUp(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(1, orderKeys))
		for i, more := range []bool{true, false} {
			join := []gateway.Record{{ID: fmt.Sprint("join ", i), Join: &gateway.Join{Customer: "c1", Covered: true, More: more}}}
			if _, err := b.Append(t.Context(), term, uint64(i+1), join, gateway.UpstreamCursor{}); err != nil {
				t.Fatal(err)
			}
			if s, err := b.Snapshot(t.Context(), nil, "c1"); err != nil || s.Uncovered || s.Truncated != more {
				t.Errorf("uncovered %v, truncated %v, %v; want covered and truncated %v", s.Uncovered, s.Truncated, err, more)
			}
			if s, err := b.Snapshot(t.Context(), []string{"o1"}, "c1"); err != nil || s.Uncovered || s.Truncated {
				t.Errorf("uncovered %v, truncated %v, %v, of one order; want neither", s.Uncovered, s.Truncated, err)
			}
		}
	})
}

// Customers who were looked up, and invoices of no known order, are no orders.
func TestSnapshotTellsNothingOfCustomersPushedOut(t *testing.T) {
	eachStore(t, Config{MaxOrders: 20}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		for i := range 30 {
			at := redis.Z{Score: float64(time.Now().Add(-time.Hour).UnixMilli()), Member: fmt.Sprint([]string{"kcustomer", "vinvoice"}[i%2], i)}
			if err := b.client.ZAdd(t.Context(), "{rt:test}:state_at", at).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 16 {
			mustAppend(t, b, term, uint64(n), event(n+1, gateway.Keys{Order: fmt.Sprint("o", n), Customer: "c1"}))
		}
		if s, err := b.Snapshot(t.Context(), nil, "c1"); err != nil || s.Truncated || len(s.States) != 16 {
			t.Errorf("truncated %v of %d states, %v; want all 16", s.Truncated, len(s.States), err)
		}
	})
}

// A meta without the time is one that a version before this one wrote.
func TestActivityIsStampedWithTheTimeOfTheLastRenewal(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		began := time.Now().Add(-time.Second)
		term := acquire(t, b, gateway.AcquireRequest{})
		n := 0
		stamped := func(when string) time.Time {
			t.Helper()
			n++
			mustAppend(t, b, term, uint64(n-1), event(n, orderKeys))
			ms, err := b.client.ZScore(t.Context(), "{rt:test}:state_at", "oo1").Result()
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			return time.UnixMilli(int64(ms))
		}
		if got := stamped("acquired"); got.Before(began) {
			t.Errorf("stamp in a new term = %v, want at least %v", got, began)
		}
		if err := b.client.HSet(t.Context(), "{rt:test}:meta", "now", 5000).Err(); err != nil {
			t.Fatal(err)
		}
		if got, want := stamped("old"), time.UnixMilli(5000); !got.Equal(want) {
			t.Errorf("stamp = %v, want that of meta, %v", got, want)
		}
		if err := b.Renew(t.Context(), term, 0, time.Minute, gateway.Health{}); err != nil {
			t.Fatal(err)
		}
		if got := stamped("renewed"); got.Before(began) {
			t.Errorf("stamp after a renewal = %v, want at least %v", got, began)
		}
		if err := b.client.HDel(t.Context(), "{rt:test}:meta", "now").Err(); err != nil {
			t.Fatal(err)
		}
		if got := stamped("without"); got.Before(began) {
			t.Errorf("stamp without a time in meta = %v, want at least %v", got, began)
		}
	})
}

func TestLinksTellTheNewestVersion(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		payment := event(30, orderKeys)
		payment.Object = gateway.ObjectPayment
		mustAppend(t, b, term, 0, event(20, orderKeys), payment, event(10, orderKeys), event(7, gateway.Keys{Invoice: "i2"}))
		orders, invoices, err := b.Links(t.Context(), []string{"o1", "unknown"}, []string{"i1", "i2"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			of        string
			got, want gateway.Version
		}{
			{"order", orders[0].Newest, payment.Version},
			{"unknown order", orders[1].Newest, gateway.Version{}},
			{"invoice of an order", invoices[0].Newest, gateway.Version{}},
			{"invoice alone", invoices[1].Newest, event(7, orderKeys).Version},
		} {
			if c.got != c.want {
				t.Errorf("newest of %s = %v, want %v", c.of, c.got, c.want)
			}
		}
		if !orders[0].HasOrder || orders[1].HasOrder {
			t.Errorf("HasOrder = %v and %v, want true and false", orders[0].HasOrder, orders[1].HasOrder)
		}
	})
}

func TestEventThatIsCalledTheNewestIsNotCompared(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		mustAppend(t, b, term, 0, event(5, orderKeys))
		for i, newest := range []bool{false, true} {
			ev := event(i+1, orderKeys)
			called := []gateway.Record{{ID: ev.ID, Event: ev, Newest: newest}}
			if _, err := b.Append(t.Context(), term, 0, called, cursorOf(ev)); err != nil {
				t.Fatal(err)
			}
			want := event(5, orderKeys).ID
			if newest {
				want = ev.ID
			}
			s, err := b.Snapshot(t.Context(), []string{"o1"}, "")
			if err != nil || len(s.States) != 1 || s.States[0].ID != want {
				t.Errorf("called the newest %v: state %v, %v; want %s", newest, s.States, err, want)
			}
		}
		if recent, err := b.Recent(t.Context(), []string{"o1"}, ""); err != nil || len(recent) != 3 {
			t.Errorf("recent: %d entries, %v; want all 3", len(recent), err)
		}
	})
}

func TestSnapshotCoversTheNewestOrders(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		const orders = gateway.MaxSnapshotOrders + 20
		for i := range orders {
			mustAppend(t, b, term, uint64(i), event(i+1, gateway.Keys{Order: fmt.Sprint("o", i), Customer: "c1"}))
		}
		mustAppend(t, b, term, orders, event(orders+1, gateway.Keys{Order: "o0", Customer: "c1"})) // new again
		s, err := b.Snapshot(t.Context(), nil, "c1")
		if err != nil || !s.Truncated || len(s.States) != gateway.MaxSnapshotOrders {
			t.Fatalf("snapshot of %d states, truncated %v, %v; want %d of %d orders", len(s.States), s.Truncated, err, gateway.MaxSnapshotOrders, orders)
		}
		if first, last := s.States[0].Keys.Order, s.States[len(s.States)-1].Keys.Order; first != "o21" || last != "o0" {
			t.Errorf("orders from %s to %s, want from o21 to o0", first, last)
		}
	})
}

func TestSettledEventLeavesItsOrderWhereItIs(t *testing.T) {
	const most = 80
	eachStore(t, Config{MaxOrders: most}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		for i, order := range []string{"o1", "o2"} {
			mustAppend(t, b, term, 0, event(i+1, gateway.Keys{Order: order, Customer: "c1"}))
		}
		for i, tt := range []struct {
			settled uint64
			want    string // the customer's orders
		}{
			{1, "o2\no1"},
			{most / 4, "o2\no1"},
			{most/4 + 1, "o1\no2"}, // it may soon be trimmed
		} {
			if err := b.client.HSet(t.Context(), "{rt:test}:meta", "now", 1000+i).Err(); err != nil {
				t.Fatal(err)
			}
			before := b.client.ZScore(t.Context(), "{rt:test}:state_at", "oo1").Val()
			ev := event(i+3, gateway.Keys{Order: "o1", Customer: "c1"})
			called := []gateway.Record{{ID: ev.ID, Event: ev, Settled: tt.settled}}
			if _, err := b.Append(t.Context(), term, 0, called, cursorOf(ev)); err != nil {
				t.Fatal(err)
			}
			if got := b.client.HGet(t.Context(), "{rt:test}:join", "lc1").Val(); got != tt.want {
				t.Errorf("settled %d: orders %q, want %q", tt.settled, got, tt.want)
			}
			touched := b.client.ZScore(t.Context(), "{rt:test}:state_at", "oo1").Val() != before
			if want := tt.settled > most/4; touched != want {
				t.Errorf("settled %d: activity stamped %v, want %v", tt.settled, touched, want)
			}
			s, err := b.Snapshot(t.Context(), []string{"o1"}, "")
			if err != nil || len(s.States) != 1 || s.States[0].ID != ev.ID {
				t.Errorf("settled %d: state %v, %v; want %s", tt.settled, s.States, err, ev.ID)
			}
		}
		if recent, err := b.Recent(t.Context(), []string{"o1"}, ""); err != nil || len(recent) != 4 {
			t.Errorf("recent: %d entries, %v; want all 4", len(recent), err)
		}
	})
}

// The clock of Redis may jump, so that what was just noted is old.
func TestSettledEventOfAForgottenOrderMakesItKnownAgain(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		keys := gateway.Keys{Order: "o1", Customer: "c1", Invoice: "i1"}
		mustAppend(t, b, term, 0, event(1, keys))
		old := redis.Z{Score: 1, Member: "oo1"}
		if err := b.client.ZAdd(t.Context(), "{rt:test}:state_at", old).Err(); err != nil {
			t.Fatal(err)
		}
		for n := 2; n <= 16; n++ { // the sixteenth trims
			mustAppend(t, b, term, 0, event(n, gateway.Keys{Order: "o2", Customer: "c2"}))
		}
		if s, err := b.Snapshot(t.Context(), nil, "c1"); err != nil || len(s.States) != 0 {
			t.Fatalf("snapshot of %d states, %v; want the order forgotten", len(s.States), err)
		}
		ev := event(17, keys)
		called := []gateway.Record{{ID: ev.ID, Event: ev, Newest: true, Settled: 16}}
		if _, err := b.Append(t.Context(), term, 0, called, cursorOf(ev)); err != nil {
			t.Fatal(err)
		}
		s, err := b.Snapshot(t.Context(), nil, "c1")
		if err != nil || len(s.States) != 1 || s.States[0].ID != ev.ID {
			t.Errorf("snapshot = %+v, %v; want the order with its newest event", s.States, err)
		}
		if err := b.client.ZScore(t.Context(), "{rt:test}:state_at", "oo1").Err(); err != nil {
			t.Errorf("activity of the order: %v, want it noted", err)
		}
	})
}
