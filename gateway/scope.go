package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// MaxFilterIDs bounds the ids in one filter parameter and the orders of one token.
	MaxFilterIDs = 50
	// MaxFilterTypes bounds the entries of types.
	MaxFilterTypes = 50
)

// ErrBadFilter says that a filter is malformed; the text says how.
var ErrBadFilter = errors.New("bad filter")

// A Filter is what a client asks for. Its fields combine with AND, the ids
// within a field with OR. The zero Filter asks for everything.
type Filter struct {
	Types                                          []string // exact, or a prefix ending in ".*"
	Orders, Invoices, Customers, Wallets, Networks []string
}

// Validate returns an ErrBadFilter that says what is wrong, or nil.
func (f Filter) Validate() error {
	for name, ids := range map[string][]string{
		"order_id": f.Orders, "invoice_id": f.Invoices, "customer_id": f.Customers,
		"wallet_address": f.Wallets, "wallet_network": f.Networks,
	} {
		if len(ids) > MaxFilterIDs {
			return fmt.Errorf("%w: %s: at most %d ids", ErrBadFilter, name, MaxFilterIDs)
		}
		for _, id := range ids {
			if !ValidID(id) {
				return fmt.Errorf("%w: %s: an id is 1 to %d printable bytes", ErrBadFilter, name, MaxIDBytes)
			}
		}
	}
	if len(f.Types) > MaxFilterTypes {
		return fmt.Errorf("%w: types: at most %d entries", ErrBadFilter, MaxFilterTypes)
	}
	for _, t := range f.Types {
		if !validType(t) {
			return fmt.Errorf("%w: types: an entry is a type such as commerce.order.updated, or a prefix such as invoice.*", ErrBadFilter)
		}
	}
	return nil
}

func validType(t string) bool {
	if !ValidID(t) || strings.ContainsAny(t, ", ") {
		return false
	}
	star := strings.IndexByte(t, '*')
	return star < 0 || star == len(t)-1 && len(t) > 2 && t[star-1] == '.'
}

// A Scope is what a token allows, narrowed by what its client asked for. It is
// frozen when a subscriber attaches. The zero Scope allows nothing.
type Scope struct {
	Account  bool     // the whole account; no other claim
	Customer string   // only this customer's, when not empty
	Orders   []string // only these orders', when not empty
	filter   Filter
}

// Scoped says whether s is limited to a customer or to orders by its token.
func (s Scope) Scoped() bool { return !s.Account && (s.Customer != "" || len(s.Orders) > 0) }

// Narrow returns s limited to what f asks for. A filter which the token alone
// shows to be outside is ErrOutsideScope, never an empty stream.
func (s Scope) Narrow(f Filter) (Scope, error) {
	if err := f.Validate(); err != nil {
		return Scope{}, err
	}
	if s.Customer != "" {
		for _, c := range f.Customers {
			if c != s.Customer {
				return Scope{}, fmt.Errorf("%w: customer_id", ErrOutsideScope)
			}
		}
	}
	if len(s.Orders) > 0 {
		for _, o := range f.Orders {
			if !slices.Contains(s.Orders, o) {
				return Scope{}, fmt.Errorf("%w: order_id", ErrOutsideScope)
			}
		}
	}
	wallets := make([]string, len(f.Wallets))
	for i, w := range f.Wallets {
		wallets[i] = NormalWallet(w)
	}
	f.Wallets = wallets
	s.Orders, f.Orders, f.Customers = unique(s.Orders), unique(f.Orders), unique(f.Customers)
	s.filter = f
	return s, nil
}

// unique returns ids without repetitions, in order.
func unique(ids []string) []string {
	var out []string
	for _, id := range ids {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// Allows is the one function that decides who sees what. Every claim and every
// filter present must match; bytes are compared as they are; a key that the
// event lacks matches nothing.
func (s Scope) Allows(k Keys) bool {
	if !s.Account {
		if s.Customer == "" && len(s.Orders) == 0 {
			return false
		}
		if s.Customer != "" && k.Customer != s.Customer {
			return false
		}
		if !within(s.Orders, k.Order) {
			return false
		}
	}
	f := &s.filter
	return within(f.Orders, k.Order) && within(f.Invoices, k.Invoice) && within(f.Customers, k.Customer) &&
		within(f.Wallets, k.Wallet) && within(f.Networks, k.Network)
}

// Wants says whether the types filter asks for events of this type.
func (s Scope) Wants(eventType string) bool { return MatchType(s.filter.Types, eventType) }

// MatchType says whether a type is in a list of exact types and ".*" prefixes.
// An empty list matches every type. The prefix keeps its dot, so invoice.* does
// not match invoice_payment.updated.
func MatchType(types []string, eventType string) bool {
	if len(types) == 0 {
		return true
	}
	for _, t := range types {
		if t == eventType {
			return true
		}
		if prefix, ok := strings.CutSuffix(t, "*"); ok && strings.HasPrefix(eventType, prefix) {
			return true
		}
	}
	return false
}

// within says whether key may pass a list of ids: an empty list asks nothing,
// an empty key passes only that.
func within(ids []string, key string) bool {
	if len(ids) == 0 {
		return true
	}
	return key != "" && slices.Contains(ids, key)
}

// SelectedOrders returns the orders that s can only ever match, or nil when it
// is not limited to orders. Every order that Allows lets pass is among them.
func (s Scope) SelectedOrders() []string {
	if len(s.filter.Orders) > 0 {
		return s.filter.Orders // Narrow made sure that they are within the claim
	}
	if !s.Account {
		return s.Orders
	}
	return nil
}

// SelectedCustomers is SelectedOrders for customers.
func (s Scope) SelectedCustomers() []string {
	if !s.Account && s.Customer != "" {
		return []string{s.Customer}
	}
	return s.filter.Customers
}
