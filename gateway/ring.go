package gateway

import (
	"cmp"
	"slices"
	"sync"
)

const (
	// ringItems and ringBytes bound what a node keeps in memory to serve
	// reconnects without Redis.
	ringItems = 16384
	ringBytes = 32 << 20
	// ringPage is how many items a reader without a chain looks at a time, so
	// that the writer never waits long.
	ringPage = 512
)

// A ring holds the newest items of the log, dense by seq, with chains per order
// and customer so that a reconnect touches only its own. Safe for concurrent use.
type ring struct {
	mu         sync.RWMutex
	slots      []link // slot of seq is seq % ringItems
	first      uint64 // oldest seq held; first > last when empty
	last       uint64
	bytes      int
	generation uint64 // counts resets
	// newest seq per key; an entry whose seq is below first is dead and is
	// removed when its item leaves.
	orders, customers map[string]uint64
}

type link struct {
	item                    *item
	prevOrder, prevCustomer uint64
}

func newRing() *ring {
	return &ring{slots: make([]link, ringItems), first: 1, orders: map[string]uint64{}, customers: map[string]uint64{}}
}

// reset empties the ring; the next item is last+1.
func (r *ring) reset(last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.slots)
	clear(r.orders)
	clear(r.customers)
	r.first, r.last, r.bytes = last+1, last, 0
	r.generation++
}

// push appends the item that follows the last one.
func (r *ring) push(it *item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.first <= r.last && (r.last-r.first+1 >= ringItems || r.bytes+it.size > ringBytes) {
		r.dropLocked()
	}
	seq := it.pos.Seq
	l := link{item: it}
	if o := it.keys.Order; o != "" {
		l.prevOrder = r.orders[o]
		r.orders[o] = seq
	}
	if c := it.keys.Customer; c != "" {
		l.prevCustomer = r.customers[c]
		r.customers[c] = seq
	}
	r.slots[seq%ringItems] = l
	r.last = seq
	if r.first > r.last {
		r.first = seq
	}
	r.bytes += it.size
}

func (r *ring) dropLocked() {
	slot := &r.slots[r.first%ringItems]
	k := slot.item.keys
	if r.orders[k.Order] == r.first {
		delete(r.orders, k.Order)
	}
	if r.customers[k.Customer] == r.first {
		delete(r.customers, k.Customer)
	}
	r.bytes -= slot.item.size
	*slot = link{}
	r.first++
}

// holds says whether every item after seq is here.
func (r *ring) holds(seq uint64) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return seq+1 >= r.first && seq <= r.last
}

// after returns the items after seq that s may match, oldest first, and the last
// seq looked at. A scope of one order or customer gets its whole chain, others a
// page of the scan. ok is false when some of them are gone, or when the ring was
// reset since generation.
func (r *ring) after(seq, generation uint64, s *Scope) (items []*item, last uint64, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.generation != generation || seq+1 < r.first || seq > r.last {
		return nil, 0, false
	}
	orders, customers := s.SelectedOrders(), s.SelectedCustomers()
	switch {
	case len(orders) == 1:
		items = r.chainLocked(seq, r.orders[orders[0]], func(l *link) uint64 { return l.prevOrder })
		if len(customers) == 1 { // whose look-up names no order
			items = withLookUps(items, r.customerLocked(seq, customers[0]))
		}
		return items, r.last, true
	case len(orders) == 0 && len(customers) == 1:
		return r.customerLocked(seq, customers[0]), r.last, true
	}
	last = min(r.last, seq+ringPage)
	for n := seq + 1; n <= last; n++ {
		items = append(items, r.slots[n%ringItems].item)
	}
	return items, last, true
}

func (r *ring) customerLocked(seq uint64, customer string) []*item {
	return r.chainLocked(seq, r.customers[customer], func(l *link) uint64 { return l.prevCustomer })
}

// withLookUps returns an order's items with the look-ups of its customer's whole
// chain, oldest first.
func withLookUps(items, chain []*item) []*item {
	n := len(items)
	for _, it := range chain {
		if it.covered != nil && it.keys.Order == "" {
			items = append(items, it)
		}
	}
	if len(items) > n {
		slices.SortFunc(items, func(a, b *item) int { return cmp.Compare(a.pos.Seq, b.pos.Seq) })
	}
	return items
}

// chainLocked collects a chain from its newest item down to seq, oldest first.
func (r *ring) chainLocked(seq, head uint64, prev func(*link) uint64) []*item {
	var items []*item
	for n := head; n > seq && n >= r.first; {
		l := &r.slots[n%ringItems]
		items = append(items, l.item)
		n = prev(l)
	}
	slices.Reverse(items)
	return items
}

// tail returns the items after seq, at most max of them, or false when there
// are more or some are gone.
func (r *ring) tail(seq uint64, max int, out []*item) ([]*item, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if seq+1 < r.first || seq > r.last || r.last-seq > uint64(max) {
		return nil, false
	}
	for n := seq + 1; n <= r.last; n++ {
		out = append(out, r.slots[n%ringItems].item)
	}
	return out, true
}
