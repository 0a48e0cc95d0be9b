package upstream

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/tidwall/gjson"

	"pepay-gateway/gateway"
)

// maxDepth bounds the nesting of an event. Real ones have about eight levels;
// parsers recurse, ours and those of the browsers.
const maxDepth = 64

// Errors of Decode.
var (
	ErrMalformed = errors.New("upstream: malformed frame") // not UTF-8, not one JSON object, too deep or ambiguous
	ErrTooLarge  = errors.New("upstream: event too large") // over gateway.MaxEventBytes
	ErrNotEvent  = errors.New("upstream: not an event")    // a well-formed frame of another kind
)

// Decode makes an event of one frame as received. Data is a private copy of raw,
// byte for byte; only the ids that events are selected by are looked at. An id
// that is missing, malformed or given twice is left empty and so matches nobody.
// The error is one of those above. It is safe for concurrent use.
func Decode(raw []byte, received time.Time) (gateway.Event, error) {
	root, err := parse(raw)
	if err != nil {
		return gateway.Event{}, err
	}
	e, err := decodeEvent(bytes.Clone(raw), root, received)
	return e.Event, err
}

// An entry is an event with what is needed to use it as a cursor.
type entry struct {
	gateway.Event
	cursor  gateway.UpstreamCursor // zero when the upstream would not understand it
	created int64                  // unix seconds, 0 when unknown
	skip    bool                   // it need not be handed over, and nothing more was read of it
}

// parse checks raw before anything trusts or recurses into it. The result is in
// raw's own bytes, which must not change as long as it is used; what is kept of
// it is copied.
func parse(raw []byte) (gjson.Result, error) {
	if !utf8.Valid(raw) || depth(raw) > maxDepth || !gjson.ValidBytes(raw) {
		return gjson.Result{}, ErrMalformed
	}
	root := gjson.Parse(unsafe.String(unsafe.SliceData(raw), len(raw)))
	if !root.IsObject() {
		return gjson.Result{}, ErrMalformed
	}
	return root, nil
}

// depth returns the deepest nesting of brackets outside strings.
func depth(raw []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// kindOf returns the top-level object of a frame. A frame without one that has
// an event's data is an event; documented ones are that short.
func kindOf(root gjson.Result) (string, error) {
	return kindIn(members(root, "object", "data"))
}

// kindIn is kindOf of a frame whose object and data were found, in that order.
func kindIn(top found) (string, error) {
	if top.twice(0) {
		return "", ErrMalformed
	}
	kind := top.value[0]
	if kind.Type == gjson.String {
		return kind.Str, nil
	}
	if !kind.Exists() && top.value[1].Get("object").IsObject() {
		return "event", nil
	}
	return "", nil
}

// decodeEvent makes the event of raw, which it keeps, and which nobody changes
// any more; root is what it says.
func decodeEvent(raw []byte, root gjson.Result, received time.Time) (entry, error) {
	top := members(root, "object", "data", "id", "type", "created")
	kind, err := kindIn(top)
	if err != nil {
		return entry{}, err
	}
	if kind != "event" {
		return entry{}, ErrNotEvent
	}
	if len(raw) > gateway.MaxEventBytes {
		return entry{}, ErrTooLarge
	}
	id := text(top.value[2])
	eventType := text(top.value[3])
	if !gateway.ValidID(eventType) {
		eventType = ""
	}
	object := members(top.value[1], "object").value[0]
	name := members(object, "object")
	kindName := text(name.value[0])
	if name.twice(0) {
		kindName = "?" // ambiguous: neither by its name nor by its type
	}
	created := seconds(top.value[4])
	e := entry{created: created}
	e.Event = gateway.Event{
		ID:       gateway.EventID(id, raw),
		Type:     eventType,
		Object:   gateway.ParseObject(kindName, eventType),
		Version:  gateway.EventVersion(id, created),
		Received: received.UnixMilli(),
		Data:     raw,
	}
	e.Keys = keysOf(object, e.Object, kindName)
	if e.created == 0 {
		e.created = int64(e.Version.Millis / 1000)
	}
	if e.ID == id && e.created > 0 {
		e.cursor = gateway.UpstreamCursor{ID: id, Created: e.created}
	}
	return e, nil
}

// Where an object carries its keys, best place first. Never in metadata: that
// is the merchant's own text. Never in settlement: that is another network.
var (
	orderKeys = placesOf(
		[]string{"id", "orderId", "order_id"},
		[]string{"invoice_id", "invoiceId"},
		[]string{"customerId", "customer_id"},
		[]string{"walletAddress", "wallet_address", "payer_wallet_address"},
		[]string{"walletNetwork", "wallet_network", "payer_wallet_network"},
	)
	invoiceKeys = placesOf(
		[]string{"commerce_order_id", "commerceOrderId"},
		[]string{"id", "invoiceId", "invoice_id"},
		[]string{"customer_id", "customerId"},
		[]string{"payer_wallet_address", "payerWalletAddress"},
		[]string{"payer_wallet_network", "payerWalletNetwork"},
	)
	paymentKeys = placesOf(
		[]string{"commerce_order_id", "commerceOrderId", "order_id", "orderId"},
		[]string{"invoice_id", "invoiceId"},
		[]string{"customer_id", "customerId"},
		[]string{"payer_wallet_address", "payerWalletAddress", "wallet_address", "walletAddress"},
		[]string{"payer_wallet_network", "payerWalletNetwork"},
	)
	quoteKeys = placesOf(nil, []string{"invoice_id", "invoiceId"}, nil, nil, nil)
)

// keyPlaces are the names of one kind's keys, all in one list so that an object
// is gone through once.
type keyPlaces struct {
	names []string
	ends  [5]int // of the order's, the invoice's, the customer's, the wallet's and the network's
}

func placesOf(keys ...[]string) keyPlaces {
	p := keyPlaces{names: slices.Concat(keys...)}
	if len(p.names) > maxNames {
		panic("upstream: more names of keys than maxNames")
	}
	end := 0
	for i, names := range keys {
		end += len(names)
		p.ends[i] = end
	}
	return p
}

func keysOf(object gjson.Result, kind gateway.Object, name string) gateway.Keys {
	places := keyPlaces{}
	switch {
	case kind == gateway.ObjectOrder:
		places = orderKeys
	case kind == gateway.ObjectInvoice:
		places = invoiceKeys
	case kind == gateway.ObjectPayment:
		places = paymentKeys
	case name == "payment_quote":
		places = quoteKeys
	}
	m := members(object, places.names...)
	ends := places.ends
	return gateway.Keys{
		Order:    keyIn(m, 0, ends[0]),
		Invoice:  keyIn(m, ends[0], ends[1]),
		Customer: keyIn(m, ends[1], ends[2]),
		Wallet:   gateway.NormalWallet(keyIn(m, ends[2], ends[3])),
		Network:  keyIn(m, ends[3], ends[4]),
	}
}

// key returns the first of the named members that holds an id, by the rule of
// keyIn.
func key(object gjson.Result, names ...string) string {
	return keyIn(members(object, names...), 0, len(names))
}

// keyIn returns the first of the members from up to end that holds an id. If any
// of them occurs twice there is none: a browser would read another one than we do.
func keyIn(m found, from, end int) string {
	for i := from; i < end; i++ {
		if m.twice(i) {
			return ""
		}
	}
	for _, v := range m.value[from:end] {
		id := text(v)
		if id == "" {
			continue
		}
		if !gateway.ValidID(id) {
			return ""
		}
		return id
	}
	return ""
}

// found are the members of an object by the place of their name in the question.
type found struct {
	value [maxNames]gjson.Result // zero when absent or given twice
	again uint                   // bit i: name i is given twice
}

// maxNames is how many members may be looked for at once.
const maxNames = 14

func (f found) twice(i int) bool { return f.again&(1<<i) != 0 }

func members(object gjson.Result, names ...string) (f found) {
	if !object.IsObject() {
		return f
	}
	var seen uint
	object.ForEach(func(name, value gjson.Result) bool {
		i := slices.Index(names, name.Str)
		if i < 0 {
			return true
		}
		if seen&(1<<i) != 0 {
			f.again |= 1 << i
			f.value[i] = gjson.Result{}
			return true
		}
		seen |= 1 << i
		f.value[i] = value
		return true
	})
	return f
}

// text returns a string, or a whole number in its shortest form; "" for anything
// else. A string with a broken escape is "" too: different ones would look alike.
// It is a copy: ids are remembered, and must not keep their frames alive.
func text(v gjson.Result) string {
	switch v.Type {
	case gjson.String:
		if strings.ContainsRune(v.Str, utf8.RuneError) {
			return ""
		}
		return strings.Clone(v.Str)
	case gjson.Number:
		if digits := strings.TrimPrefix(v.Raw, "-"); digits != "0" && strings.Trim(digits, "0123456789") == "" {
			return strings.Clone(v.Raw)
		}
		if v.Num == math.Trunc(v.Num) && math.Abs(v.Num) < 1<<53 {
			return strconv.FormatInt(int64(v.Num), 10)
		}
	}
	return ""
}

// seconds reads a time in any of the forms in use: unix seconds or milliseconds,
// as a number or text, or RFC 3339. It returns 0 for what is none.
func seconds(v gjson.Result) int64 {
	if v.Type == gjson.String {
		if at, err := time.Parse(time.RFC3339Nano, v.Str); err == nil {
			return max(at.Unix(), 0)
		}
	}
	n := v.Num
	if v.Type == gjson.String {
		parsed, err := strconv.ParseFloat(v.Str, 64)
		if err != nil {
			return 0
		}
		n = parsed
	}
	if v.Type != gjson.String && v.Type != gjson.Number || !(n > 0 && n < 1<<53) {
		return 0
	}
	if n >= 1e11 { // the year 5138 in seconds, 1973 in milliseconds
		n /= 1000
	}
	return int64(n)
}
