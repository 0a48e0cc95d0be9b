package gateway

// An index finds the subscribers that an event may be for. Each subscriber is
// filed once, under one thing its scope always demands.
type index struct {
	orders, customers, invoices, wallets map[string]subscribers
	// lookedUp finds by customer those that are filed under orders: their snapshot
	// may wait for a look-up of the customer, which names no order.
	lookedUp map[string]subscribers
	rest     subscribers
	count    int
}

type subscribers map[*Subscriber]struct{}

func newIndex() index {
	return index{
		orders: map[string]subscribers{}, customers: map[string]subscribers{},
		invoices: map[string]subscribers{}, wallets: map[string]subscribers{}, rest: subscribers{},
		lookedUp: map[string]subscribers{},
	}
}

// shelf returns where s is filed: a map and the keys in it, or nil for rest.
func (x *index) shelf(s *Scope) (map[string]subscribers, []string) {
	if ids := s.SelectedOrders(); len(ids) > 0 {
		return x.orders, ids
	}
	// Customers before invoices: a join entry about a customer need not name the
	// invoice of the state that it makes visible.
	if ids := s.SelectedCustomers(); len(ids) > 0 {
		return x.customers, ids
	}
	if ids := s.filter.Invoices; len(ids) > 0 {
		return x.invoices, ids
	}
	if ids := s.filter.Wallets; len(ids) > 0 {
		return x.wallets, ids
	}
	return nil, nil
}

func (x *index) add(s *Subscriber) {
	x.count++
	shelf, ids := x.shelf(&s.scope)
	if shelf == nil {
		x.rest[s] = struct{}{}
		return
	}
	file(shelf, ids, s)
	if len(s.scope.SelectedOrders()) > 0 {
		file(x.lookedUp, s.scope.SelectedCustomers(), s)
	}
}

func file(shelf map[string]subscribers, ids []string, s *Subscriber) {
	for _, id := range ids {
		if shelf[id] == nil {
			shelf[id] = subscribers{}
		}
		shelf[id][s] = struct{}{}
	}
}

func (x *index) remove(s *Subscriber) {
	x.count--
	shelf, ids := x.shelf(&s.scope)
	if shelf == nil {
		delete(x.rest, s)
		return
	}
	unfile(shelf, ids, s)
	if len(s.scope.SelectedOrders()) > 0 {
		unfile(x.lookedUp, s.scope.SelectedCustomers(), s)
	}
}

func unfile(shelf map[string]subscribers, ids []string, s *Subscriber) {
	for _, id := range ids {
		delete(shelf[id], s)
		if len(shelf[id]) == 0 {
			delete(shelf, id)
		}
	}
}

// each calls f once for every subscriber that k may be for. A join entry tells
// nothing new to those who ask for neither order, invoice nor customer.
func (x *index) each(k Keys, join bool, f func(*Subscriber)) {
	visit(x.orders[k.Order], k.Order, f)
	visit(x.customers[k.Customer], k.Customer, f)
	visit(x.invoices[k.Invoice], k.Invoice, f)
	if join {
		if k.Order == "" {
			visit(x.lookedUp[k.Customer], k.Customer, f)
		}
		return
	}
	visit(x.wallets[k.Wallet], k.Wallet, f)
	for s := range x.rest {
		f(s)
	}
}

func visit(set subscribers, key string, f func(*Subscriber)) {
	if key == "" {
		return
	}
	for s := range set {
		f(s)
	}
}

// all calls f for every subscriber; f may remove it.
func (x *index) all(f func(*Subscriber)) {
	for _, shelf := range []map[string]subscribers{x.orders, x.customers, x.invoices, x.wallets} {
		for _, set := range shelf {
			for s := range set {
				f(s)
			}
		}
	}
	for s := range x.rest {
		f(s)
	}
}
