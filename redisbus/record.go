package redisbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"pepay-gateway/gateway"
)

// schema is the first byte of every packed record. Readers accept this version
// and the one before it, so that old and new binaries can run side by side.
const schema = 1

const (
	kindEvent = 'e'
	kindJoin  = 'j'
)

// errGarbage says that stored bytes are not what this package writes.
var errGarbage = errors.New("redisbus: malformed entry")

// appendEvent appends ev as length-prefixed fields. The scripts never look inside.
func appendEvent(b []byte, ev *gateway.Event) []byte {
	var contest byte
	if ev.Contest {
		contest = 1
	}
	b = append(b, schema, kindEvent, byte(ev.Object), contest)
	b = binary.AppendVarint(b, ev.Received)
	b = binary.AppendUvarint(b, ev.Version.Millis)
	b = binary.AppendUvarint(b, ev.Version.Seq)
	for _, s := range []string{ev.ID, ev.Type, ev.Keys.Order, ev.Keys.Invoice, ev.Keys.Customer, ev.Keys.Wallet, ev.Keys.Network} {
		b = appendField(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(ev.Data)))
	return append(b, ev.Data...)
}

// appendJoin appends j without its states, which the append script adds.
func appendJoin(b []byte, j *gateway.Join) []byte {
	var flags byte
	for i, on := range []bool{j.Link, j.Covered, j.Missing} {
		if on {
			flags |= 1 << i
		}
	}
	b = append(b, schema, kindJoin, flags, 0)
	for _, s := range []string{j.Order, j.Invoice, j.Customer} {
		b = appendField(b, s)
	}
	return b
}

// appendVersion appends v as the scripts have it in front of a state.
func appendVersion(b []byte, v gateway.Version) []byte {
	b = append(strconv.AppendUint(b, v.Millis, 10), ':')
	return append(strconv.AppendUint(b, v.Seq, 10), ':')
}

func appendField(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// unpack reads a packed record. What is stored is trusted no more than any
// other input: sizes and ids are checked again.
func unpack(blob, states string) (*gateway.Event, *gateway.Join, error) {
	if len(blob) < 4 || blob[0] != schema {
		return nil, nil, errGarbage
	}
	d := decoder{rest: blob[4:]}
	switch blob[1] {
	case kindEvent:
		ev := d.event(blob[2], blob[3])
		if d.bad || d.rest != "" {
			return nil, nil, errGarbage
		}
		return ev, nil, nil
	case kindJoin:
		j := &gateway.Join{Order: d.key(), Invoice: d.key(), Customer: d.key()}
		j.Link, j.Covered, j.Missing = blob[2]&1 != 0, blob[2]&2 != 0, blob[2]&4 != 0
		if d.bad || d.rest != "" {
			return nil, nil, errGarbage
		}
		var err error
		j.States, err = unpackStates(states)
		return nil, j, err
	}
	return nil, nil, errGarbage
}

func unpackStates(s string) ([]gateway.Event, error) {
	var out []gateway.Event
	for s != "" {
		length, rest, ok := strings.Cut(s, ":")
		n, err := strconv.Atoi(length)
		if !ok || err != nil || n < 0 || n > len(rest) {
			return nil, errGarbage
		}
		ev, _, err := unpack(rest[:n], "")
		if err != nil || ev == nil {
			return nil, errGarbage
		}
		out = append(out, *ev)
		s = rest[n:]
	}
	return out, nil
}

// A decoder reads length-prefixed fields; after the first bad one all are empty.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) event(object, contest byte) *gateway.Event {
	ev := &gateway.Event{Object: gateway.Object(object), Contest: contest == 1}
	ev.Received = d.varint()
	ev.Version.Millis = d.uvarint()
	ev.Version.Seq = d.uvarint()
	ev.ID = d.key()
	ev.Type = strings.Clone(d.field(gateway.MaxIDBytes)) // it must not keep the whole batch alive
	ev.Keys.Order, ev.Keys.Invoice, ev.Keys.Customer = d.key(), d.key(), d.key()
	ev.Keys.Wallet, ev.Keys.Network = d.key(), d.key()
	ev.Data = []byte(d.field(gateway.MaxEventBytes))
	if ev.ID == "" || object > byte(gateway.ObjectPayment) {
		d.bad = true
	}
	return ev
}

func (d *decoder) varint() int64 {
	n := d.uvarint()
	x := int64(n >> 1)
	if n&1 != 0 {
		x = ^x
	}
	return x
}

func (d *decoder) uvarint() uint64 {
	var x uint64
	for i := range min(len(d.rest), binary.MaxVarintLen64) {
		b := d.rest[i]
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			d.rest = d.rest[i+1:]
			return x
		}
	}
	d.bad, d.rest = true, ""
	return 0
}

func (d *decoder) field(limit int) string {
	n := d.uvarint()
	if d.bad || n > uint64(limit) || n > uint64(len(d.rest)) {
		d.bad, d.rest = true, ""
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) key() string {
	s := d.field(gateway.MaxIDBytes)
	if s != "" && !gateway.ValidID(s) {
		d.bad = true
	}
	return strings.Clone(s) // the keys must not keep the whole page alive
}

// Announcements on the stream's channel: "N" nudge, "A<order>\n<customer>" ask,
// and "B1 <epoch> <from> <count>\n" followed by count times
// "<blob bytes>,<states bytes>:<blob><states>"; without any, the leader rings.
func parseAnnouncement(payload string) (gateway.Announcement, error) {
	if payload == "N" {
		return gateway.Announcement{Nudge: true}, nil
	}
	if rest, ok := strings.CutPrefix(payload, "A"); ok {
		order, customer, ok := strings.Cut(rest, "\n")
		if !ok || order != "" && !gateway.ValidID(order) || customer != "" && !gateway.ValidID(customer) {
			return gateway.Announcement{}, errGarbage
		}
		return gateway.Announcement{Ask: gateway.Ask{Order: order, Customer: customer}}, nil
	}
	rest, ok := strings.CutPrefix(payload, "B1 ")
	if !ok {
		return gateway.Announcement{}, errGarbage
	}
	head, body, ok := strings.Cut(rest, "\n")
	parts := strings.Split(head, " ")
	if !ok || len(parts) != 3 {
		return gateway.Announcement{}, errGarbage
	}
	epoch, err1 := gateway.ParseEpoch(parts[0])
	from, err2 := strconv.ParseUint(parts[1], 10, 64)
	count, err3 := strconv.ParseUint(parts[2], 10, 16)
	if err := errors.Join(err1, err2, err3); err != nil {
		return gateway.Announcement{}, errGarbage
	}
	a := gateway.Announcement{Epoch: epoch, From: from, Entries: make([]gateway.Entry, 0, count)}
	for i := range count {
		blob, states, rest, err := cutItem(body)
		if err != nil {
			return gateway.Announcement{}, err
		}
		ev, join, err := unpack(blob, states)
		if err != nil {
			return gateway.Announcement{}, err
		}
		a.Entries = append(a.Entries, gateway.Entry{Seq: from + 1 + i, Epoch: epoch, Event: ev, Join: join})
		body = rest
	}
	if body != "" {
		return gateway.Announcement{}, errGarbage
	}
	return a, nil
}

func cutItem(s string) (blob, states, rest string, err error) {
	head, body, ok := strings.Cut(s, ":")
	n, m, ok2 := strings.Cut(head, ",")
	nb, err1 := strconv.Atoi(n)
	ns, err2 := strconv.Atoi(m)
	if !ok || !ok2 || err1 != nil || err2 != nil || nb < 0 || ns < 0 || nb > len(body) || ns > len(body)-nb {
		return "", "", "", errGarbage
	}
	return body[:nb], body[nb : nb+ns], body[nb+ns:], nil
}

// The upstream cursor is stored as "<created> <id>". When the history began is in
// another field, "<seq of the newest event that may be older> <began> <history>".
func appendCursor(b []byte, c gateway.UpstreamCursor) []byte {
	if c.IsZero() {
		return b
	}
	return append(append(strconv.AppendInt(b, c.Created, 10), ' '), c.ID...)
}

func unpackCursor(s, began string) (c gateway.UpstreamCursor, err error) {
	bad := fmt.Errorf("%w: cursor", errGarbage)
	if began != "" {
		if c.Began, err = strconv.ParseInt(began, 10, 64); err != nil {
			return c, bad
		}
	}
	if s == "" {
		return c, nil
	}
	created, id, ok := strings.Cut(s, " ")
	if c.Created, err = strconv.ParseInt(created, 10, 64); !ok || err != nil || !gateway.ValidID(id) {
		return gateway.UpstreamCursor{}, bad
	}
	c.ID = id
	return c, nil
}

// entryOf reads one stream entry: [id, [e, epoch, b, blob (, s, states)]].
func entryOf(v any) (gateway.Entry, error) {
	parts, ok := v.([]any)
	if !ok || len(parts) != 2 {
		return gateway.Entry{}, errGarbage
	}
	id, _ := parts[0].(string)
	fields, _ := parts[1].([]any)
	num, _, ok := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(num, 10, 64)
	if !ok || err != nil || len(fields) < 4 {
		return gateway.Entry{}, errGarbage
	}
	hex, _ := fields[1].(string)
	blob, _ := fields[3].(string)
	states := ""
	if len(fields) >= 6 {
		states, _ = fields[5].(string)
	}
	epoch, err := gateway.ParseEpoch(hex)
	if err != nil {
		return gateway.Entry{}, errGarbage
	}
	ev, join, err := unpack(blob, states)
	if err != nil {
		return gateway.Entry{Seq: seq, Epoch: epoch}, err
	}
	return gateway.Entry{Seq: seq, Epoch: epoch, Event: ev, Join: join}, nil
}

// packHealth and unpackHealth are meta's health field: "<state> <since ms> <reason>".
func packHealth(h gateway.Health) string {
	return fmt.Sprintf("%s %d %s", h.State, h.Since.UnixMilli(), h.Reason)
}

func unpackHealth(s string) gateway.Health {
	parts := strings.SplitN(s, " ", 3)
	if len(parts) != 3 {
		return gateway.Health{State: gateway.CatchingUp, Reason: "starting"}
	}
	ms, _ := strconv.ParseInt(parts[1], 10, 64)
	state := gateway.State(parts[0])
	switch state {
	case gateway.Live, gateway.CatchingUp, gateway.Stale:
	default:
		state = gateway.Stale
	}
	return gateway.Health{State: state, Reason: parts[2], Since: timeOfMillis(ms)}
}
