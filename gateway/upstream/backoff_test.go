package upstream

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// tries counts the attempts that all fail with f within d of fake time, and
// returns the shortest wait between two.
func tries(t *testing.T, f *failure, d time.Duration) (n int, instant int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		b := newBackoff()
		for {
			n++
			wait := b.next(f)
			if wait == 0 {
				instant++
			}
			if sleep(ctx, wait) != nil {
				return
			}
		}
	})
	return n, instant
}

func TestBackoffDoesNotHammer(t *testing.T) {
	for range 50 {
		if n, instant := tries(t, &failure{class: auth}, time.Minute); n > 8 || instant != 1 {
			t.Fatalf("401: %d tries, %d at once in a minute, want at most 8, 1", n, instant)
		}
		if n, _ := tries(t, &failure{class: forbidden}, 10*time.Minute); n > 4 {
			t.Fatalf("403: %d tries in ten minutes, want at most 4", n)
		}
		if n, _ := tries(t, &failure{class: rejected}, 10*time.Minute); n > 4 {
			t.Fatalf("400: %d tries in ten minutes, want at most 4", n)
		}
		if n, _ := tries(t, &failure{class: down}, time.Hour); n < 60 || n > 250 {
			t.Fatalf("down: %d tries in an hour, want 60 to 250", n)
		}
	}
}

func TestBackoffWaits(t *testing.T) {
	worst := func(d time.Duration) time.Duration { return d }
	least := func(time.Duration) time.Duration { return 0 }
	tests := []struct {
		name     string
		f        failure
		before   int // failures of the same kind
		min, max time.Duration
	}{
		{"clean close", failure{class: closed}, 5, 0, time.Second},
		{"first failure", failure{class: down}, 0, 0, time.Second},
		{"third failure", failure{class: down}, 2, 0, 4 * time.Second},
		{"hundredth failure", failure{class: down}, 99, 0, time.Minute},
		{"first 401", failure{class: auth}, 0, 0, 0},
		{"second 401", failure{class: auth}, 1, 500 * time.Millisecond, time.Second},
		{"429 with Retry-After", failure{class: limited, after: 7 * time.Second, hasAfter: true}, 3, 7 * time.Second, 9 * time.Second},
		{"429 without", failure{class: limited}, 1, 0, 2 * time.Second},
		{"403", failure{class: forbidden}, 0, 270 * time.Second, 330 * time.Second},
		{"400", failure{class: rejected}, 0, 270 * time.Second, 330 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for want, jitter := range map[time.Duration]func(time.Duration) time.Duration{tt.min: least, tt.max: worst} {
				b := newBackoff()
				b.jitter = jitter
				for range tt.before {
					b.next(&tt.f)
				}
				if tt.min != tt.max {
					if got := b.next(&tt.f); got != want {
						t.Errorf("wait = %v, want %v", got, want)
					}
				}
			}
		})
	}
}

func TestBackoffResetForgets(t *testing.T) {
	b := newBackoff()
	b.jitter = func(d time.Duration) time.Duration { return d }
	for range 10 {
		b.next(&failure{class: down})
	}
	b.next(&failure{class: auth})
	b.reset()
	if got := b.next(&failure{class: down}); got != time.Second {
		t.Errorf("wait = %v, want %v", got, time.Second)
	}
	if got := b.next(&failure{class: auth}); got != 0 {
		t.Errorf("wait after the first 401 = %v, want 0", got)
	}
}

func TestSleepEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		go func() {
			time.Sleep(time.Second) // fake time
			cancel(why)
		}()
		if err := sleep(ctx, time.Hour); !errors.Is(err, why) {
			t.Errorf("sleep() = %v, want %v", err, why)
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("slept %v, want %v", got, time.Second)
		}
	})
}
