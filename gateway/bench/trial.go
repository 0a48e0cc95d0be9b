package bench

import (
	"context"
	"time"
)

// A trial is one workload against one target.
type trial struct {
	sizes
	lab       *lab
	kind      string
	transport Transport
	script    *script
	target    target
	fleet     *fleet
	publisher *publisher
	result    Result
}

// open connects the fleet, client i as the receiver of key(i).
func (t *trial) open(ctx context.Context, key func(i int) int) ([]*client, error) {
	cs := t.fleet.add(t.connections, t.transport, key)
	if err := t.fleet.prepare(ctx, cs); err != nil {
		return nil, err
	}
	if err := t.fleet.connect(ctx, cs); err != nil {
		return nil, err
	}
	return cs, sleep(ctx, t.settle)
}

func own(i int) int { return i }

func everybody(int) int { return 0 }

// conclude takes the fleet's account into the result.
func (t *trial) conclude() {
	t.result.Events, _, t.result.Deliveries = t.fleet.counts()
	t.result.tally = t.fleet.reconcile()
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	if h := t.fleet.latency; h.TotalCount() > 0 {
		for name, q := range map[string]float64{"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9} {
			t.result.Values[name] = float64(h.ValueAtQuantile(q)) / 1e6
		}
		t.result.Values["max_ms"] = float64(h.Max()) / 1e6
	}
}

// A spending is what target and store used over a while.
type spending struct {
	server, store time.Duration
	hasStore      bool
	memory        int64 // of the server, at the end
	took          time.Duration
}

// during runs do and returns what was spent meanwhile. A profile is taken if
// one is wanted.
func (t *trial) during(ctx context.Context, do func() error) (s spending, err error) {
	stop := t.profile(ctx)
	defer stop()
	from, err := t.usages(ctx)
	if err != nil {
		return s, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return s, err
	}
	s.took = time.Since(began)
	to, err := t.usages(ctx)
	if err != nil {
		return s, err
	}
	s.server, s.memory = to[0].CPU-from[0].CPU, to[0].Memory
	if s.hasStore = len(to) > 1; s.hasStore {
		s.store = to[1].CPU - from[1].CPU
	}
	return s, nil
}

// usages reads the server, and the store if there is one.
func (t *trial) usages(ctx context.Context) ([]usage, error) {
	var all []usage
	for _, m := range []meter{t.target.server(), t.target.store()} {
		if m == nil {
			continue
		}
		u, err := m.read(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// per notes what was spent for each of n things.
func (t *trial) per(s spending, n int64, thing string) {
	us := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
	t.result.Values["server_us_per_"+thing] = us(s.server)
	t.result.Values["us_per_"+thing] = us(s.server + s.store)
	if s.hasStore {
		t.result.Values["store_us_per_"+thing] = us(s.store)
	}
}
