package devnet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The event types a commerce stream carries.
const (
	typeOrderCreated   = "commerce.order.created"
	typeOrderUpdated   = "commerce.order.updated"
	typeInvoiceCreated = "invoice.created"
	typeInvoiceUpdated = "invoice.updated"
	typePaymentCreated = "invoice_payment.created"
	typePaymentUpdated = "invoice_payment.updated"
)

var allTypes = [...]string{
	typeOrderCreated, typeOrderUpdated, typeInvoiceCreated, typeInvoiceUpdated, typePaymentCreated, typePaymentUpdated,
}

// A frame is what one WebSocket message carries. It is immutable once made.
type frame struct {
	data   []byte
	binary bool
}

// An event is one recorded fact. It is immutable once made.
type event struct {
	frame
	id      string
	at      eventID // where it stands in the order of events; parsed from id where that is possible
	created int64   // unix seconds, by the devnet's clock
	typ     string
	keys    keys
	emitted time.Time // by the machine's clock, for delayed visibility
}

// keys say whose event it is. They are the devnet's own knowledge, and so
// complete even where the frame is a minimal one.
type keys struct {
	order, invoice, customer, wallet, network string
}

// An eventID is the comparable form of evt_<ms>-<seq>.
type eventID struct{ ms, seq int64 }

func (a eventID) compare(b eventID) int {
	return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.seq, b.seq))
}

func (a eventID) String() string { return fmt.Sprintf("evt_%d-%d", a.ms, a.seq) }

func parseEventID(s string) (eventID, bool) {
	rest, ok := strings.CutPrefix(s, "evt_")
	if !ok {
		return eventID{}, false
	}
	ms, seq, ok := strings.Cut(rest, "-")
	if !ok {
		return eventID{}, false
	}
	m, err := parseDigits(ms)
	if err != nil {
		return eventID{}, false
	}
	n, err := parseDigits(seq)
	return eventID{m, n}, err == nil
}

// parseDigits is ParseInt without signs, and with room above the result.
func parseDigits(s string) (int64, error) {
	u, err := strconv.ParseUint(s, 10, 62)
	return int64(u), err
}

type envelope struct {
	ID              string       `json:"id"`
	Object          string       `json:"object"`
	APIVersion      string       `json:"api_version"`
	Created         int64        `json:"created"`
	Type            string       `json:"type"`
	Livemode        bool         `json:"livemode"`
	PendingWebhooks int          `json:"pending_webhooks"`
	Request         requestRef   `json:"request"`
	Data            envelopeData `json:"data"`
}

type requestRef struct {
	ID             *string `json:"id"`
	IdempotencyKey *string `json:"idempotency_key"`
}

type envelopeData struct {
	Object   any            `json:"object"`
	Previous map[string]any `json:"previous_attributes,omitempty"`
}

// A minimalEnvelope is the short form of the documentation's samples.
type minimalEnvelope struct {
	ID      string      `json:"id"`
	Object  string      `json:"object"`
	Type    string      `json:"type"`
	Created int64       `json:"created"`
	Data    minimalData `json:"data"`
}

type minimalData struct {
	Object minimalObject `json:"object"`
}

type minimalObject struct {
	Object    string `json:"object"`
	ID        string `json:"id"`
	Status    string `json:"status"`
	InvoiceID string `json:"invoice_id,omitempty"`
}

// A change is what an event is made from: the object in both forms, whose it
// is, and the old values of what changed.
type change struct {
	typ      string
	object   any
	minimal  minimalObject
	keys     keys
	previous map[string]any
}

// emitLocked gives ch the next id, records it and sends it.
func (s *Server) emitLocked(ch change) {
	f := s.faults.Load()
	for _, kind := range f.Unknown {
		s.emitUnknownLocked(kind, ch)
	}
	s.recordLocked(ch)
}

func (s *Server) recordLocked(ch change) {
	id := s.events.nextID(s.now())
	ev := &event{
		id: id.String(), at: id, created: id.ms / 1000, typ: ch.typ, keys: ch.keys, emitted: time.Now(),
	}
	ev.data = s.encode(ev, ch)
	s.events.insert(ev)
	s.sendEventLocked(ev)
}

func (s *Server) encode(ev *event, ch change) []byte {
	var v any
	if s.faults.Load().Minimal {
		v = minimalEnvelope{ev.id, "event", ev.typ, ev.created, minimalData{ch.minimal}}
	} else {
		v = envelope{
			ID: ev.id, Object: "event", APIVersion: s.cfg.APIVersion, Created: ev.created, Type: ev.typ,
			Livemode: s.cfg.Environment == "mainnet", Data: envelopeData{ch.object, ch.previous},
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own structs always encode
	}
	return data
}

// emitUnknownLocked sends something a client has never heard of, just before
// the event that ch becomes.
func (s *Server) emitUnknownLocked(kind string, ch change) {
	switch kind {
	case UnknownType:
		ch.typ = ch.typ[:strings.LastIndexByte(ch.typ, '.')] + ".teleported"
		s.recordLocked(ch)
	case UnknownStatus:
		ch.minimal.Status = "teleported"
		switch o := ch.object.(type) {
		case orderObject:
			o.Status = ch.minimal.Status
			ch.object = o
		case invoiceObject:
			o.Status = ch.minimal.Status
			ch.object = o
		case paymentObject:
			o.Status = ch.minimal.Status
			ch.object = o
		}
		s.recordLocked(ch)
	case UnknownObject:
		s.sendAllLocked(&frame{data: []byte(`{"object":"ws_metric","type":"load","value":1}`)})
	}
}
