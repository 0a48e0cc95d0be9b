package gateway

import "sync"

// QueueFrames is the capacity of a subscriber's queue. A full one detaches it.
const QueueFrames = 64

// blocks hold what waits behind the first frame of a queue. Hardly any queue has
// one: nearly always nothing waits, or one frame.
var blocks = sync.Pool{New: func() any { return new([QueueFrames]*Frame) }}

// A frameQueue holds the frames that wait for one subscriber, at most
// QueueFrames.
type frameQueue struct {
	n     int
	first *Frame
	rest  *[QueueFrames]*Frame // a ring, from at on; nil until it is needed
	at    int
}

// put adds f; there must be room.
func (q *frameQueue) put(f *Frame) {
	q.n++
	if q.n == 1 {
		q.first = f
		return
	}
	if q.rest == nil {
		q.rest = blocks.Get().(*[QueueFrames]*Frame)
	}
	q.rest[(q.at+q.n-2)%QueueFrames] = f
}

// take returns the oldest frame, nil when there is none.
func (q *frameQueue) take() *Frame {
	f := q.first
	if f == nil {
		return nil
	}
	q.first = nil
	if q.n--; q.n > 0 {
		q.first, q.rest[q.at] = q.rest[q.at], nil
		q.at = (q.at + 1) % QueueFrames
	} else if q.rest != nil {
		blocks.Put(q.rest)
		q.rest, q.at = nil, 0
	}
	return f
}
