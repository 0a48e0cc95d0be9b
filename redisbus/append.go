package redisbus

import (
	"context"
	"fmt"

	"pepay-gateway/gateway"
)

// Append implements gateway.Log. A batch may be sent again after an error: what
// is in the log already is not written twice. What bounds it is the time limits
// of the connection.
func (b *Bus) Append(ctx context.Context, t gateway.Term, acked uint64, records []gateway.Record, cursor gateway.UpstreamCursor) (gateway.Appended, error) {
	c := b.command(b.append, b.appendKeys)
	c.fence, c.acked = t.Fence, acked
	c.args = append(c.args, &c.fence, &c.acked)
	c.blobs = appendCursor(c.blobs, cursor)
	c.packed(0)
	if cursor.Began != 0 {
		c.args = append(c.args, cursor.Began)
	} else {
		c.args = append(c.args, "")
	}
	for i := range records {
		c.record(&records[i])
	}
	v, err := c.call(ctx)
	if err != nil {
		return gateway.Appended{}, err
	}
	if tip, ok := v.(int64); ok { // all of it was written, just as it is
		return gateway.Appended{Seq: uint64(tip), Added: len(records), Entries: entriesOf(t, uint64(tip), records)}, nil
	}
	r, _ := v.([]any)
	if _, err := status("append", r); err != nil {
		return gateway.Appended{}, err
	}
	out := gateway.Appended{Seq: uint64(number(r, 1)), Added: int(number(r, 2)), Duplicates: int(number(r, 3))}
	if announced := text(r, 4); announced != "" {
		a, err := parseAnnouncement(announced)
		if err != nil {
			b.garbage.Add(1)
		}
		out.Entries = a.Entries
	}
	return out, nil
}

// entriesOf returns records as the entries up to tip.
func entriesOf(t gateway.Term, tip uint64, records []gateway.Record) []gateway.Entry {
	entries := make([]gateway.Entry, len(records))
	for i := range records {
		seq := tip - uint64(len(records)-1-i)
		entries[i] = gateway.Entry{Seq: seq, Epoch: t.Epoch, Event: records[i].Event, Join: records[i].Join}
	}
	return entries
}

// eventFlags are an event's: n is the lowest bit, p the highest.
var eventFlags = [...]any{
	"e", "en", "ew", "enw", "ef", "enf", "ewf", "enwf", "ep", "enp", "ewp", "enwp", "efp", "enfp", "ewfp", "enwfp",
}

// record adds r, which must not change before the command has been sent: its
// fields are pointed at, for each that is put into an interface is an allocation.
func (c *command) record(r *gateway.Record) {
	from := len(c.blobs)
	if j := r.Join; j != nil {
		flags := "jn"
		if j.Link {
			flags += "l"
		}
		if j.Covered {
			flags += "c"
		}
		if j.More {
			flags += "m"
		}
		if j.Missing {
			flags += "q"
		}
		c.blobs = appendJoin(c.blobs, j)
		c.args = append(c.args, flags, &r.ID, &j.Order, &j.Invoice, &j.Customer, "j", "")
		c.packed(from)
		return
	}
	ev, flags := r.Event, 0
	if r.NewLinks {
		flags |= 1
	}
	if r.Newest {
		flags |= 2
	}
	// The log forgets an order after MaxOrders others: it must hear of it in time.
	if r.Settled > 0 && r.Settled <= uint64(c.bus.cfg.MaxOrders/4) {
		flags |= 4
	}
	if r.Prior {
		flags |= 8
	}
	object := ev.Object
	if ev.Contest {
		object = gateway.ObjectOther // it must not take the place of what the order's customer may see
	}
	c.args = append(c.args, eventFlags[flags], &r.ID, &ev.Keys.Order, &ev.Keys.Invoice, &ev.Keys.Customer, int(object))
	c.blobs = appendVersion(c.blobs, ev.Version)
	c.packed(from)
	from = len(c.blobs)
	c.blobs = appendEvent(c.blobs, ev)
	c.packed(from)
}

// Links implements gateway.Log.
func (b *Bus) Links(ctx context.Context, orders, invoices []string) ([]gateway.OrderLink, []gateway.InvoiceLink, error) {
	args := make([]any, 0, 1+len(orders)+len(invoices))
	args = append(args, len(orders))
	for _, id := range orders {
		args = append(args, id)
	}
	for _, id := range invoices {
		args = append(args, id)
	}
	r, err := b.run(ctx, scriptLinks, args...)
	if err != nil {
		return nil, nil, err
	}
	if len(r) != len(orders)+len(invoices) {
		return nil, nil, fmt.Errorf("redisbus: links: %w", errGarbage)
	}
	ol := make([]gateway.OrderLink, len(orders))
	for i := range ol {
		l := list(r, i)
		ol[i] = gateway.OrderLink{
			Customer: text(l, 0), Invoice: firstLine(text(l, 1)), Seen: number(l, 2) == 1, HasOrder: number(l, 3) == 1,
			Newest: gateway.Version{Millis: uint64(number(l, 4)), Seq: uint64(number(l, 5))},
		}
	}
	il := make([]gateway.InvoiceLink, len(invoices))
	for i := range il {
		l := list(r, len(orders)+i)
		il[i] = gateway.InvoiceLink{
			Order: text(l, 0), Seen: number(l, 1) == 1,
			Newest: gateway.Version{Millis: uint64(number(l, 2)), Seq: uint64(number(l, 3))},
		}
	}
	return ol, il, nil
}
