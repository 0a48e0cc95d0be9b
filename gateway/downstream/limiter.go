package downstream

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// limiterEntries bounds what a limiter remembers, about 10 MB. Who is
	// forgotten starts with a full bucket, so that an attacker needs this many
	// addresses to gain anything.
	limiterEntries = 50_000
	// burstSeconds of the rate may come at once: a page with several streams, or
	// an office after a network change.
	burstSeconds = 2
	// failureCost is what a refused token or key costs, in handshakes.
	failureCost = 5
)

// A limiter bounds handshakes per client address. Safe for concurrent use.
type limiter struct {
	perSecond int // 0 = no limit

	mu      sync.Mutex // guards the fields below
	buckets map[netip.Addr]*list.Element
	recent  *list.List // of *bucket, most recently used first
}

type bucket struct {
	key  netip.Addr
	rate *rate.Limiter
}

func newLimiter(perSecond int) *limiter {
	return &limiter{perSecond: perSecond, buckets: make(map[netip.Addr]*list.Element), recent: list.New()}
}

// allow takes one handshake of addr's and says whether there was one left.
func (l *limiter) allow(addr netip.Addr, now time.Time) bool {
	return l.perSecond <= 0 || l.bucket(addr).AllowN(now, 1)
}

// exhausted says whether addr has no handshake left. It takes none.
func (l *limiter) exhausted(addr netip.Addr, now time.Time) bool {
	return l.perSecond > 0 && l.bucket(addr).TokensAt(now) < 1
}

// punish takes the rest of failureCost from addr.
func (l *limiter) punish(addr netip.Addr, now time.Time) {
	if l.perSecond > 0 {
		b := l.bucket(addr)
		b.ReserveN(now, min(failureCost-1, b.Burst()))
	}
}

func (l *limiter) bucket(addr netip.Addr) *rate.Limiter {
	key := limitKey(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.buckets[key]; ok {
		l.recent.MoveToFront(e)
		return e.Value.(*bucket).rate
	}
	if l.recent.Len() >= limiterEntries {
		oldest := l.recent.Back()
		delete(l.buckets, l.recent.Remove(oldest).(*bucket).key)
	}
	b := &bucket{key, rate.NewLimiter(rate.Limit(l.perSecond), burstSeconds*l.perSecond)}
	l.buckets[key] = l.recent.PushFront(b)
	return b.rate
}
