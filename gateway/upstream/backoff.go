package upstream

import (
	"context"
	"math/rand/v2"
	"time"
)

// A backoff says how long to wait after a failure. It is a value: a copy is an
// independent one.
type backoff struct {
	base   time.Duration                     // the first bound of a jittered wait; each next one is double
	limit  time.Duration                     // the last
	long   time.Duration                     // where only a person can help
	extra  time.Duration                     // on top of Retry-After, so that nodes do not return together
	jitter func(time.Duration) time.Duration // uniform in [0, d]

	step     int
	reminted bool
}

func newBackoff() backoff {
	return backoff{
		base: time.Second, limit: time.Minute, long: 5 * time.Minute, extra: 2 * time.Second,
		jitter: func(d time.Duration) time.Duration {
			if d <= 0 {
				return 0
			}
			return rand.N(d + 1)
		},
	}
}

// reset forgives all failures, after a connection that was healthy.
func (b *backoff) reset() { b.step, b.reminted = 0, false }

// next returns the wait after f.
func (b *backoff) next(f *failure) time.Duration {
	switch f.class {
	case closed:
		return b.jitter(b.base)
	case forbidden, rejected:
		return b.long - b.long/10 + b.jitter(b.long/5)
	case limited:
		if f.hasAfter {
			return f.after + b.jitter(b.extra)
		}
	case auth:
		if !b.reminted {
			b.reminted = true // the token may just have run out between mint and dial
			return 0
		}
		// Not below half of the bound: full jitter alone allows ten tries in the
		// first minute with a key that is simply wrong.
		d := b.grow()
		return d - d/2 + b.jitter(d/2)
	}
	return b.jitter(b.grow())
}

func (b *backoff) grow() time.Duration {
	d := min(b.base<<min(b.step, 20), b.limit)
	b.step++
	return d
}

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
