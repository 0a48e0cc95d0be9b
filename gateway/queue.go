package gateway

import (
	"context"
	"sync"
)

const (
	// What may wait between the upstream's socket and the log. When it is full
	// the source stops reading, and TCP tells the upstream to slow down.
	queueRecords = 8192
	queueBytes   = 32 << 20
	// One append: large enough to be cheap under load, small enough that nobody
	// waits long for it.
	batchRecords = 256
	batchBytes   = 1 << 20
)

// A work is one thing on its way into the log.
type work struct {
	arrival Arrival // an event of the stream, or
	looked  *lookup // what a look-up found, or
	health  *Health // a mark: everything before it has been appended
}

func (w *work) size() int { return len(w.arrival.Event.Data) + 256 }

// A queue is the bounded way from the source into the log.
type queue struct {
	mu    sync.Mutex
	items []work
	bytes int
	fed   chan struct{} // cap 1: there is something for the appending goroutine
	drawn chan struct{} // cap 1: there is room
}

func newQueue() *queue {
	return &queue{fed: make(chan struct{}, 1), drawn: make(chan struct{}, 1)}
}

// put appends w, waiting while the queue is full. One goroutine puts bulk; marks
// and look-ups are few and go in at once (force). Whoever puts sees to it that
// somebody takes.
func (q *queue) put(ctx context.Context, w work, force bool) error {
	for {
		q.mu.Lock()
		if force || len(q.items) < queueRecords && (q.bytes < queueBytes || len(q.items) == 0) {
			q.items = append(q.items, w)
			q.bytes += w.size()
			q.mu.Unlock()
			return nil
		}
		q.mu.Unlock()
		signal(q.fed)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-q.drawn:
		}
	}
}

// take appends to batch, which is empty, what arrived meanwhile, at most one batch.
func (q *queue) take(batch []work) []work {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.items) && n < batchRecords && (n == 0 || bytes+q.items[n].size() <= batchBytes) {
		bytes += q.items[n].size()
		n++
	}
	batch = append(batch, q.items[:n]...)
	clear(q.items[:n])
	switch {
	case n < len(q.items):
		q.items = q.items[n:]
	case n > batchRecords/2:
		q.items = nil // let the array go
	default:
		q.items = q.items[:0]
	}
	q.bytes -= bytes
	signal(q.drawn)
	return batch
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
