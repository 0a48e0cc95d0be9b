package redisbus

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"pepay-gateway/gateway"
)

// One append of a batch, on a real Redis; the time is per batch, and what Redis
// itself took of it is told per event.
func BenchmarkAppend(b *testing.B) {
	bus, err := New(Config{URL: "redis://" + startRedis(b) + "/0", Stream: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = bus.Close() })
	term, n := acquire(b, bus, gateway.AcquireRequest{}), 0
	for _, size := range []int{1, 2, 16, 256} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			before := redisMicros(b, bus)
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
			b.ReportMetric((redisMicros(b, bus)-before)/float64(b.N*size), "redis-µs/event")
		})
	}
}

// redisMicros is the processor time that Redis has taken.
func redisMicros(t testing.TB, b *Bus) (sum float64) {
	t.Helper()
	info, err := b.client.Info(t.Context(), "cpu").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(info, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if name != "used_cpu_user" && name != "used_cpu_sys" {
			continue
		}
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += seconds * 1e6
	}
	return sum
}
