package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxIDBytes bounds every id the gateway keys anything by. Longer event ids
	// are replaced by their SHA-256; longer keys are dropped (they match nobody).
	MaxIDBytes = 128
	// MaxEventBytes bounds one event's JSON, and so every frame we send.
	MaxEventBytes = 1 << 20
)

// An Event is one decoded fact from upstream. It is immutable once made: it is
// shared, without copying, by every subscriber that receives it.
type Event struct {
	ID       string // event.id; see EventID
	Type     string // event.type, as sent
	Object   Object // which of an order's objects it describes
	Version  Version
	Keys     Keys
	Contest  bool  // it names another customer than its order's first one: no customer sees it
	Received int64 // unix milliseconds at which the leader read it
	Data     []byte
}

// Keys are the ids an event can be selected by. An empty key is unknown, and
// matches no filter: unknown fails closed.
type Keys struct {
	Order, Invoice, Customer, Wallet, Network string
}

// An Object is the kind of thing an event describes. Order state keeps the
// newest event of each kind for each order.
type Object byte

// The objects of an order. ObjectOther has no place in order state.
const (
	ObjectOther Object = iota
	ObjectOrder
	ObjectInvoice
	ObjectPayment
)

// ParseObject maps data.object.object (or, when that is missing, the event's
// type) to an Object. Unknown ones are ObjectOther and pass through unharmed.
func ParseObject(object, eventType string) Object {
	switch object {
	case "commerce_order":
		return ObjectOrder
	case "invoice":
		return ObjectInvoice
	case "invoice_payment":
		return ObjectPayment
	case "":
	default:
		return ObjectOther
	}
	switch {
	case strings.HasPrefix(eventType, "commerce.order."):
		return ObjectOrder
	case strings.HasPrefix(eventType, "invoice."):
		return ObjectInvoice
	case strings.HasPrefix(eventType, "invoice_payment."):
		return ObjectPayment
	}
	return ObjectOther
}

// A Version orders the events of one object: by the id's (ms, seq), or, for ids
// of another form, by the envelope's created. The zero Version is unknown; such
// an event is placed by the log's own order.
type Version struct {
	Millis uint64 // < 2^53, so that Redis's scripts can compare it as a number
	Seq    uint64 // < 2^53
}

const maxExact = 1 << 53 // Lua numbers are doubles

// EventVersion derives the version of an event from its id, else from created
// (unix seconds; 0 when absent).
func EventVersion(id string, created int64) Version {
	if v, ok := ParseEventID(id); ok {
		return v
	}
	if created > 0 && created < maxExact/1000 {
		return Version{Millis: uint64(created) * 1000}
	}
	return Version{}
}

// ParseEventID splits an id of Pepay's form evt_<ms>-<seq>. The parts are not
// zero-padded, so ids must never be compared as strings.
func ParseEventID(id string) (Version, bool) {
	rest, ok := strings.CutPrefix(id, "evt_")
	if !ok {
		return Version{}, false
	}
	ms, seq, ok := strings.Cut(rest, "-")
	if !ok {
		return Version{}, false
	}
	m, err := strconv.ParseUint(ms, 10, 64)
	if err != nil || m == 0 || m >= maxExact {
		return Version{}, false
	}
	s, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || s >= maxExact {
		return Version{}, false
	}
	return Version{m, s}, true
}

// Less says whether v is older than w.
func (v Version) Less(w Version) bool {
	if v.Millis != w.Millis {
		return v.Millis < w.Millis
	}
	return v.Seq < w.Seq
}

// raise makes v next unless that is older, and reports whether it did.
func (v *Version) raise(next Version) bool {
	if next.Less(*v) {
		return false
	}
	*v = next
	return true
}

// Time is the version's wall clock, by the upstream's clock.
func (v Version) Time() time.Time { return time.UnixMilli(int64(v.Millis)) }

// EventID returns the id under which an event is known in the log: the
// upstream's own, its SHA-256 when that is over MaxIDBytes, not printable or
// could be confused with one of our markers, or the hash of the whole event
// when it has none.
func EventID(id string, data []byte) string {
	if id == "" {
		sum := sha256.Sum256(data)
		return "raw_" + hex.EncodeToString(sum[:])
	}
	if ValidID(id) && id[0] != '#' {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha_" + hex.EncodeToString(sum[:])
}

// ValidID says whether s may be used as an id or key: 1 to MaxIDBytes bytes of
// UTF-8 without control characters. Nothing is trimmed or folded.
func ValidID(s string) bool {
	if s == "" || len(s) > MaxIDBytes || !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// NormalWallet returns the form in which wallet addresses are compared: EVM
// addresses (0x and 40 hex digits) are case-insensitive, all others exact.
func NormalWallet(address string) string {
	if len(address) == 42 && (strings.HasPrefix(address, "0x") || strings.HasPrefix(address, "0X")) {
		return strings.ToLower(address)
	}
	return address
}
