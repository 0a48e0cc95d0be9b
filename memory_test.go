package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestMemoryIsShortUntilThereIsPlentyAgain(t *testing.T) {
	m := &memory{limit: 1000}
	for i, step := range []struct {
		used        int64
		short, full bool
	}{
		{100, false, false},
		{799, false, false},
		{800, true, false},
		{750, true, false},
		{900, true, true},
		{2000, true, true},
		{899, true, false},
		{700, true, false},
		{699, false, false},
		{799, false, false},
	} {
		if short, full := m.judge(step.used); short != step.short || full != step.full {
			t.Errorf("step %d: judge(%d) = %v, %v, want %v, %v", i, step.used, short, full, step.short, step.full)
		}
	}
}

func TestMemoryLimitIsTheRuntimes(t *testing.T) {
	before := debug.SetMemoryLimit(123 << 20)
	defer debug.SetMemoryLimit(before)
	if got, want := newMemory().limit, int64(123<<20); got != want {
		t.Errorf("limit = %d, want %d", got, want)
	}
	debug.SetMemoryLimit(math.MaxInt64)
	if got := newMemory().limit; got != 0 {
		t.Errorf("limit = %d, want none", got)
	}
}

// What counts is what is live: garbage is no reason to send anybody away.
func TestUsedMemoryIsWhatIsLive(t *testing.T) {
	const big = 64 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // only when told to
	debug.FreeOSMemory()
	before := usedMemory()
	held := make([]byte, big)
	debug.FreeOSMemory()
	with := usedMemory()
	held[0] = 1 // lives until here
	held = nil
	debug.FreeOSMemory()
	after := usedMemory()
	for range 4 {
		garbage = make([]byte, big/4)
	}
	garbage = nil
	littered := usedMemory()
	if grown := with - before; grown < big*9/10 || grown > big*3/2 {
		t.Errorf("%d MiB more are used with 64 MiB live, want about 64", grown>>20)
	}
	for what, used := range map[string]int64{"after letting go": after, "with garbage": littered} {
		if grown := used - before; grown > big/8 {
			t.Errorf("%s %d MiB more are used, want none", what, grown>>20)
		}
	}
}

// garbage escapes, so that it is made on the heap.
var garbage []byte
