package devnet

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"
	"time"
)

// play lets a shop do n things and returns what it did, without ids of events
// and times.
func play(t *testing.T, p Shop, n int) []string {
	t.Helper()
	s := New(Config{}, discard())
	if err := s.SetShop(p); err != nil {
		t.Fatal(err)
	}
	for range n {
		s.shopActLocked(s.shop)
	}
	var did []string
	for _, ev := range s.Record("") {
		var v eventView
		if err := json.Unmarshal([]byte(ev.Raw), &v); err != nil {
			t.Fatal(err)
		}
		did = append(did, ev.OrderID+" "+ev.CustomerID+" "+ev.Type+" "+str(v.Data.Object["status"])+" "+str(v.Data.Object["totalAmountUsd"]))
	}
	return did
}

func TestShopRepeatsBySeed(t *testing.T) {
	shop := Shop{OrdersPerSecond: 10, Seed: 7, Customers: 3}
	a, b := play(t, shop, 500), play(t, shop, 500)
	if !slices.Equal(a, b) {
		t.Error("two runs of one seed differ")
	}
	shop.Seed = 8
	if slices.Equal(a, play(t, shop, 500)) {
		t.Error("runs of two seeds are alike")
	}
}

func TestShopDeliversOrders(t *testing.T) {
	s := New(Config{}, discard())
	if err := s.SetShop(Shop{OrdersPerSecond: 1, Seed: 1}); err != nil {
		t.Fatal(err)
	}
	for range 6000 {
		s.shopActLocked(s.shop)
	}
	delivered := 0
	for _, o := range s.orders.list {
		if o.status == statusDelivered {
			delivered++
		}
	}
	if n := len(s.orders.list); n < 900 || delivered < n/2 {
		t.Errorf("%d of %d orders delivered, want most of about 1000", delivered, n)
	}
}

func TestShopKeepsItsRate(t *testing.T) {
	s := New(Config{}, discard())
	if err := s.SetShop(Shop{OrdersPerSecond: 50, TransitionsPerSecond: 50, Seed: 1}); err != nil {
		t.Fatal(err)
	}
	from := s.shop.last
	for i := 1; i <= 1000; i++ {
		s.playShop(from.Add(time.Duration(i) * 10 * time.Millisecond))
	}
	if got := len(s.orders.list); got < 495 || got > 505 {
		t.Errorf("%d orders in 10 s, want about 500", got)
	}
	before := s.State().Events
	s.playShop(from.Add(time.Hour))
	if got := s.State().Events - before; got > 300 {
		t.Errorf("%d events after a pause of an hour, want at most one second's", got)
	}
}

func TestShopOpensAndCloses(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("types=commerce.order.created")
	r.ok("POST", "/_devnet/shop", `{"orders_per_second":500,"seed":3,"customers":2}`, nil)
	for range 3 {
		c.wantEvent(typeOrderCreated, "pending_payment")
	}
	r.ok("POST", "/_devnet/shop", `{"orders_per_second":0}`, nil)
	if r.playShop(time.Now()) {
		t.Error("shop is open, want it closed")
	}
	for _, p := range []Shop{{OrdersPerSecond: -1}, {OrdersPerSecond: 1e9}, {OrdersPerSecond: math.NaN()}, {Customers: -1}} {
		if err := r.SetShop(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("SetShop(%+v) = %v, want %v", p, err, ErrInvalid)
		}
	}
}
