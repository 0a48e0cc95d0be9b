package gateway

import (
	"strings"
	"testing"
)

func TestParseEventID(t *testing.T) {
	tests := []struct {
		id   string
		want Version
		ok   bool
	}{
		{"evt_1700000000000-3", Version{1700000000000, 3}, true},
		{"evt_9-0", Version{9, 0}, true},
		{"evt_0-1", Version{}, false},
		{"evt_9007199254740992-0", Version{}, false}, // 2^53: scripts could not compare it
		{"evt_-1-1", Version{}, false},
		{"evt_1", Version{}, false},
		{"evt_1-x", Version{}, false},
		{"order_1-1", Version{}, false},
		{"", Version{}, false},
	}
	for _, tt := range tests {
		if got, ok := ParseEventID(tt.id); got != tt.want || ok != tt.ok {
			t.Errorf("ParseEventID(%q) = %v, %v, want %v, %v", tt.id, got, ok, tt.want, tt.ok)
		}
	}
	a, b := EventVersion("evt_9-0", 0), EventVersion("evt_10-0", 0)
	if !a.Less(b) || b.Less(a) {
		t.Errorf("evt_9-0 is not older than evt_10-0: compared as text?")
	}
	if got, want := EventVersion("other", 5), (Version{Millis: 5000}); got != want {
		t.Errorf("EventVersion by created = %v, want %v", got, want)
	}
	if got := EventVersion("other", -1); got != (Version{}) {
		t.Errorf("EventVersion of nothing = %v, want zero", got)
	}
}

func TestEventIDIsAlwaysUsable(t *testing.T) {
	for _, id := range []string{"", "evt_1-1", "#mark", "a\nb", strings.Repeat("x", MaxIDBytes), strings.Repeat("x", MaxIDBytes+1), "\xff"} {
		got := EventID(id, []byte("{}"))
		if !ValidID(got) || got[0] == '#' {
			t.Errorf("EventID(%q) = %q, want a valid id", id, got)
		}
		if got != EventID(id, []byte("{}")) {
			t.Errorf("EventID(%q) differs from call to call", id)
		}
	}
	if EventID("", []byte("a")) == EventID("", []byte("b")) {
		t.Errorf("two events without id share one")
	}
}

func TestParseObject(t *testing.T) {
	tests := []struct {
		object, typ string
		want        Object
	}{
		{"commerce_order", "", ObjectOrder},
		{"invoice", "", ObjectInvoice},
		{"invoice_payment", "", ObjectPayment},
		{"refund", "invoice.paid", ObjectOther},
		{"", "invoice.paid", ObjectInvoice},
		{"", "invoice_payment.updated", ObjectPayment},
		{"", "commerce.order.updated", ObjectOrder},
		{"", "", ObjectOther},
	}
	for _, tt := range tests {
		if got := ParseObject(tt.object, tt.typ); got != tt.want {
			t.Errorf("ParseObject(%q, %q) = %v, want %v", tt.object, tt.typ, got, tt.want)
		}
	}
}
