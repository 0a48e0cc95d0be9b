package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	memoryEvery = 250 * time.Millisecond
	// Parts of the limit, in percent. From memoryShort on no stream is taken in and
	// nothing is replayed from the log, until it is below memoryFine again; from
	// memoryFull on the slowest streams are closed.
	memoryFine  = 70
	memoryShort = 80
	memoryFull  = 90
	// collectEvery is how often garbage is collected while memory is short: without
	// traffic nobody else would find out that it is not any more.
	collectEvery = time.Second
)

// A memory compares what the process cannot do without with what it may have.
type memory struct {
	limit int64 // GOMEMLIMIT; 0 when there is none
	used  atomic.Int64
	short bool // for the watching goroutine only
}

func newMemory() *memory {
	limit := debug.SetMemoryLimit(-1) // only asks
	if limit == math.MaxInt64 {
		limit = 0
	}
	return &memory{limit: limit}
}

// judge takes a measurement. short says whether to take nothing more on, full
// whether to give something up.
func (m *memory) judge(used int64) (short, full bool) {
	m.used.Store(used)
	part := used * 100 / m.limit
	m.short = part >= memoryShort || m.short && part >= memoryFine
	return m.short, part >= memoryFull
}

// The runtime's names of the parts of its memory. What is garbage, free or given
// back is no burden: the runtime uses the limit to the full before it collects.
const (
	liveHeap   = "/gc/heap/live:bytes"
	totalBytes = "/memory/classes/total:bytes"
)

var noBurden = [...]string{
	"/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes",
	"/memory/classes/heap/free:bytes", "/memory/classes/heap/released:bytes",
}

// usedMemory is what was live when garbage was last collected, stacks, and what
// the runtime needs for itself.
func usedMemory() int64 {
	samples := []metrics.Sample{{Name: liveHeap}, {Name: totalBytes}}
	for _, name := range noBurden {
		samples = append(samples, metrics.Sample{Name: name})
	}
	metrics.Read(samples)
	used := samples[0].Value.Uint64() + samples[1].Value.Uint64()
	for _, s := range samples[2:] {
		used -= s.Value.Uint64()
	}
	return int64(used)
}

// watchMemory sheds load while memory is short, where a limit is set.
func (n *node) watchMemory(ctx context.Context) error {
	if n.memory.limit == 0 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	was, collected := false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if was && time.Since(collected) >= collectEvery {
			runtime.GC()
			collected = time.Now()
		}
		short, full := n.memory.judge(usedMemory())
		if short != was {
			n.log.Warn("memory", "short", short, "used_bytes", n.memory.used.Load(), "limit_bytes", n.memory.limit)
			was = short
			n.node.SetShort(short)
			n.public.SetShort(short)
		}
		if full {
			n.public.CloseSlowest()
		}
	}
}
