package gateway

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// alike holds ids that a careless comparison takes for one another.
var alike = []string{
	"", "cus_1", "cus_10", "cus_1 ", " cus_1", "CUS_1", "cu\u0455_1", "cus_1\u200b", "cus\uff3f1", "1", "1.0", "01", "1e0",
	"*", "c*", "%", "cus_%", "cus__", "é", "e\u0301", "null", "undefined",
}

func ids(rt *rapid.T, label string, from []string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 3, rapid.ID[string]).Draw(rt, label)
}

func anyKeys(rt *rapid.T) Keys {
	one := rapid.SampledFrom(append(alike, "cus_1\x00")) // no filter and no token can name this one
	return Keys{
		Order: one.Draw(rt, "order"), Invoice: one.Draw(rt, "invoice"), Customer: one.Draw(rt, "customer"),
		Wallet: one.Draw(rt, "wallet"), Network: one.Draw(rt, "network"),
	}
}

func anyClaims(rt *rapid.T) Scope {
	return Scope{
		Account: rapid.Bool().Draw(rt, "account"), Customer: rapid.SampledFrom(alike).Draw(rt, "claim customer"),
		Orders: ids(rt, "claim orders", alike[1:]),
	}
}

func anyFilter(rt *rapid.T) Filter {
	var f Filter
	for _, list := range []*[]string{&f.Orders, &f.Invoices, &f.Customers, &f.Wallets, &f.Networks} {
		if rapid.IntRange(0, 2).Draw(rt, "filtered") == 0 {
			*list = ids(rt, "ids", alike[1:])
		}
	}
	return f
}

// sees is Scope.Allows said again, in another way: every condition is a set, and
// an empty key is in none.
func sees(claims Scope, f Filter, k Keys) bool {
	conditions := [][]string{f.Orders, f.Invoices, f.Customers, f.Wallets, f.Networks}
	have := []string{k.Order, k.Invoice, k.Customer, k.Wallet, k.Network}
	if !claims.Account {
		if claims.Customer == "" && len(claims.Orders) == 0 {
			return false
		}
		if claims.Customer != "" {
			conditions, have = append(conditions, []string{claims.Customer}), append(have, k.Customer)
		}
		conditions, have = append(conditions, claims.Orders), append(have, k.Order)
	}
	for i, set := range conditions {
		if len(set) > 0 && (have[i] == "" || !slices.Contains(set, have[i])) {
			return false
		}
	}
	return true
}

func TestScopeAllowsWhatTheOracleAllows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		claims, f := anyClaims(rt), anyFilter(rt)
		s, err := claims.Narrow(f)
		outside := claims.Customer != "" && slices.ContainsFunc(f.Customers, func(c string) bool { return c != claims.Customer }) ||
			len(claims.Orders) > 0 && slices.ContainsFunc(f.Orders, func(o string) bool { return !slices.Contains(claims.Orders, o) })
		if got, want := errors.Is(err, ErrOutsideScope), outside; got != want {
			rt.Fatalf("Narrow(%+v) of %+v = %v, outside is %v", f, claims, err, want)
		}
		for range 20 {
			k := anyKeys(rt)
			if got, want := s.Allows(k), err == nil && sees(claims, f, k); got != want {
				rt.Fatalf("%+v narrowed to %+v: Allows(%+v) = %v, want %v", claims, f, k, got, want)
			}
			if s.Allows(k) && !claims.Allows(k) {
				rt.Fatalf("the filter %+v widened %+v to %+v", f, claims, k)
			}
			orders, customers := s.SelectedOrders(), s.SelectedCustomers()
			if s.Allows(k) && (len(orders) > 0 && !slices.Contains(orders, k.Order) || len(customers) > 0 && !slices.Contains(customers, k.Customer)) {
				rt.Fatalf("%+v is allowed but not selected by %q, %q", k, orders, customers)
			}
		}
	})
}

func TestScopeTable(t *testing.T) {
	cus1, order1 := Scope{Customer: "cus_1"}, Scope{Orders: []string{"order_1"}}
	tests := map[string]struct {
		scope Scope
		keys  Keys
		want  bool
	}{
		"nothing claims nothing":    {Scope{}, Keys{}, false},
		"nothing, full event":       {Scope{}, Keys{"o", "i", "c", "w", "n"}, false},
		"account, no keys":          {Scope{Account: true}, Keys{}, true},
		"customer":                  {cus1, Keys{Customer: "cus_1"}, true},
		"customer as prefix":        {cus1, Keys{Customer: "cus_10"}, false},
		"customer with blank":       {cus1, Keys{Customer: "cus_1 "}, false},
		"customer in another case":  {cus1, Keys{Customer: "CUS_1"}, false},
		"customer unknown":          {cus1, Keys{Order: "order_1"}, false},
		"customer's name, as order": {cus1, Keys{Order: "cus_1"}, false},
		"order":                     {order1, Keys{Order: "order_1", Customer: "cus_2"}, true},
		"order unknown":             {order1, Keys{Customer: "cus_1"}, false},
		"order and customer, both":  {Scope{Customer: "cus_1", Orders: []string{"order_1"}}, Keys{Order: "order_1", Customer: "cus_1"}, true},
		"order and customer, one":   {Scope{Customer: "cus_1", Orders: []string{"order_1"}}, Keys{Order: "order_1", Customer: "cus_2"}, false},
		"star is a name":            {Scope{Customer: "*"}, Keys{Customer: "cus_1"}, false},
		"composed and decomposed":   {Scope{Customer: "é"}, Keys{Customer: "e\u0301"}, false},
		"number and float":          {Scope{Customer: "1"}, Keys{Customer: "1.0"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.scope.Allows(tt.keys); got != tt.want {
				t.Errorf("%+v.Allows(%+v) = %v, want %v", tt.scope, tt.keys, got, tt.want)
			}
		})
	}
}

func TestZeroScopeAllowsNothingWhateverTheFilter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := Scope{}.Narrow(anyFilter(rt))
		if err != nil {
			rt.Fatalf("Narrow of the zero scope = %v, want nil", err)
		}
		if k := anyKeys(rt); s.Allows(k) {
			rt.Fatalf("the zero scope allows %+v", k)
		}
	})
}

func TestNarrowRefusesWhatTheTokenShowsToBeOutside(t *testing.T) {
	tests := map[string]struct {
		scope Scope
		f     Filter
		want  error
	}{
		"own customer":             {Scope{Customer: "c"}, Filter{Customers: []string{"c"}}, nil},
		"another's":                {Scope{Customer: "c"}, Filter{Customers: []string{"d"}}, ErrOutsideScope},
		"own and another's":        {Scope{Customer: "c"}, Filter{Customers: []string{"c", "d"}}, ErrOutsideScope},
		"order not in the claim":   {Scope{Orders: []string{"o"}}, Filter{Orders: []string{"p"}}, ErrOutsideScope},
		"customer of order claim":  {Scope{Orders: []string{"o"}}, Filter{Customers: []string{"c"}}, nil},
		"order of customer claim":  {Scope{Customer: "c"}, Filter{Orders: []string{"o"}}, nil},
		"empty id":                 {Scope{Account: true}, Filter{Orders: []string{""}}, ErrBadFilter},
		"too many ids":             {Scope{Account: true}, Filter{Orders: make([]string, MaxFilterIDs+1)}, ErrBadFilter},
		"control character":        {Scope{Account: true}, Filter{Wallets: []string{"a\nb"}}, ErrBadFilter},
		"id too long":              {Scope{Account: true}, Filter{Invoices: []string{strings.Repeat("x", MaxIDBytes+1)}}, ErrBadFilter},
		"type":                     {Scope{Account: true}, Filter{Types: []string{"invoice.*", "commerce.order.updated"}}, nil},
		"type that is only a star": {Scope{Account: true}, Filter{Types: []string{"*"}}, ErrBadFilter},
		"star in the middle":       {Scope{Account: true}, Filter{Types: []string{"a.*.b"}}, ErrBadFilter},
		"star without dot":         {Scope{Account: true}, Filter{Types: []string{"invoice*"}}, ErrBadFilter},
		"dot and star alone":       {Scope{Account: true}, Filter{Types: []string{".*"}}, ErrBadFilter},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := tt.scope.Narrow(tt.f)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Narrow(%+v) = %v, want %v", tt.f, err, tt.want)
			}
			if err != nil && s.Allows(Keys{"o", "i", "c", "w", "n"}) {
				t.Errorf("a refused scope allows something")
			}
		})
	}
}

func TestNarrowTakesEVMWalletsInAnyCase(t *testing.T) {
	wallet := "0x" + strings.Repeat("aB", 20)
	s, err := Scope{Account: true}.Narrow(Filter{Wallets: []string{wallet}})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Allows(Keys{Wallet: NormalWallet(strings.ToUpper(wallet))}) {
		t.Errorf("an EVM address in another case does not match")
	}
	if s.Allows(Keys{Wallet: strings.ToUpper(wallet)[:41]}) {
		t.Errorf("a part of an address matches")
	}
}

func TestMatchType(t *testing.T) {
	tests := []struct {
		types []string
		typ   string
		want  bool
	}{
		{nil, "anything", true},
		{[]string{"invoice.*"}, "invoice.paid", true},
		{[]string{"invoice.*"}, "invoice_payment.updated", false},
		{[]string{"invoice.*"}, "invoice", false},
		{[]string{"invoice.paid"}, "invoice.paid", true},
		{[]string{"invoice.paid"}, "invoice.paid.twice", false},
		{[]string{"commerce.*"}, "commerce.order.updated", true},
		{[]string{"a.b", "commerce.order.*"}, "commerce.order.updated", true},
		{[]string{"commerce.order.*"}, "commerce.refund.updated", false},
	}
	for _, tt := range tests {
		if got := MatchType(tt.types, tt.typ); got != tt.want {
			t.Errorf("MatchType(%q, %q) = %v, want %v", tt.types, tt.typ, got, tt.want)
		}
	}
}

// Every subscriber gets exactly the events that its scope allows and wants, each
// once, live (the index) and replaying (the ring's chains).
func TestHubDeliversExactlyWhatTheScopeAllows(t *testing.T) {
	few := []string{"", "cus_1", "cus_10", "1"}
	types := []string{"commerce.order.updated", "invoice.paid", "invoice_payment.updated"}
	rapid.Check(t, func(rt *rapid.T) {
		n := NewNode(nil, NodeConfig{})
		n.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
		var subs []*Subscriber
		var who []listener
		for range rapid.IntRange(1, 8).Draw(rt, "subscribers") {
			claims := Scope{Account: rapid.Bool().Draw(rt, "account"), Customer: rapid.SampledFrom(few).Draw(rt, "customer"), Orders: ids(rt, "orders", few[1:])}
			f := Filter{
				Orders: ids(rt, "f orders", few[1:]), Invoices: ids(rt, "f invoices", few[1:]), Customers: ids(rt, "f customers", few[1:]),
				Wallets: ids(rt, "f wallets", few[1:]), Types: ids(rt, "f types", []string{"invoice.*", "commerce.order.updated"}),
			}
			s, err := claims.Narrow(f)
			if err != nil {
				s, f = claims, Filter{}
			}
			sub := n.Subscribe(s)
			if !n.hub.attach(sub) {
				rt.Fatal("attach at the tip failed")
			}
			subs, who = append(subs, sub), append(who, listener{claims, f})
		}
		want := make([][]string, len(subs))
		for i := range rapid.IntRange(1, 40).Draw(rt, "events") {
			one := rapid.SampledFrom(few)
			ev := &Event{ID: string(rune('A' + i)), Type: rapid.SampledFrom(types).Draw(rt, "type"), Keys: Keys{
				Order: one.Draw(rt, "order"), Invoice: one.Draw(rt, "invoice"), Customer: one.Draw(rt, "customer"), Wallet: one.Draw(rt, "wallet"),
			}}
			at := n.Position()
			if !n.hub.take(Announcement{Epoch: 1, From: at.Seq, Entries: []Entry{{Seq: at.Seq + 1, Epoch: 1, Event: ev}}}) {
				rt.Fatal("take refused the next event")
			}
			for j, l := range who {
				if l.may(ev.Keys, ev.Type) {
					want[j] = append(want[j], ev.ID)
				}
			}
		}
		for j, s := range subs {
			var live, replayed []string
			for s.Queued() > 0 {
				live = append(live, s.Next().Event.ID)
			}
			if !slices.Equal(live, want[j]) {
				rt.Fatalf("%+v got live %q, want %q", s.scope, live, want[j])
			}
			late := n.Subscribe(s.scope)
			late.Seek(Position{1, 0})
			if err := late.catchUpOnce(t.Context(), func(f *Frame) error {
				replayed = append(replayed, f.Event.ID)
				return nil
			}); err != nil || !slices.Equal(replayed, want[j]) {
				rt.Fatalf("%+v got replayed %q (%v), want %q", s.scope, replayed, err, want[j])
			}
		}
	})
}
