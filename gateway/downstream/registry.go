package downstream

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pepay-gateway/gateway"
)

const (
	drainTick = 100 * time.Millisecond
	// drainWait is how long ended streams have to say goodbye before Drain
	// returns, and close closes their connections.
	drainWait = 3 * time.Second
)

// A registry holds this node's live streams, and decides who may have one. Safe
// for concurrent use.
type registry struct {
	limits Limits
	short  atomic.Bool    // of memory
	wg     sync.WaitGroup // streams, and goroutines that tell clients why they get none

	mu         sync.Mutex // guards the fields below
	draining   bool
	closed     bool
	sessions   map[*session]struct{}
	perIP      map[netip.Addr]int
	tokens     map[string][]*session // oldest first; without those that were replaced
	customers  map[string][]*session
	transports [2]int
	empty      chan struct{} // closed when the last session is gone; nil while nobody waits
}

func newRegistry(limits Limits) *registry {
	return &registry{
		limits: limits, sessions: make(map[*session]struct{}), perIP: make(map[netip.Addr]int),
		tokens: make(map[string][]*session), customers: make(map[string][]*session),
	}
}

// refuses returns why a stream from ip would be refused now, nil if it would not.
func (r *registry) refuses(ip netip.Addr) *problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refusesLocked(ip)
}

// refusesLocked refuses the newcomer: what is open serves somebody.
func (r *registry) refusesLocked(ip netip.Addr) *problem {
	switch {
	case r.draining:
		return errDraining
	case r.short.Load(), r.limits.Connections > 0 && len(r.sessions) >= r.limits.Connections:
		return errOverloaded
	case r.limits.ConnectionsPerIP > 0 && r.perIP[limitKey(ip)] >= r.limits.ConnectionsPerIP:
		return errRateLimit
	}
	return nil
}

// add takes a session in and begins it, or says why not. It ends with remove.
// Where its token or customer has too many streams the oldest are ended: a
// half-open phone must not lock its owner out.
func (r *registry) add(s *session) *problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.refusesLocked(s.ip); p != nil {
		return p
	}
	r.sessions[s] = struct{}{}
	r.perIP[limitKey(s.ip)]++
	r.transports[s.transport]++
	r.joinLocked(r.tokens, s.id, s, s.perToken(r.limits.ConnectionsPerToken))
	if c := s.scope.Customer; c != "" {
		r.joinLocked(r.customers, c, s, r.limits.ConnectionsPerCustomer)
	}
	r.wg.Add(1) // until remove
	go s.run()
	return nil
}

func (r *registry) joinLocked(groups map[string][]*session, key string, s *session, limit int) {
	group := append(groups[key], s)
	for limit > 0 && len(group) > limit {
		group[0].end(ended(errReplaced))
		group = slices.Delete(group, 0, 1)
	}
	groups[key] = group
}

func (r *registry) remove(s *session) {
	defer r.wg.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s)
	r.transports[s.transport]--
	ip := limitKey(s.ip)
	if r.perIP[ip]--; r.perIP[ip] == 0 {
		delete(r.perIP, ip)
	}
	leave(r.tokens, s.id, s)
	leave(r.customers, s.scope.Customer, s)
	if r.empty != nil && len(r.sessions) == 0 {
		close(r.empty)
		r.empty = nil
	}
}

func leave(groups map[string][]*session, key string, s *session) {
	group := groups[key]
	if i := slices.Index(group, s); i >= 0 {
		group = slices.Delete(group, i, i+1)
	}
	if groups[key] = group; len(group) == 0 {
		delete(groups, key)
	}
}

// spawn runs f, which ends soon, unless the registry is closed.
func (r *registry) spawn(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.wg.Go(f)
	return true
}

// wake makes every session look at what has happened to all of them.
func (r *registry) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.sessions {
		s.wake()
	}
}

// open returns how many streams there are.
func (r *registry) open() (ws, sse int, draining bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.transports[gateway.WS], r.transports[gateway.SSE], r.draining
}

// drain refuses new streams from now on, and returns those there are, shuffled.
func (r *registry) drain() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
	all := make([]*session, 0, len(r.sessions))
	for s := range r.sessions {
		all = append(all, s)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// gone returns a channel that is closed once there is no session.
func (r *registry) gone() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	return r.empty
}

// close ends what is left without saying goodbye, and waits for its goroutines.
func (r *registry) close() {
	for _, s := range r.drain() {
		s.end(errClientGone)
		s.sink.abort()
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wg.Wait()
}

// Drain refuses new streams from now on and ends those there are, in shuffled
// batches over a duration, each client told when to come back. It returns when
// all are gone, after at most a few seconds more, or when ctx ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	all := s.streams.drain()
	batch := len(all)
	if ticks := int(over / drainTick); ticks > 1 {
		batch = (len(all) + ticks - 1) / ticks
	}
	for len(all) > 0 {
		n := min(batch, len(all))
		for _, session := range all[:n] {
			session.end(away(errDraining, retryDrain+over/4))
		}
		if all = all[n:]; len(all) == 0 {
			break
		}
		if !pause(ctx, drainTick/2+rand.N(drainTick)) {
			return
		}
	}
	late := time.NewTimer(drainWait)
	defer late.Stop()
	select {
	case <-s.streams.gone():
	case <-late.C:
	case <-ctx.Done():
	}
}

// pause waits for d; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
