package downstream

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pepay-gateway/gateway"
)

// A writeList keeps every write.
type writeList struct {
	writes [][]byte
	err    error
}

func (w *writeList) Write(b []byte) (int, error) {
	w.writes = append(w.writes, bytes.Clone(b))
	return len(b), w.err
}

func TestOutboxJoinsWhatWaits(t *testing.T) {
	var o outbox
	var to writeList
	for _, frames := range [][]string{{"a"}, {"b", "c", "d"}, {"e"}} {
		if !o.empty() {
			t.Fatal("the outbox is not empty after a flush")
		}
		for _, f := range frames {
			if o.add([]byte(f)) {
				t.Errorf("%q fills the outbox", f)
			}
		}
		if err := o.flush(&to); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := string(bytes.Join(to.writes, []byte("|"))), "a|bcd|e"; got != want {
		t.Errorf("written %q, want %q", got, want)
	}
}

func TestOutboxChangesNoFrame(t *testing.T) {
	var o outbox
	first := make([]byte, 1, 100) // with room behind it that is not the outbox's
	first[0] = 'a'
	o.add(first)
	o.add([]byte("b"))
	if err := o.flush(&writeList{}); err != nil {
		t.Fatal(err)
	}
	if got := first[:2][1]; got != 0 {
		t.Errorf("behind the first frame is %q, want nothing", got)
	}
}

func TestOutboxIsFullBeforeItIsLarge(t *testing.T) {
	var o outbox
	frame := []byte(strings.Repeat("x", 1000))
	n := 1
	for ; !o.add(frame); n++ {
		if n > joinedBytes {
			t.Fatal("the outbox is never full")
		}
	}
	if got, want := n*1000, joinedBytes; got < want || got > want+1000 {
		t.Errorf("full with %d bytes, want about %d", got, want)
	}
	want := errors.New("gone")
	if err := o.flush(&writeList{err: want}); !errors.Is(err, want) {
		t.Errorf("flush = %v, want %v", err, want)
	}
	var huge outbox
	if !huge.add(make([]byte, joinedBytes)) {
		t.Error("one huge frame does not fill the outbox")
	}
}

// A flushCounter counts events and flushes.
type flushCounter struct {
	listSink
	flushes int
}

func (f *flushCounter) flush() error {
	f.flushes++
	return nil
}

func TestQueuedFramesLeaveTogetherAndNoneIsForgotten(t *testing.T) {
	r := newRig(t, nil)
	to := &flushCounter{}
	s := r.server.newSession(&admission{transport: gateway.WS, ip: netip.IPv6Loopback()}, to)
	queue := make(chan *gateway.Frame, 2*gateway.QueueFrames)
	for range gateway.QueueFrames + 5 {
		queue <- &gateway.Frame{Event: event("order_1", "alice")}
	}
	for _, want := range []int{gateway.QueueFrames, gateway.QueueFrames + 5} {
		to.flushes = 0
		if err := s.writeLive(<-queue, queue); err != nil {
			t.Fatal(err)
		}
		if got := len(to.kinds); got != want || to.flushes != 1 || len(queue) != cap(queue)/2+5-want {
			t.Errorf("%d events in %d flushes, %d left; want %d in 1", got, to.flushes, len(queue), want)
		}
	}
}
