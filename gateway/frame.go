package gateway

import (
	"slices"
	"sync"
)

// A FrameKind says what a Frame is.
type FrameKind byte

// The kinds of frames a subscriber receives.
const (
	FrameEvent   FrameKind = iota
	FrameTip               // proof of life: only Pos and Cursor are set
	FrameCovered           // the order or customer of Covered was looked up; a waiting snapshot is complete
)

// A Frame is one thing for a subscriber's socket. It is shared by all its
// receivers, so it is immutable, and each transport encodes it once.
type Frame struct {
	Kind    FrameKind
	Pos     Position
	Cursor  string // of Pos; "" when the client's cursor must not move with it
	Event   *Event
	Covered Ask
	HubAt   int64 // unix milliseconds at which this node's hub took it; 0 when read back

	once    [transports]sync.Once
	encoded [transports]any
}

// A Transport is one way of encoding frames.
type Transport byte

// The transports.
const (
	WS Transport = iota
	SSE
	transports
)

// Encoded returns f encoded for t, calling encode the first time only. Safe for
// concurrent use.
func (f *Frame) Encoded(t Transport, encode func(*Frame) any) any {
	f.once[t].Do(func() { f.encoded[t] = encode(f) })
	return f.encoded[t]
}

// framesFor appends what s sees of the item: its event, or, for a join entry,
// the states that s matches now and did not match before.
func (it *item) framesFor(s *Scope, out []*Frame) []*Frame {
	if it.event != nil {
		if s.Allows(it.event.Event.Keys) && s.Wants(it.event.Event.Type) {
			out = append(out, it.event)
		}
		return out
	}
	for i, f := range it.states {
		if s.Allows(it.joined[i]) && !s.Allows(f.Event.Keys) && s.Wants(f.Event.Type) {
			out = append(out, f)
		}
	}
	if it.covered != nil && s.covers(it.covered.Covered) {
		out = append(out, it.covered)
	}
	return out
}

// covers says whether a look-up of a is news for s.
func (s *Scope) covers(a Ask) bool {
	if a.Order != "" {
		return slices.Contains(s.SelectedOrders(), a.Order)
	}
	return slices.Contains(s.SelectedCustomers(), a.Customer)
}

// An item is one entry of the log, ready to be handed out: its frames are made
// once and shared by all subscribers of the node.
type item struct {
	pos     Position
	event   *Frame
	states  []*Frame // of a join entry
	joined  []Keys   // the keys of states with what the join entry told
	covered *Frame
	keys    Keys // what the item is indexed by
	size    int
}

func newItem(epoch Epoch, e *Entry, codec *CursorCodec, hubAt int64) *item {
	it := &item{pos: Position{epoch, e.Seq}}
	switch {
	case e.Event != nil:
		it.event = &Frame{Pos: it.pos, Cursor: codec.Encode(it.pos), Event: e.Event, HubAt: hubAt}
		it.keys = e.Event.Keys
		it.size = len(e.Event.Data)
	case e.Join != nil:
		j := e.Join
		it.keys = Keys{Order: j.Order, Invoice: j.Invoice, Customer: j.Customer}
		for i := range j.States {
			ev := &j.States[i]
			it.states = append(it.states, &Frame{Pos: it.pos, Event: ev})
			it.joined = append(it.joined, j.Keys(ev))
			it.size += len(ev.Data)
		}
		if j.Covered {
			it.covered = &Frame{Kind: FrameCovered, Pos: it.pos, Covered: Ask{Order: j.Order}}
			if j.Order == "" {
				it.covered.Covered.Customer = j.Customer
			}
		}
	}
	return it
}
