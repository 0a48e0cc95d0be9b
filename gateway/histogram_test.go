package gateway

import (
	"testing"
	"time"
)

func TestQuantileBoundsWhatItSays(t *testing.T) {
	const fast, slow = 2 * time.Millisecond, 20 * time.Second
	for _, tt := range []struct {
		name       string
		fast, slow int
		p50, p99   time.Duration
	}{
		{"nothing", 0, 0, 0, 0},
		{"one", 1, 0, fast, fast},
		{"one slow of two", 1, 1, fast, 30 * time.Second},
		{"one slow of 99", 98, 1, fast, 30 * time.Second},
		{"one slow of 100", 99, 1, fast, fast},
		{"two slow of 100", 98, 2, fast, 30 * time.Second},
		{"most slow", 1, 2, 30 * time.Second, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h Histogram
			for range tt.fast {
				h.Observe(fast)
			}
			for range tt.slow {
				h.Observe(slow)
			}
			counts, _ := h.Counts()
			if got := counts.Quantile(0.5); got != tt.p50 {
				t.Errorf("median = %v, want %v", got, tt.p50)
			}
			if got := counts.Quantile(0.99); got != tt.p99 {
				t.Errorf("99th percentile = %v, want %v", got, tt.p99)
			}
		})
	}
}

func TestDistributionSinceIsWhatCameAfter(t *testing.T) {
	var h Histogram
	h.Observe(20 * time.Second)
	before, _ := h.Counts()
	h.Observe(2 * time.Millisecond)
	after, _ := h.Counts()
	if got, want := after.Since(before).Quantile(1), 2*time.Millisecond; got != want {
		t.Errorf("longest since then = %v, want %v", got, want)
	}
}
