package gateway

import (
	"context"
	"fmt"
	"time"
)

// maxLinks bounds the leader's memory of links; past it, it starts afresh from
// the log.
const maxLinks = 50_000

// links is what the leader knows of orders and invoices: the log's own record,
// read once per order and term, and kept current because nobody else writes.
// Touched by who holds the term's turn only.
type links struct {
	orders   map[string]*OrderLink
	invoices map[string]*InvoiceLink
	fronts   fronts
	joins    uint64 // numbers this term's join entries
}

func newLinks() *links {
	return &links{
		orders: map[string]*OrderLink{}, invoices: map[string]*InvoiceLink{},
		fronts: fronts{of: map[string]front{}},
	}
}

// An outcome is what a batch becomes.
type outcome struct {
	records   []Record
	cursor    UpstreamCursor
	unrouted  []lookup
	conflicts int
}

// load reads the links of everything in batch that is not known yet.
func (l *links) load(ctx context.Context, log Log, batch []work) error {
	if len(l.orders)+len(l.invoices) > maxLinks {
		clear(l.orders)
		clear(l.invoices)
		clear(l.fronts.of)
	}
	for i := range batch {
		if r := batch[i].looked; r != nil && r.asked {
			delete(l.orders, r.keys().Order) // somebody misses it: it may have been trimmed
		}
	}
	orders, invoices := l.unknown(batch)
	for len(orders)+len(invoices) > 0 {
		cctx, cancel := context.WithTimeout(ctx, commandTimeout)
		ol, il, err := log.Links(cctx, orders, invoices)
		cancel()
		if err != nil {
			return err
		}
		for i, id := range orders {
			l.orders[id] = &ol[i]
		}
		for i, id := range invoices {
			l.invoices[id] = &il[i]
		}
		// An invoice may have named an order that is not known yet.
		orders, invoices = l.unknown(batch)
	}
	return nil
}

func (l *links) unknown(batch []work) (orders, invoices []string) {
	seen := map[string]bool{}
	order := func(id string) {
		if id != "" && l.orders[id] == nil && !seen["o"+id] {
			seen["o"+id] = true
			orders = append(orders, id)
		}
	}
	for i := range batch {
		k := batch[i].keys()
		order(k.Order)
		if k.Invoice == "" {
			continue
		}
		if link := l.invoices[k.Invoice]; link != nil {
			order(link.Order)
		} else if !seen["i"+k.Invoice] {
			seen["i"+k.Invoice] = true
			invoices = append(invoices, k.Invoice)
		}
	}
	return orders, invoices
}

func (w *work) keys() Keys {
	if w.looked != nil {
		return w.looked.keys()
	}
	return w.arrival.Event.Keys
}

// fill turns one work into records: missing keys are filled in, and what the
// event teaches about earlier ones becomes a join entry in front of it.
func (l *links) fill(w *work, epoch Epoch, out *outcome) {
	switch {
	case w.health != nil:
	case w.looked != nil:
		l.fillLooked(w.looked, epoch, out)
	default:
		ev := w.arrival.Event // a private copy; its bytes are shared and never change
		l.fillEvent(&ev, epoch, out)
		out.records[len(out.records)-1].Prior = w.arrival.Prior
		out.cursor.move(w.arrival.Cursor)
	}
}

func (l *links) fillEvent(ev *Event, epoch Epoch, out *outcome) {
	k := &ev.Keys
	inv := l.invoices[k.Invoice]
	if k.Order == "" && inv != nil {
		k.Order = inv.Order
	}
	if k.Order == "" {
		newest := false
		if inv != nil {
			inv.Seen = true
			newest = inv.Newest.raise(ev.Version)
			out.unrouted = append(out.unrouted, lookup{invoice: k.Invoice})
		}
		out.add(ev, false, newest, 0)
		return
	}
	order := l.orders[k.Order]
	learned := l.learn(k.Order, k.Invoice, k.Customer, epoch, out)
	if k.Invoice == "" {
		k.Invoice = order.Invoice
	}
	switch {
	case k.Customer == "":
		k.Customer = order.Customer
	case k.Customer != order.Customer:
		// The order's first customer wins. Whose event this is cannot be proven,
		// so no customer gets it.
		k.Customer, ev.Contest = "", true
		out.conflicts++
	}
	if k.Customer == "" && !ev.Contest {
		out.unrouted = append(out.unrouted, lookup{ask: Ask{Order: k.Order}})
	}
	order.Seen = true
	if ev.Object == ObjectOrder {
		order.HasOrder = true
	}
	out.add(ev, learned, order.Newest.raise(ev.Version), l.fronts.settle(ev, len(out.records)))
}

// learn takes note of an order's first customer and an invoice's first order.
// Where events were logged before that was known, it adds a join entry.
func (l *links) learn(id, invoice, customer string, epoch Epoch, out *outcome) bool {
	order, inv := l.orders[id], l.invoices[invoice]
	late, learned := false, false
	if inv != nil && inv.Order == "" {
		late = inv.Seen || order.Seen && order.Invoice == ""
		inv.Order, inv.Seen, learned = id, false, true
		order.Newest.raise(inv.Newest) // the log makes its states the order's
		if order.Invoice == "" {
			order.Invoice = invoice
		}
	}
	if customer != "" && order.Customer == "" {
		late = late || order.Seen
		order.Customer, learned = customer, true
	}
	if late {
		if invoice == "" {
			invoice = order.Invoice // what was logged before that was known has it now
		}
		l.join(&Join{Order: id, Invoice: invoice, Customer: order.Customer, Link: true}, epoch, out)
		order.Seen = true
	}
	return learned
}

func (l *links) join(j *Join, epoch Epoch, out *outcome) {
	l.joins++
	l.fronts.unsettle(j.Customer) // for events after it in the batch: whom it puts in front is not followed
	out.records = append(out.records, Record{ID: fmt.Sprintf("join_%s_%d", epoch, l.joins), Join: j})
}

func (out *outcome) add(ev *Event, learned, newest bool, settled uint64) {
	out.records = append(out.records, Record{ID: ev.ID, Event: ev, NewLinks: learned, Newest: newest, Settled: settled})
}

// fillLooked appends what a look-up found: the link, the order itself when its
// own events are out of reach, and that the state is complete now.
func (l *links) fillLooked(r *lookup, epoch Epoch, out *outcome) {
	for i := range r.found {
		ev := r.found[i].Event
		k := ev.Keys
		order := l.orders[k.Order]
		if order == nil {
			continue // links.load read all there are
		}
		l.learn(k.Order, k.Invoice, k.Customer, epoch, out)
		if r.asked && !order.HasOrder {
			ev.Received = time.Now().UnixMilli()
			l.fillEvent(&ev, epoch, out)
			out.records[len(out.records)-1].NewLinks = true
		}
	}
	if r.asked && r.done {
		j := &Join{Order: r.ask.Order, Customer: r.ask.Customer, Covered: true, Missing: r.missing, More: r.more}
		if order := l.orders[j.Order]; order != nil {
			j.Customer = order.Customer
		}
		l.join(j, epoch, out)
	}
}
