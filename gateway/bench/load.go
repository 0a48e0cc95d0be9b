package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

func (t *trial) idle(ctx context.Context) error {
	before, err := t.usages(ctx)
	if err != nil {
		return err
	}
	if _, err := t.open(ctx, own); err != nil {
		return err
	}
	s, err := t.during(ctx, func() error { return sleep(ctx, t.d) })
	if err != nil {
		return err
	}
	t.result.Values["server_mib"] = float64(s.memory) / (1 << 20)
	t.result.Values["kib_per_connection"] = float64(s.memory-before[0].Memory) / 1024 / float64(t.connections)
	t.result.Values["cpu_percent"] = 100 * s.server.Seconds() / s.took.Seconds()
	if err := t.publisher.burst(min(t.connections, 200)); err != nil { // they are there, are they?
		return err
	}
	return t.fleet.settle(ctx)
}

func (t *trial) selective(ctx context.Context) error {
	if _, err := t.open(ctx, own); err != nil {
		return err
	}
	// Orders are known before the measurement: it is about their events.
	if err := t.publisher.paced(ctx, t.rate, int64(t.connections)); err != nil {
		return err
	}
	return t.steady(ctx)
}

func (t *trial) broadcast(ctx context.Context) error {
	if _, err := t.open(ctx, everybody); err != nil {
		return err
	}
	if err := t.publisher.steadily(ctx, t.rate, t.d/10); err != nil {
		return err
	}
	return t.steady(ctx)
}

// steady measures events at the trial's rate.
func (t *trial) steady(ctx context.Context) error {
	if err := t.fleet.settle(ctx); err != nil {
		return err
	}
	t.fleet.measure()
	events, _, deliveries := t.fleet.counts()
	s, err := t.during(ctx, func() error {
		if err := t.publisher.steadily(ctx, t.rate, t.d); err != nil {
			return err
		}
		return t.fleet.settle(ctx)
	})
	if err != nil {
		return err
	}
	n, _, delivered := t.fleet.counts()
	t.per(s, delivered-deliveries, "delivery")
	t.per(s, n-events, "event")
	return nil
}

// maxWindow is how many events are on their way to each client at most. It is
// well within any queue, so that nobody counts as slow.
const maxWindow = 32

func (t *trial) max(ctx context.Context) error {
	if _, err := t.open(ctx, everybody); err != nil {
		return err
	}
	if err := t.publisher.ahead(ctx, maxWindow, t.settle); err != nil {
		return err
	}
	_, _, before := t.fleet.counts()
	s, err := t.during(ctx, func() error { return t.publisher.ahead(ctx, maxWindow, t.d) })
	if err != nil {
		return err
	}
	_, _, after := t.fleet.counts()
	t.result.Values["deliveries_per_s"] = float64(after-before) / s.took.Seconds()
	t.per(s, after-before, "delivery")
	return t.fleet.settle(ctx)
}

// storm measures the way back alone: what happened meanwhile has been logged,
// and those who were cut are gone. The floor cannot resume: it is only
// reconnected to.
func (t *trial) storm(ctx context.Context) error {
	cs, err := t.open(ctx, own)
	if err != nil {
		return err
	}
	t.fleet.cut(cs)
	if t.kind != targetBare {
		// Two events for each, and one client that stays and gets one too: the
		// server has it all once that one has it.
		watcher := t.fleet.add(1, t.transport, func(int) int { return 0 })
		if err := t.fleet.prepare(ctx, watcher); err != nil {
			return err
		}
		if err := t.fleet.connect(ctx, watcher); err != nil {
			return err
		}
		if err := t.publisher.paced(ctx, t.rate, int64(2*t.connections+1)); err != nil {
			return err
		}
		if err := t.fleet.await(ctx, func() (bool, int64) { return watcher[0].got >= 3, watcher[0].got }, "events have come"); err != nil {
			return err
		}
	}
	if err := sleep(ctx, t.settle); err != nil {
		return err
	}
	s, err := t.during(ctx, func() error {
		if err := t.fleet.connect(ctx, cs); err != nil {
			return err
		}
		if t.kind == targetBare {
			return nil
		}
		return t.fleet.settle(ctx)
	})
	if err != nil {
		return err
	}
	t.per(s, int64(t.connections), "reconnect")
	t.result.Values["seconds"] = s.took.Seconds()
	return nil
}

// slow compares pairs of runs: in the second, one connection in twenty stops
// reading. New ones take their place for the next pair.
func (t *trial) slow(ctx context.Context) error {
	lazy := max(t.connections/20, 1)
	t.connections -= lazy
	if _, err := t.open(ctx, everybody); err != nil {
		return err
	}
	var ratios, sizes []float64
	for pair := range t.pairs {
		cs := t.fleet.add(lazy, t.transport, everybody)
		for _, c := range cs {
			c.small = true
		}
		if err := t.fleet.prepare(ctx, cs); err != nil {
			return err
		}
		if err := t.fleet.connect(ctx, cs); err != nil {
			return err
		}
		alone, before, err := t.p99(ctx)
		if err != nil {
			return err
		}
		t.fleet.stopReading(cs)
		beside, after, err := t.p99(ctx)
		if err != nil {
			return err
		}
		kernel := t.fleet.sendMemory(ctx, cs)
		t.fleet.cut(cs)
		ratios = append(ratios, beside/alone)
		sizes = append(sizes, (float64(after-before)/float64(lazy)+kernel)/1024)
		t.lab.say("pair %d: p99 %.2f ms alone, %.2f ms beside %d slow clients", pair+1, alone, beside, lazy)
	}
	t.result.Values["p99_ratio"] = median(ratios)
	t.result.Values["kib_per_slow_client"] = median(sizes)
	return nil
}

// p99 publishes for a while and returns the 99th percentile in milliseconds, and
// the server's memory.
func (t *trial) p99(ctx context.Context) (float64, int64, error) {
	t.fleet.measure()
	s, err := t.during(ctx, func() error { return t.publisher.steadily(ctx, t.rate, t.d) })
	if err != nil {
		return 0, 0, err
	}
	if err := t.fleet.settle(ctx); err != nil {
		return 0, 0, err
	}
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	return float64(t.fleet.latency.ValueAtQuantile(99)) / 1e6, s.memory, nil
}

// churnShare is what part of the connections is replaced each second.
const churnShare = 0.02

func (t *trial) churn(ctx context.Context) error {
	cs, err := t.open(ctx, own)
	if err != nil {
		return err
	}
	t.fleet.measure()
	return t.steadyChurn(ctx, cs)
}

// steadyChurn publishes while clients leave and come back with their cursors.
func (t *trial) steadyChurn(ctx context.Context, cs []*client) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	every := time.Duration(float64(time.Second) / (churnShare * float64(len(cs))))
	published := make(chan struct{})
	reconnects := int64(0)
	wg.Go(func() {
		tick := time.NewTicker(max(every, time.Millisecond))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-published:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			c := cs[i%len(cs)]
			t.fleet.cut([]*client{c})
			if err := t.fleet.dial(ctx, c); err != nil {
				cancel(fmt.Errorf("client %d: %w", c.index, err))
				return
			}
			reconnects++
		}
	})
	s, err := t.during(ctx, func() error {
		err := t.publisher.steadily(ctx, t.rate, t.d)
		close(published)
		wg.Wait()
		if err != nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return t.fleet.settle(ctx)
	})
	if err != nil {
		return err
	}
	t.result.Values["reconnects"] = float64(reconnects)
	t.per(s, int64(t.rate*t.d.Seconds()), "event")
	return nil
}

// soak looks at memory while churn goes on: what it grew by in the second half.
func (t *trial) soak(ctx context.Context) error {
	cs, err := t.open(ctx, own)
	if err != nil {
		return err
	}
	t.fleet.measure()
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var samples []int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for sleep(sampling, t.d/20) == nil {
			u, err := t.target.server().read(sampling)
			if err != nil {
				continue // the end of the trial will tell
			}
			samples = append(samples, u.Memory)
			_, expected, delivered := t.fleet.counts()
			t.lab.say("%d of %d deliveries, %.1f MiB", delivered, expected, float64(u.Memory)/(1<<20))
		}
	})
	err = t.steadyChurn(ctx, cs)
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	if half := samples[len(samples)/2:]; len(half) >= 4 {
		quarter := len(half) / 2
		growth := float64(slices.Min(half[quarter:]) - slices.Min(half[:quarter]))
		t.result.Values["growth_kib_per_minute"] = growth / 1024 / (t.d.Minutes() / 4)
	}
	return nil
}
