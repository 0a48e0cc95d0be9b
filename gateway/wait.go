package gateway

import (
	"context"
	"math/rand/v2"
	"time"
)

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// jitter returns a random duration of d/2 to d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
