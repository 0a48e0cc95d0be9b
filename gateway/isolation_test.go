package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A shop is some orders and whose they are, what the upstream tells of them, and
// those who listen. Frames name what they like of an order's ids, so that whose an
// event is may be known at once, later, or never.
type shop struct {
	orders    []Keys // the truth: every order has its own invoice
	known     []bool // the upstream's REST API tells of it
	events    []Event
	truth     map[string]Keys // of every event by its id: the keys it would have if all were known
	listeners []listener
}

type listener struct {
	claims Scope
	filter Filter
}

func anyShop(rt *rapid.T) shop {
	s := shop{truth: map[string]Keys{}}
	names := rapid.Permutation(alike[1:]).Draw(rt, "names")
	one := rapid.SampledFrom(alike[1:6])
	for i := range rapid.IntRange(1, 4).Draw(rt, "orders") {
		s.orders = append(s.orders, Keys{Order: names[2*i], Invoice: names[2*i+1], Customer: one.Draw(rt, "owner")})
		s.known = append(s.known, rapid.Bool().Draw(rt, "known"))
	}
	proven := make([]bool, len(s.orders)) // an event has named the owner
	for n := range rapid.IntRange(1, 24).Draw(rt, "events") {
		i := rapid.IntRange(0, len(s.orders)-1).Draw(rt, "order")
		k := s.orders[i]
		k.Wallet, k.Network = one.Draw(rt, "wallet"), one.Draw(rt, "network")
		truth := k
		switch kind := rapid.IntRange(0, 9).Draw(rt, "kind"); {
		case kind == 0: // of no order
			k.Order, k.Invoice = "", ""
			truth = k
		case kind == 1 && proven[i]: // names somebody else, so it is nobody's
			k.Customer, truth.Customer = one.Filter(func(c string) bool { return c != k.Customer }).Draw(rt, "claimed by"), ""
		default:
			for _, id := range []*string{&k.Customer, &k.Wallet, &k.Network} {
				if rapid.Bool().Draw(rt, "without") {
					*id = ""
				}
			}
			truth.Wallet, truth.Network = k.Wallet, k.Network // nobody else tells them
			switch rapid.IntRange(0, 2).Draw(rt, "named by") {
			case 0:
				k.Order = ""
			case 1:
				k.Invoice = ""
			}
			proven[i] = proven[i] || k.Order != "" && k.Customer != ""
		}
		ev := testEvent(100+n, k)
		if rapid.Bool().Draw(rt, "of the invoice") {
			ev = invoiceEvent(100+n, k)
		}
		s.events, s.truth[ev.ID] = append(s.events, ev), truth
	}
	for range rapid.IntRange(1, 8).Draw(rt, "listeners") {
		l := listener{anyClaims(rt), anyFilter(rt)}
		if rapid.Bool().Draw(rt, "of the shop") { // else hardly anybody is owed anything
			o := s.orders[rapid.IntRange(0, len(s.orders)-1).Draw(rt, "whose")]
			l = rapid.SampledFrom([]listener{
				{claims: Scope{Customer: o.Customer}},
				{claims: Scope{Orders: []string{o.Order}}},
				{claims: Scope{Customer: o.Customer, Orders: []string{o.Order}}},
				{claims: Scope{Account: true}},
				{claims: Scope{Account: true}, filter: Filter{Customers: []string{o.Customer}}},
				{claims: Scope{Customer: o.Customer}, filter: Filter{Orders: []string{o.Order}}},
				{claims: Scope{Customer: o.Customer}, filter: Filter{Invoices: []string{o.Invoice}}},
			}).Draw(rt, "listener")
		}
		l.filter.Types = rapid.SampledFrom([][]string{nil, {"invoice.*"}, {"commerce.order.updated"}}).Draw(rt, "types")
		s.listeners = append(s.listeners, l)
	}
	return s
}

// may is the oracle with the types, which narrow as the ids do.
func (l listener) may(k Keys, eventType string) bool {
	wanted := len(l.filter.Types) == 0
	for _, t := range l.filter.Types {
		wanted = wanted || t == eventType || strings.HasSuffix(t, ".*") && strings.HasPrefix(eventType, t[:len(t)-1])
	}
	return wanted && sees(l.claims, l.filter, k)
}

// A testimony is what was seen through one view, and what is wrong with it.
type testimony struct {
	shop  shop
	seen  int
	wrong []string
}

// show takes what a listener was shown through a view.
func (y *testimony) show(view string, l listener, events ...*Event) {
	for _, ev := range events {
		truth, ok := y.shop.truth[ev.ID]
		if !ok {
			y.wrong = append(y.wrong, fmt.Sprintf("%s: %s, which there never was", view, ev.ID))
		}
		if y.seen++; !l.may(truth, ev.Type) {
			y.wrong = append(y.wrong, fmt.Sprintf("%s: %+v was shown %s, which is %+v", view, l, ev.ID, truth))
		}
	}
}

// owe says that a listener must have been shown every event whose own frame
// proves that it may, once.
func (y *testimony) owe(view string, l listener, ids []string) {
	for i := range y.shop.events {
		ev := &y.shop.events[i]
		k := ev.Keys
		if y.shop.truth[ev.ID].Customer == "" {
			k.Customer = "" // contested
		}
		n := 0
		for _, id := range ids {
			if id == ev.ID {
				n++
			}
		}
		if l.may(k, ev.Type) && n != 1 {
			y.wrong = append(y.wrong, fmt.Sprintf("%s: %+v was shown %s %d times, want once: %+v", view, l, ev.ID, n, k))
		}
	}
}

// handOn says that a listener must have been shown the newest state of every
// order of which it came out, by an event or a look-up, whose it is.
func (y *testimony) handOn(view string, l listener, ids []string) {
	for i, o := range y.shop.orders {
		owner, linked, asked := false, false, false
		for _, ev := range y.shop.events {
			k := ev.Keys
			// Only an order whose customer nobody has named yet is looked up.
			asked = asked || !owner && k.Order == o.Order && k.Customer == ""
			owner = owner || k.Order == o.Order && k.Customer == o.Customer
			linked = linked || k.Order == o.Order && k.Invoice == o.Invoice
		}
		if asked && y.shop.known[i] {
			owner, linked = true, true
		}
		newest := map[Object]*Event{}
		for j := range y.shop.events {
			ev := &y.shop.events[j]
			named := ev.Keys.Order == o.Order || linked && ev.Keys.Invoice == o.Invoice
			if named && y.shop.truth[ev.ID].Customer != "" {
				newest[ev.Object] = ev
			}
		}
		for _, ev := range newest {
			truth := y.shop.truth[ev.ID]
			if !linked {
				truth.Invoice = ev.Keys.Invoice
			}
			if owner && l.may(truth, ev.Type) && !slices.Contains(ids, ev.ID) {
				y.wrong = append(y.wrong, fmt.Sprintf("%s: %+v was never shown %s, which is the newest of %+v", view, l, ev.ID, o))
			}
		}
	}
}

// visit plays the shop through an ingest, a log and two nodes, and has every
// listener look through every view there is.
func (s shop) visit(t *testing.T) testimony {
	y := testimony{shop: s}
	l, u := newMemLog(), newUpstream()
	for i, o := range s.orders {
		if s.known[i] {
			u.knows(i, o)
			s.truth[u.orders[o.Order].Event.ID] = o
		}
	}
	leaderOf(t, 30*time.Second, startMember(t, l, u, testLease))
	node, _ := startNode(t, l, NodeConfig{})
	begin := node.Position()

	var subs []*Subscriber
	var heard []*collector
	var who []listener
	for _, listener := range s.listeners {
		scope, err := listener.claims.Narrow(listener.filter)
		if err != nil {
			continue // TestScopeAllowsWhatTheOracleAllows says when
		}
		sub, c := live(t, node, scope)
		subs, heard, who = append(subs, sub), append(heard, c), append(who, listener)
	}
	for i := range s.events {
		u.emit(s.events[i])
		if i%3 == 0 {
			time.Sleep(200 * time.Millisecond)
		}
		for j, sub := range subs {
			heard[j].drain(sub)
		}
	}
	// What was looked up comes, and for a customer whom somebody asks for.
	for i, sub := range subs {
		if snap, err := node.Snapshot(t.Context(), sub.scope); err == nil {
			_ = node.Ask(t.Context(), snap.Asks)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		heard[i].drain(sub)
	}
	late, _ := startNode(t, l, NodeConfig{}) // its ring is empty: it reads the log
	for i, sub := range subs {
		heard[i].drain(sub)
		scope, me := sub.scope, who[i]
		y.frames("live", me, heard[i])
		y.owe("live", me, heard[i].ids())
		y.handOn("live", me, heard[i].ids())
		for _, view := range []struct {
			name string
			n    *Node
			page func(*Subscriber, func(*Frame) error) error
		}{
			{"attach", node, func(s *Subscriber, write func(*Frame) error) error { return s.CatchUp(t.Context(), write) }},
			{"replay from the ring", node, func(s *Subscriber, write func(*Frame) error) error { return s.catchUpOnce(t.Context(), write) }},
			{"replay from the log", late, func(s *Subscriber, write func(*Frame) error) error { return s.catchUpOnce(t.Context(), write) }},
		} {
			again, c := view.n.Subscribe(scope), &collector{}
			again.Seek(begin)
			for again.Position() != view.n.Position() {
				if err := view.page(again, c.write); err != nil {
					y.wrong = append(y.wrong, fmt.Sprintf("%s: %v", view.name, err))
					break
				}
			}
			c.drain(again)
			again.Close()
			y.frames(view.name, me, c)
			if !slices.Equal(c.ids(), heard[i].ids()) {
				y.wrong = append(y.wrong, fmt.Sprintf("%s: %+v was shown %q, and live %q", view.name, me, c.ids(), heard[i].ids()))
			}
		}
		y.look(t, node, me, scope)
	}
	return y
}

func (y *testimony) frames(view string, l listener, c *collector) {
	for _, f := range c.frames {
		if f.Kind == FrameEvent {
			y.show(view, l, f.Event)
		}
	}
}

// look asks for everything that can be asked for.
func (y *testimony) look(t *testing.T, n *Node, l listener, scope Scope) {
	if snap, err := n.Snapshot(t.Context(), scope); err == nil {
		for _, f := range snap.Frames {
			y.show("snapshot", l, f.Event)
		}
	}
	list, err := n.List(t.Context(), ListQuery{Scope: scope, Limit: 100})
	if err != nil {
		y.wrong = append(y.wrong, fmt.Sprintf("list: %v", err))
	}
	y.show("list", l, list.Events...)
	nowhere, _ := n.Locate(t.Context(), "evt_9-9", scope)
	for id, truth := range y.shop.truth {
		// One event by its id, and a place in the stream by it, ask for no types.
		any := listener{claims: l.claims, filter: l.filter}
		any.filter.Types = nil
		if ev, err := n.Find(t.Context(), id, scope); err == nil {
			y.show("single event", any, ev)
		}
		start, err := n.Locate(t.Context(), id, scope)
		if err != nil || !any.may(truth, "") && start != nowhere {
			y.wrong = append(y.wrong, fmt.Sprintf("since: %+v is told %+v, %v of %s, which is %+v; of nothing %+v", l, start, err, id, truth, nowhere))
		}
	}
	for _, o := range y.shop.orders {
		// As REST does: the token's claims, and the order of the path.
		one := listener{claims: l.claims, filter: Filter{Orders: []string{o.Order}}}
		scope, err := l.claims.Narrow(one.filter)
		if err != nil {
			continue
		}
		snap, err := n.Snapshot(t.Context(), scope)
		if err != nil {
			y.wrong = append(y.wrong, fmt.Sprintf("order state: %v", err))
		}
		for _, f := range snap.Frames {
			y.show("order state", one, f.Event)
		}
	}
}

// Whatever a token and a filter say, and however late it turns out whose an event
// is, nobody is shown what is not theirs, through no view; and everybody gets
// what is.
func TestNobodySeesWhatIsNotTheirs(t *testing.T) {
	seen := 0
	rapid.Check(t, func(rt *rapid.T) {
		s := anyShop(rt)
		var y testimony
		synctest.Test(t, func(t *testing.T) { y = s.visit(t) })
		if seen += y.seen; len(y.wrong) > 0 {
			rt.Fatalf("%s\norders %+v, known %v\nevents %+v", strings.Join(y.wrong, "\n"), s.orders, s.known, s.events)
		}
	})
	if !t.Failed() && seen < 1000 {
		t.Errorf("%d events were shown in all, want enough for this to mean something", seen)
	}
}
