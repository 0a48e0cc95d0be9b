package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"pepay-gateway/gateway"
)

const wallet = "0x00000000000000000000000000000000000000A1"

func eventJSON(object string) string {
	return `{"id":"evt_1767225600123-7","object":"event","type":"commerce.order.updated","created":1767225600,"data":{"object":` + object + `}}`
}

func TestDecodeKeys(t *testing.T) {
	lower := strings.ToLower(wallet)
	tests := []struct {
		name, object string
		want         gateway.Keys
	}{
		{
			"minimal order", `{"object":"commerce_order","id":"o1","status":"shipped","invoice_id":"i1"}`,
			gateway.Keys{Order: "o1", Invoice: "i1"},
		},
		{
			"camel case order", `{"object":"commerce_order","orderId":"o1","invoiceId":"i1","customerId":"c1","walletAddress":"` + wallet + `","walletNetwork":"bsc"}`,
			gateway.Keys{Order: "o1", Invoice: "i1", Customer: "c1", Wallet: lower, Network: "bsc"},
		},
		{
			"snake case order", `{"object":"commerce_order","order_id":"o1","invoice_id":"i1","customer_id":"c1","wallet_address":"` + wallet + `","wallet_network":"bsc"}`,
			gateway.Keys{Order: "o1", Invoice: "i1", Customer: "c1", Wallet: lower, Network: "bsc"},
		},
		{"null falls through", `{"object":"commerce_order","id":null,"orderId":"o1","customerId":null}`, gateway.Keys{Order: "o1"}},
		{"object by type", `{"id":"o1","customerId":"c1"}`, gateway.Keys{Order: "o1", Customer: "c1"}},
		{
			"numbers", `{"object":"commerce_order","id":17,"invoice_id":9007199254740993,"customerId":1.0e1}`,
			gateway.Keys{Order: "17", Invoice: "9007199254740993", Customer: "10"},
		},
		{"numbers that are no ids", `{"object":"commerce_order","id":1.5,"invoice_id":1e999,"customerId":true}`, gateway.Keys{}},
		{
			"invoice", `{"object":"invoice","id":"i1","commerce_order_id":"o1","customer_id":"c1","payer_wallet_address":"So1Ana","payer_wallet_network":"solana"}`,
			gateway.Keys{Order: "o1", Invoice: "i1", Customer: "c1", Wallet: "So1Ana", Network: "solana"},
		},
		{
			"invoice metadata is the merchant's", `{"object":"invoice","id":"i1","metadata":{"order_id":"o9","commerce_order_id":"o9","customer_id":"c9"},"order_id":"o8"}`,
			gateway.Keys{Invoice: "i1"},
		},
		{"payment", `{"object":"invoice_payment","id":"p1","invoice_id":"i1","settlement":{"network":"bsc"}}`, gateway.Keys{Invoice: "i1"}},
		{"quote", `{"object":"payment_quote","invoice_id":"i1","network":"bsc","customer_id":"c1"}`, gateway.Keys{Invoice: "i1"}},
		{"unknown object", `{"object":"novelty","id":"o1","customer_id":"c1"}`, gateway.Keys{}},
		{"key given twice", `{"object":"commerce_order","id":"o1","customerId":"c1","customerId":"c2"}`, gateway.Keys{Order: "o1"}},
		{"key given twice, once escaped", `{"object":"commerce_order","id":"o1","i\u0064":"o2","customerId":"c1"}`, gateway.Keys{Customer: "c1"}},
		{"second spelling given twice", `{"object":"commerce_order","id":"o1","orderId":"o1","orderId":"o2"}`, gateway.Keys{}},
		{"object given twice", `{"object":"commerce_order","object":"invoice","id":"o1","customerId":"c1"}`, gateway.Keys{}},
		{"control character", `{"object":"commerce_order","id":"o\u0000","customerId":"c\n"}`, gateway.Keys{}},
		{"lone surrogate", `{"object":"commerce_order","id":"o\ud800"}`, gateway.Keys{}},
		{"too long", `{"object":"commerce_order","id":"` + strings.Repeat("x", 129) + `"}`, gateway.Keys{}},
		{"not an object", `[1]`, gateway.Keys{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Decode([]byte(eventJSON(tt.object)), time.UnixMilli(5))
			if err != nil {
				t.Fatalf("Decode() = %v, want nil", err)
			}
			if diff := cmp.Diff(tt.want, e.Keys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeEnvelope(t *testing.T) {
	tests := []struct {
		name, raw string
		want      gateway.Event
	}{
		{
			"full", `{"id":"evt_1767225600123-7","object":"event","api_version":"2025-12-16","created":1767225600,"type":"invoice.updated","livemode":false,"data":{"object":{"object":"invoice"},"previous_attributes":{}}}`,
			gateway.Event{ID: "evt_1767225600123-7", Type: "invoice.updated", Object: gateway.ObjectInvoice, Version: gateway.Version{Millis: 1767225600123, Seq: 7}},
		},
		{
			"opaque id", `{"id":"evt_123","object":"event","created":1767225600,"type":"invoice.updated","data":{"object":{}}}`,
			gateway.Event{ID: "evt_123", Type: "invoice.updated", Object: gateway.ObjectInvoice, Version: gateway.Version{Millis: 1767225600000}},
		},
		{
			"ISO created", `{"id":"evt_123","object":"event","created":"2026-01-01T00:00:00.5Z","type":"x"}`,
			gateway.Event{ID: "evt_123", Type: "x", Version: gateway.Version{Millis: 1767225600000}},
		},
		{
			"no object member", `{"id":"evt_5-1","type":"commerce.order.created","data":{"object":{}}}`,
			gateway.Event{ID: "evt_5-1", Type: "commerce.order.created", Object: gateway.ObjectOrder, Version: gateway.Version{Millis: 5, Seq: 1}},
		},
		{
			"bad type", `{"id":"evt_5-1","object":"event","type":"a\nb"}`,
			gateway.Event{ID: "evt_5-1", Version: gateway.Version{Millis: 5, Seq: 1}},
		},
		{
			"type given twice", `{"id":"evt_5-1","object":"event","type":"a","type":"b"}`,
			gateway.Event{ID: "evt_5-1", Version: gateway.Version{Millis: 5, Seq: 1}},
		},
		{
			"data given twice", `{"id":"evt_5-1","object":"event","data":{"object":{"object":"commerce_order","id":"o1"}},"data":{"object":{"object":"commerce_order","id":"o2"}}}`,
			gateway.Event{ID: "evt_5-1", Version: gateway.Version{Millis: 5, Seq: 1}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Decode([]byte(tt.raw), time.UnixMilli(99))
			if err != nil {
				t.Fatalf("Decode() = %v, want nil", err)
			}
			tt.want.Received, tt.want.Data = 99, []byte(tt.raw)
			if diff := cmp.Diff(tt.want, e); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeHashesMissingID(t *testing.T) {
	for _, raw := range []string{
		`{"object":"event","type":"x"}`, `{"object":"event","id":""}`, `{"object":"event","id":{}}`, `{"object":"event","id":"a","id":"b"}`,
	} {
		e, err := Decode([]byte(raw), time.Time{})
		if err != nil || !strings.HasPrefix(e.ID, "raw_") {
			t.Errorf("Decode(%s) = id %q, %v, want raw_…, nil", raw, e.ID, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	nested := func(n int) string {
		return `{"object":"event","id":"a","x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	tests := []struct {
		name, raw string
		want      error
	}{
		{"empty", ``, ErrMalformed},
		{"text", `hello`, ErrMalformed},
		{"truncated", `{"object":"event"`, ErrMalformed},
		{"two values", `{"object":"event"}{}`, ErrMalformed},
		{"array", `[]`, ErrMalformed},
		{"scalar", `1`, ErrMalformed},
		{"not UTF-8", "{\"object\":\"event\",\"id\":\"\xff\"}", ErrMalformed},
		{"byte order mark", "\ufeff{\"object\":\"event\"}", ErrMalformed},
		{"raw control character", "{\"object\":\"event\",\"id\":\"a\nb\"}", ErrMalformed},
		{"object given twice", `{"object":"event","object":"ws_control"}`, ErrMalformed},
		{"too deep", nested(maxDepth), ErrMalformed},
		{"a thousand brackets", strings.Repeat("[", 1000_000), ErrMalformed},
		{"too large", `{"object":"event","x":"` + strings.Repeat("x", gateway.MaxEventBytes) + `"}`, ErrTooLarge},
		{"control", `{"object":"ws_control","type":"resync"}`, ErrNotEvent},
		{"error", `{"object":"ws_error"}`, ErrNotEvent},
		{"no object and no data", `{"id":"a"}`, ErrNotEvent},
		{"deep enough", nested(maxDepth - 1), nil},
		{"brackets in a string", `{"object":"event","x":"` + strings.Repeat(`[{\"`, 100) + `"}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Decode([]byte(tt.raw), time.Time{}); !errors.Is(err, tt.want) {
				t.Errorf("Decode() = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestDecodeKeepsBytes(t *testing.T) {
	raw := []byte(" {\"object\" : \"event\",\r\n\t\"id\":\"evt_1-1\", \"amount\": 1.10, \"new\":[{\"é\":\"\\u00e9\"}], \"a\":1, \"a\":2 } ")
	want := bytes.Clone(raw)
	e, err := Decode(raw, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] = 'x'
	}
	if !bytes.Equal(e.Data, want) {
		t.Errorf("Data = %q, want %q", e.Data, want)
	}
}

func FuzzUpstreamFrame(f *testing.F) {
	for _, seed := range []string{
		eventJSON(`{"object":"commerce_order","id":"o1","invoice_id":"i1","customerId":"c1"}`),
		eventJSON(`{"object":"invoice","id":1,"metadata":{"order_id":"o"}}`),
		`{"object":"ws_control","type":"replay.truncated"}`,
		`{"object":"ws_error","error":{"code":"TOKEN_EXPIRED"}}`,
		`{"object":"event","id":"a","id":"b","data":{"object":{"id":"\ud800"}}}`,
		strings.Repeat(`{"a":`, 100), "\x00", `{"object":"event","created":1e999}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		root, err := parse(raw)
		if err != nil {
			return
		}
		_ = classifyFrame(root, true)
		_ = truncates(root)
		e, err := Decode(raw, time.Now())
		if err != nil {
			return
		}
		if !bytes.Equal(e.Data, raw) {
			t.Errorf("Data = %q, want %q", e.Data, raw)
		}
		if !gateway.ValidID(e.ID) {
			t.Errorf("ID = %q, want a valid one", e.ID)
		}
		if e.Type != "" && !gateway.ValidID(e.Type) {
			t.Errorf("Type = %q, want a valid one", e.Type)
		}
		for _, k := range []string{e.Keys.Order, e.Keys.Invoice, e.Keys.Customer, e.Keys.Wallet, e.Keys.Network} {
			if k != "" && !gateway.ValidID(k) {
				t.Errorf("key = %q, want a valid one", k)
			}
		}
	})
}

func TestSecretPrintsNowhere(t *testing.T) {
	holder := struct {
		s secret
		S secret
	}{newSecret("MARKER"), newSecret("MARKER")}
	cfg := Config{APIURL: "http://x", APIKey: "MARKER"}
	source, err := New(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		got := fmt.Sprintf(verb+verb+verb+verb+verb, holder, holder.S, cfg, &cfg, source)
		if strings.Contains(got, "MARKER") || strings.Contains(got, "4d41524b4552") {
			t.Errorf("%s prints the secret", verb)
		}
	}
}

// The ids of a frame are remembered long after it; one that was a part of the
// frame would keep all of it in memory.
func TestDecodedEventKeepsNothingOfItsFrame(t *testing.T) {
	raw := []byte(`{"id":"evt_1767225600000-1","object":"event","type":"commerce.order.updated","data":{"object":{` +
		`"object":"commerce_order","id":77,"invoice_id":"inv_1","customer_id":"cust_1","wallet_address":"w1","wallet_network":"solana"}}}`)
	root, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	e, err := decodeEvent(raw, root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(root.Raw)))
	for name, s := range map[string]string{
		"id": e.ID, "cursor": e.cursor.ID, "type": e.Type, "order": e.Keys.Order, "invoice": e.Keys.Invoice,
		"customer": e.Keys.Customer, "wallet": e.Keys.Wallet, "network": e.Keys.Network,
	} {
		if s == "" {
			t.Errorf("the event has no %s, want one", name)
		}
		if at := uintptr(unsafe.Pointer(unsafe.StringData(s))); at >= begin && at < begin+uintptr(len(root.Raw)) {
			t.Errorf("the %s is a part of the frame, want a copy", name)
		}
	}
}
