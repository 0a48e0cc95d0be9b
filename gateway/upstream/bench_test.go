package upstream

import (
	"strings"
	"testing"
	"time"
)

func BenchmarkDecode(b *testing.B) {
	raw := []byte(eventJSON(`{"object":"commerce_order","id":"o1","customerId":"c1","invoice_id":"i1","note":"` + strings.Repeat("x", 430) + `"}`))
	now := time.Now()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if ev, err := Decode(raw, now); err != nil || ev.Keys.Customer != "c1" {
			b.Fatalf("Decode = %+v, %v", ev.Keys, err)
		}
	}
}
