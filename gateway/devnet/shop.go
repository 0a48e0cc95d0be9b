package devnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	maxShopRate   = 20_000                // actions per second
	shopTick      = 10 * time.Millisecond // how often a busy shop catches up
	maxShopOrders = 2_000                 // under way; beyond it the shop only moves orders on
	defaultBuyers = 20
	orderSteps    = 5 // transitions of the happy path
)

// A Shop says how a shop plays by itself: orders are created and taken along
// the happy path. What it does, for whom and in which order depends on the seed
// alone, not on timing.
type Shop struct {
	OrdersPerSecond      float64 `json:"orders_per_second"`                // 0 closes the shop
	TransitionsPerSecond float64 `json:"transitions_per_second,omitempty"` // default five per order, which moves all of them
	Seed                 uint64  `json:"seed,omitempty"`
	Customers            int     `json:"customers,omitempty"` // cust_1 to cust_N; default 20
}

func (p Shop) validate() error {
	rate := p.OrdersPerSecond + p.TransitionsPerSecond
	if !(p.OrdersPerSecond >= 0 && p.TransitionsPerSecond >= 0 && rate <= maxShopRate) || p.Customers < 0 {
		return invalid("shop: rates must be 0 to %d, customers positive", maxShopRate)
	}
	return nil
}

// A shopRun is one opening of the shop. It is guarded by the server's mutex.
type shopRun struct {
	Shop
	rand  *rand.Rand
	open  []*order // under way
	share float64  // of actions that create an order
	due   float64  // orders owed to that share

	last time.Time // when it last caught up
	owed float64   // actions owed since then
}

// next returns the next transition of the happy path from where the order is.
func (o *order) next() (string, bool) {
	for _, to := range [...]string{PaymentConfirmed, PaymentSettled, Placed, Shipped, DeliveryConfirmed} {
		if o.allows(to) {
			return to, true
		}
	}
	return "", false
}

// SetShop opens a shop anew, or closes it. It plays while Serve runs. Rates out
// of bounds are ErrInvalid.
func (s *Server) SetShop(p Shop) error {
	if err := p.validate(); err != nil {
		return err
	}
	if p.Customers == 0 {
		p.Customers = defaultBuyers
	}
	if p.TransitionsPerSecond == 0 {
		p.TransitionsPerSecond = orderSteps * p.OrdersPerSecond
	}
	s.mu.Lock()
	s.shop = nil
	if p.OrdersPerSecond > 0 {
		s.shop = &shopRun{
			Shop: p, rand: rand.New(rand.NewPCG(p.Seed, 1)), last: time.Now(),
			share: p.OrdersPerSecond / (p.OrdersPerSecond + p.TransitionsPerSecond),
		}
	}
	s.mu.Unlock()
	select {
	case s.shopChanged <- struct{}{}:
	default: // it has yet to look, and will see this change too
	}
	return nil
}

// shopLoop plays the shop, when there is one, until ctx ends.
func (s *Server) shopLoop(ctx context.Context) {
	tick := time.NewTicker(shopTick)
	defer tick.Stop()
	for {
		playing := tick.C
		if !s.playShop(time.Now()) {
			playing = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-s.shopChanged:
		case <-playing:
		}
	}
}

// playShop does what is due by now and says whether the shop is open.
func (s *Server) playShop(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	shop := s.shop
	if shop == nil {
		return false
	}
	rate := shop.OrdersPerSecond + shop.TransitionsPerSecond
	shop.owed += now.Sub(shop.last).Seconds() * rate
	shop.owed = min(shop.owed, max(rate, 1)) // after a suspend, do not catch up with hours
	shop.last = now
	for ; shop.owed >= 1; shop.owed-- {
		s.shopActLocked(shop)
	}
	return true
}

// shopActLocked does one thing: create an order or move one on.
func (s *Server) shopActLocked(shop *shopRun) {
	shop.due += shop.share
	if shop.due >= 1 || len(shop.open) == 0 {
		shop.due = max(0, shop.due-1)
		if len(shop.open) < maxShopOrders {
			s.shopOrderLocked(shop)
			return
		}
	}
	i := shop.rand.IntN(len(shop.open))
	o := shop.open[i]
	to, ok := o.next()
	if ok {
		_ = s.moveLocked(o, Transition{To: to}, shop.rand) // allowed, as next has just said
		_, ok = o.next()
	}
	if !ok { // delivered, or somebody else took it off the path
		last := len(shop.open) - 1
		shop.open[i] = shop.open[last]
		shop.open[last] = nil
		shop.open = shop.open[:last]
	}
}

func (s *Server) shopOrderLocked(shop *shopRun) {
	in := NewOrder{CustomerID: fmt.Sprintf("cust_%d", 1+shop.rand.IntN(shop.Customers))}
	o, err := s.createLocked(in, shop.rand)
	if err != nil {
		panic(err) // the shop's own orders are well-formed
	}
	shop.open = append(shop.open, o)
}
