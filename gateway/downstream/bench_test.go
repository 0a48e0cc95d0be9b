package downstream

import (
	"bytes"
	"testing"

	"pepay-gateway/gateway"
)

// Encoding happens once per event and transport, however many receive it.
func BenchmarkEncodeFrame(b *testing.B) {
	ev := &gateway.Event{ID: "evt_1767225600123-7", Data: bytes.Repeat([]byte("x"), 600)}
	for name, run := range map[string]struct {
		transport gateway.Transport
		encode    func(*gateway.Frame) any
	}{"ws": {gateway.WS, encodeWSEvent}, "sse": {gateway.SSE, encodeSSEEvent}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(ev.Data)))
			b.ReportAllocs()
			for b.Loop() {
				f := &gateway.Frame{Event: ev, Cursor: "cur_AAAAAAAAAAAAAAAAAAAAAA"}
				if f.Encoded(run.transport, run.encode) == nil {
					b.Fatal("not encoded")
				}
			}
		})
	}
}
