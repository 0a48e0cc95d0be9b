package gateway

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Queues share their blocks, one after the other: none may ever give out a frame
// that another was given, or hold what it has given out.
func TestFrameQueuesNeverMix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		queues := make([]frameQueue, 3)
		want := make([][]*Frame, len(queues))
		steps := rapid.SliceOfN(rapid.IntRange(-QueueFrames, QueueFrames), 1, 60).Draw(rt, "steps")
		for i, n := range steps {
			at := rapid.IntRange(0, len(queues)-1).Draw(rt, "queue")
			q := &queues[at]
			for ; n > 0 && q.n < QueueFrames; n-- {
				f := &Frame{Pos: Position{Epoch(at + 1), uint64(i)}}
				q.put(f)
				want[at] = append(want[at], f)
			}
			for ; n < 0; n++ {
				got := q.take()
				if len(want[at]) == 0 {
					if got != nil {
						rt.Fatalf("take() of an empty queue = %v, want nil", got.Pos)
					}
					break
				}
				if got != want[at][0] {
					rt.Fatalf("take() = %v, want %v", got, want[at][0].Pos)
				}
				want[at] = want[at][1:]
			}
			if q.n != len(want[at]) {
				rt.Fatalf("%d frames wait, want %d", q.n, len(want[at]))
			}
			if q.n == 0 && (q.rest != nil || q.first != nil) {
				rt.Fatal("an empty queue holds a block or a frame, want neither")
			}
			if q.rest == nil {
				continue
			}
			held := QueueFrames - len(slices.DeleteFunc(slices.Clone(q.rest[:]), func(f *Frame) bool { return f != nil }))
			if held != q.n-1 {
				rt.Fatalf("the block holds %d frames of a queue of %d, want all but the first", held, q.n)
			}
		}
		for at := range queues { // so that the next has the same blocks
			for queues[at].take() != nil {
			}
		}
		if b := blocks.Get().(*[QueueFrames]*Frame); *b != [QueueFrames]*Frame{} {
			rt.Fatal("a block was given back with a frame in it, want it clean")
		}
	})
}
