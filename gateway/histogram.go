package gateway

import (
	"math"
	"sync/atomic"
	"time"
)

// LagBounds are the upper bounds of a Histogram's buckets.
var LagBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// A Histogram counts durations in LagBounds. The zero value is ready. Safe for
// concurrent use; a reader may see an observation half counted.
type Histogram struct {
	counts [len(LagBounds) + 1]atomic.Uint64
	sum    atomic.Int64
}

// Observe counts d. Clocks of different machines differ: a negative d counts as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(LagBounds) && d > LagBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Counts returns the observations so far and their sum.
func (h *Histogram) Counts() (counts Distribution, sum time.Duration) {
	for i := range counts {
		counts[i] = h.counts[i].Load()
	}
	return counts, time.Duration(h.sum.Load())
}

// A Distribution is the number of observations per bucket; the last is beyond
// all bounds.
type Distribution [len(LagBounds) + 1]uint64

// Since returns what was observed after earlier, of the same histogram.
func (d Distribution) Since(earlier Distribution) Distribution {
	for i := range d {
		d[i] -= earlier[i]
	}
	return d
}

// Quantile returns the upper bound of the bucket that holds the q-quantile: at
// most 1-q of all observations took longer. It is 0 when nothing was observed.
func (d Distribution) Quantile(q float64) time.Duration {
	var total uint64
	for _, c := range d {
		total += c
	}
	if total == 0 {
		return 0
	}
	rank, seen := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i, c := range d[:len(LagBounds)] {
		if seen += c; seen >= rank {
			return LagBounds[i]
		}
	}
	return LagBounds[len(LagBounds)-1]
}
