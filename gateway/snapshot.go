package gateway

import (
	"context"
	"errors"
	"slices"
)

// A ScopedSnapshot is what a scope may see of the state of its orders.
type ScopedSnapshot struct {
	Pos       Position
	Frames    []*Frame // oldest first, without cursors
	Complete  bool     // nothing in scope is known to be missing
	Truncated bool     // there are more orders than a snapshot covers, or the log has room for
	Asks      []Ask    // what to Ask for, to become complete
}

// Snapshot returns the state of a scope that is limited to orders or a customer.
func (n *Node) Snapshot(ctx context.Context, scope Scope) (ScopedSnapshot, error) {
	orders, customer := scope.SelectedOrders(), scope.Customer
	if c := scope.SelectedCustomers(); len(orders) == 0 && len(c) == 1 {
		customer = c[0]
	}
	if len(orders) == 0 && customer == "" {
		return ScopedSnapshot{}, errors.New("gateway: snapshot of a scope without order or customer")
	}
	select {
	case n.reads <- struct{}{}:
		defer func() { <-n.reads }()
	case <-ctx.Done():
		return ScopedSnapshot{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	s, err := n.log.Snapshot(ctx, orders, customer)
	if err != nil {
		return ScopedSnapshot{}, err
	}
	return scoped(s, scope, customer), nil
}

// scoped reduces a snapshot to what the scope may see. Within a customer's scope
// nothing is said or asked of single orders but those that the token itself
// names: whether one that is not proven the customer's exists is none of their
// business, and asking would cost the log.
func scoped(s Snapshot, scope Scope, customer string) ScopedSnapshot {
	missing := s.Missing
	if scope.Customer != "" {
		missing = slices.DeleteFunc(slices.Clone(missing), func(o string) bool { return !slices.Contains(scope.Orders, o) })
	}
	out := ScopedSnapshot{Pos: s.Pos, Truncated: s.Truncated, Complete: !s.None && len(missing) == 0 && !s.Uncovered}
	for i := range s.States {
		ev := &s.States[i]
		if scope.Allows(ev.Keys) && scope.Wants(ev.Type) {
			out.Frames = append(out.Frames, &Frame{Event: ev})
		}
	}
	for _, o := range missing {
		out.Asks = append(out.Asks, Ask{Order: o})
	}
	if s.Uncovered && customer != "" {
		out.Asks = append(out.Asks, Ask{Customer: customer})
	}
	return out
}

// Ask asks the leader to look up what a snapshot lacks. It is a hint: ask again
// while nothing comes.
func (n *Node) Ask(ctx context.Context, asks []Ask) error {
	for _, a := range asks {
		if err := n.log.Ask(ctx, a); err != nil {
			return err
		}
	}
	return nil
}
