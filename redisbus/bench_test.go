package redisbus

import (
	"fmt"
	"strings"
	"testing"

	"pepay-gateway/gateway"
)

// One append of a batch, on a real Redis; the time is per batch.
func BenchmarkAppend(b *testing.B) {
	bus, err := New(Config{URL: "redis://" + startRedis(b) + "/0", Stream: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = bus.Close() })
	term, n := acquire(b, bus, gateway.AcquireRequest{}), 0
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				batch := make([]*gateway.Event, size)
				for i := range batch {
					n++
					order := fmt.Sprint("o", n%5000)
					batch[i] = event(n, gateway.Keys{Order: order, Customer: "c" + order})
					batch[i].Data = []byte(`{"note":"` + strings.Repeat("x", 580) + `"}`)
				}
				mustAppend(b, bus, term, 0, batch...)
			}
		})
	}
}
