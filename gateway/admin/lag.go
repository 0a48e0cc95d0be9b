package admin

import (
	"time"

	"pepay-gateway/gateway"
)

// lagBeats is how many beats a lag looks back: a minute. Over a node's whole
// life, the events of one backfill, old by nature, would hide how things are.
const lagBeats = int(time.Minute / beatEvery)

// A Lag is a distribution of delays in milliseconds, each the upper bound of
// its bucket.
type Lag struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// A recentLag remembers a node's histograms of the last minute. The zero value
// is ready. One goroutine uses it.
type recentLag struct {
	past [lagBeats]map[string]gateway.Distribution // a ring; nil before the node had lived so long
	next int
}

// beat returns the lag by hop since the oldest beat it remembers, which this
// beat takes the place of.
func (l *recentLag) beat(hops map[string]*gateway.Histogram) map[string]Lag {
	now, lags := make(map[string]gateway.Distribution, len(hops)), make(map[string]Lag, len(hops))
	for hop, h := range hops {
		now[hop], _ = h.Counts()
		recent := now[hop].Since(l.past[l.next][hop])
		lags[hop] = Lag{P50: millis(recent.Quantile(0.5)), P99: millis(recent.Quantile(0.99))}
	}
	l.past[l.next] = now
	l.next = (l.next + 1) % lagBeats
	return lags
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
