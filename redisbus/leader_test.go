package redisbus

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"pepay-gateway/gateway"
)

func TestLeaderHasAChannelOfItsOwn(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		leader, others := make(chan gateway.Announcement, 64), make(chan gateway.Announcement, 64)
		defer tailAs(t, b, true, leader)()
		defer tailAs(t, b, false, others)()
		next(t, leader) // the subscriptions' own
		next(t, others)
		mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys))
		if a := next(t, others); len(a.Entries) != 2 {
			t.Errorf("others hear %+v, want two entries", a)
		}
		health := gateway.Health{State: gateway.Live, Since: time.UnixMilli(1)}
		if err := b.Renew(t.Context(), term, 0, time.Minute, health); err != nil {
			t.Fatal(err)
		}
		if err := b.Ask(t.Context(), gateway.Ask{Order: "o1"}); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]chan gateway.Announcement{"the leader": leader, "others": others} {
			want := []gateway.Announcement{
				{Nudge: true},
				{Epoch: term.Epoch, From: 2, Entries: []gateway.Entry{}},
				{Ask: gateway.Ask{Order: "o1"}},
			}
			for _, w := range want {
				if a := next(t, got); !reflect.DeepEqual(a, w) {
					t.Errorf("%s hear %+v, want %+v", name, a, w)
				}
			}
		}
	})
}

// A leader of the version before hears asks where everybody does, and an ACL of
// that version has no other channel.
func TestOlderLeaderHearsAsksUnderItsACL(t *testing.T) {
	addr := startRedis(t)
	b := newTestBus(t, "redis://"+addr+"/0", Config{})
	acl := []any{"ACL", "SETUSER", "old", "on", ">pw", "~{rt:test}:*", "+@all", "resetchannels", "&{rt:test}:events"}
	if err := b.client.(*redis.Client).Do(t.Context(), acl...).Err(); err != nil {
		t.Fatal(err)
	}
	denied := newTestBus(t, "redis://old:pw@"+addr+"/0", Config{})
	got := make(chan gateway.Announcement, 64)
	defer tail(t, denied, got)()
	next(t, got)
	if err := denied.Ask(t.Context(), gateway.Ask{Order: "o1"}); err != nil {
		t.Errorf("Ask = %v, want nil: the other channel has it", err)
	}
	if a := next(t, got); a.Ask.Order != "o1" {
		t.Errorf("announcement = %+v, want the ask", a)
	}
	term := acquire(t, denied, gateway.AcquireRequest{})
	for i := range 2 {
		health := gateway.Health{State: gateway.Live, Since: time.UnixMilli(int64(i))}
		if err := denied.Renew(t.Context(), term, 0, time.Minute, health); err != nil {
			t.Errorf("Renew = %v, want the lease kept whatever channels there are", err)
		}
		if a := next(t, got); !a.Nudge {
			t.Errorf("announcement = %+v, want the nudge", a)
		}
		if a := next(t, got); a.Epoch != term.Epoch {
			t.Errorf("announcement = %+v, want the ring", a)
		}
	}
}

func tailAs(t *testing.T, b *Bus, leading bool, got chan<- gateway.Announcement) (done func()) {
	t.Helper()
	ctx, cancel := contextWithCancel(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.Tail(ctx, leading, func(a gateway.Announcement) { got <- a })
	}()
	return func() { cancel(); <-ended }
}

// What Append says it wrote is what is read, and announced, byte for byte:
// with duplicates, joins and invoices that find their order among it.
func TestAppendTellsWhatIsReadAndAnnounced(t *testing.T) {
	eachStore(t, Config{}, func(t *testing.T, b *Bus) {
		term := acquire(t, b, gateway.AcquireRequest{})
		got := make(chan gateway.Announcement, 64)
		defer tail(t, b, got)()
		next(t, got)
		var tip uint64
		joins := 0
		rapid.Check(t, func(rt *rapid.T) {
			var batch []gateway.Record
			for range rapid.IntRange(0, 6).Draw(rt, "records") {
				batch = append(batch, drawRecord(rt, tip, &joins))
			}
			r, err := b.Append(t.Context(), term, tip, batch, gateway.UpstreamCursor{})
			if err != nil {
				rt.Fatal(err)
			}
			if r.Seq != tip+uint64(r.Added) || r.Added+r.Duplicates != len(batch) || len(r.Entries) != r.Added {
				rt.Fatalf("Append = %+v with %d entries from %d, want all %d accounted for", r, len(r.Entries), tip, len(batch))
			}
			page := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch, Seq: tip}})
			tip = r.Seq
			if r.Added == 0 {
				return
			}
			if diff := cmp.Diff(page.Entries, r.Entries); diff != "" {
				rt.Fatalf("entries (-read +told):\n%s", diff)
			}
			if diff := cmp.Diff(next(t, got).Entries, r.Entries); diff != "" {
				rt.Fatalf("entries (-announced +told):\n%s", diff)
			}
		})
	})
}

func drawRecord(rt *rapid.T, tip uint64, joins *int) gateway.Record {
	pick := func(kind string) string {
		if n := rapid.IntRange(0, 3).Draw(rt, kind); n > 0 {
			return fmt.Sprint(kind, n)
		}
		return ""
	}
	keys := gateway.Keys{Order: pick("o"), Invoice: pick("i"), Customer: pick("c"), Wallet: pick("w"), Network: pick("n")}
	if rapid.IntRange(0, 2).Draw(rt, "join") == 0 {
		if rapid.Bool().Draw(rt, "fresh") {
			*joins++
		}
		j := &gateway.Join{
			Order: keys.Order, Invoice: keys.Invoice, Customer: keys.Customer,
			Link: rapid.Bool().Draw(rt, "link"), Covered: rapid.Bool().Draw(rt, "covered"), Missing: rapid.Bool().Draw(rt, "missing"),
		}
		return gateway.Record{ID: fmt.Sprint("join_", *joins), Join: j}
	}
	n := int(tip) + rapid.IntRange(-3, 6).Draw(rt, "n") // some are there already
	ev := event(n, keys)
	ev.Object = gateway.Object(rapid.IntRange(0, 3).Draw(rt, "object"))
	ev.Contest = rapid.IntRange(0, 5).Draw(rt, "contest") == 0
	ev.Received = rapid.Int64().Draw(rt, "received")
	ev.Data = append(ev.Data, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "data")...)
	return gateway.Record{ID: ev.ID, Event: ev, NewLinks: rapid.Bool().Draw(rt, "new")}
}
