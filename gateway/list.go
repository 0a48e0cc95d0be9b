package gateway

import (
	"context"
	"slices"
)

const (
	// MaxListScan bounds the entries one listing looks at.
	MaxListScan = 2000
	scanPage    = 200
)

// A ListQuery selects events of the log, newest first.
type ListQuery struct {
	Scope         Scope // with the filters narrowed in
	Types         []string
	CreatedGTE    int64 // unix seconds; 0 = no bound
	CreatedLTE    int64
	StartingAfter string // only events older than this one
	EndingBefore  string // only events newer than this one
	Limit         int    // 1 to 100
}

// A List is one page of events, newest first.
type List struct {
	Events  []*Event
	HasMore bool
}

// List returns a page of what the scope may see. A scope limited to orders or a
// customer reads those orders' recent entries; others scan at most MaxListScan
// entries a call. With EndingBefore the page holds the events adjacent to it.
func (n *Node) List(ctx context.Context, q ListQuery) (List, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	older, err := n.bound(ctx, q.StartingAfter, q.Scope)
	if err != nil {
		return List{}, err
	}
	newer, err := n.bound(ctx, q.EndingBefore, q.Scope)
	if err != nil {
		return List{}, err
	}
	want := func(e *Entry) bool {
		ev := e.Event
		if ev == nil || !q.Scope.Allows(ev.Keys) || !q.Scope.Wants(ev.Type) || !MatchType(q.Types, ev.Type) {
			return false
		}
		created := int64(ev.Version.Millis / 1000)
		if q.CreatedGTE > 0 && created < q.CreatedGTE || q.CreatedLTE > 0 && created > q.CreatedLTE {
			return false
		}
		return (older == nil || older.after(e)) && (newer == nil || newer.before(e))
	}
	found, bounded, err := n.collect(ctx, q, older, newer, want)
	if err != nil {
		return List{}, err
	}
	// Past the bound of the scan there may be more; the next page looks there. Of
	// an empty page nothing could be asked after.
	out := List{HasMore: bounded && len(found) > 0}
	if len(found) > q.Limit {
		out.HasMore = true
		if q.EndingBefore != "" {
			found = found[len(found)-q.Limit:]
		} else {
			found = found[:q.Limit]
		}
	}
	for _, e := range found {
		out.Events = append(out.Events, e.Event)
	}
	return out, nil
}

// collect returns the wanted entries, newest first, and whether the scan ended at
// its bound. It stops one past the limit unless the page is counted from the old
// end.
func (n *Node) collect(ctx context.Context, q ListQuery, older, newer *mark, want func(*Entry) bool) (found []Entry, bounded bool, err error) {
	enough := func() bool { return q.EndingBefore == "" && len(found) > q.Limit }
	orders, customers := q.Scope.SelectedOrders(), q.Scope.SelectedCustomers()
	if len(orders) > 0 || len(customers) == 1 {
		customer := ""
		if len(orders) == 0 {
			customer = customers[0]
		}
		entries, err := n.log.Recent(ctx, orders, customer)
		if err != nil {
			return nil, false, err
		}
		for i := range entries {
			if !enough() && want(&entries[i]) {
				found = append(found, entries[i])
			}
		}
		return found, false, nil
	}
	if newer != nil && newer.seq > 0 {
		return n.collectUp(ctx, q.Limit, newer.seq, want)
	}
	before := uint64(0)
	if older != nil {
		before = older.seq
	}
	for scanned := 0; scanned < MaxListScan && !enough(); scanned += scanPage {
		entries, err := n.log.Scan(ctx, before, scanPage)
		if err != nil {
			return nil, false, err
		}
		for i := range entries {
			if want(&entries[i]) {
				found = append(found, entries[i])
			}
			before = entries[i].Seq
		}
		if len(entries) < scanPage || before <= 1 {
			return found, false, nil
		}
	}
	return found, !enough(), nil
}

// collectUp returns the wanted entries next to after, newest first, one past the
// limit if there are so many.
func (n *Node) collectUp(ctx context.Context, limit int, after uint64, want func(*Entry) bool) (found []Entry, bounded bool, err error) {
	for scanned := 0; scanned < MaxListScan && len(found) <= limit; scanned += scanPage {
		entries, err := n.log.ScanUp(ctx, after, scanPage)
		if err != nil {
			return nil, false, err
		}
		for i := range entries {
			if want(&entries[i]) {
				found = append(found, entries[i])
			}
			after = entries[i].Seq
		}
		if len(entries) < scanPage {
			slices.Reverse(found)
			return found, false, nil
		}
	}
	bounded = len(found) <= limit
	found = found[:min(len(found), limit+1)]
	slices.Reverse(found)
	return found, bounded, nil
}

// A mark is a place in a listing: a seq of the log, or, for an id that does not
// resolve for this reader, the version in the id itself.
type mark struct {
	seq     uint64
	version Version
}

// bound resolves an event id of a query; nil when none was given.
func (n *Node) bound(ctx context.Context, id string, scope Scope) (*mark, error) {
	if id == "" {
		return nil, nil
	}
	e, err := n.log.Find(ctx, id)
	switch {
	case err == nil && scope.Allows(e.Event.Keys):
		return &mark{seq: e.Seq}, nil
	case err != nil && err != ErrNotFound:
		return nil, err
	}
	v, _ := ParseEventID(id)
	return &mark{version: v}, nil
}

// after says whether e comes after m in the listing: whether it is older.
func (m *mark) after(e *Entry) bool {
	if m.seq > 0 {
		return e.Seq < m.seq
	}
	return e.Event.Version.Less(m.version)
}

func (m *mark) before(e *Entry) bool {
	if m.seq > 0 {
		return e.Seq > m.seq
	}
	return m.version.Less(e.Event.Version)
}

// Find returns one event by id, ErrNotFound if there is none in scope.
func (n *Node) Find(ctx context.Context, id string, scope Scope) (*Event, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	e, err := n.log.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	if !scope.Allows(e.Event.Keys) {
		return nil, ErrNotFound
	}
	return e.Event, nil
}
