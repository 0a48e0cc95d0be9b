package downstream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"pepay-gateway/gateway"
)

// A writeList keeps every write.
type writeList struct {
	net.Conn
	writes [][]byte
	err    error
}

func (w *writeList) Write(b []byte) (int, error) {
	w.writes = append(w.writes, bytes.Clone(b))
	return len(b), w.err
}

func (w *writeList) SetWriteDeadline(time.Time) error { return nil }

func TestOutboxJoinsWhatWaits(t *testing.T) {
	var o outbox
	var to writeList
	for _, frames := range [][]string{{"a"}, {"b", "c", "d"}, {"e"}} {
		if n := o.waiting(); n != 0 {
			t.Fatalf("%d bytes wait after a flush, want none", n)
		}
		for _, f := range frames {
			o.add([]byte(f))
		}
		if got, want := o.waiting(), len(frames); got != want {
			t.Errorf("%d bytes wait, want %d", got, want)
		}
		if err := o.flush(&to, true); err != nil {
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
	if err := o.flush(&writeList{}, true); err != nil {
		t.Fatal(err)
	}
	if got := first[:2][1]; got != 0 {
		t.Errorf("behind the first frame is %q, want nothing", got)
	}
}

func TestOutboxKeepsWhatWouldBlock(t *testing.T) {
	var o outbox
	o.add([]byte("a"))
	for _, frames := range []string{"", "b", "c"} {
		o.add([]byte(frames))
		if err := o.flush(&writeList{}, false); err != errWouldBlock {
			t.Fatalf("flush = %v, want %v", err, errWouldBlock)
		}
	}
	var to writeList
	if err := o.flush(&to, true); err != nil {
		t.Fatal(err)
	}
	if got, want := string(bytes.Join(to.writes, []byte("|"))), "abc"; got != want {
		t.Errorf("written %q, want %q", got, want)
	}
	want := errors.New("gone")
	o.add([]byte("x"))
	if err := o.flush(&writeList{err: want}, true); !errors.Is(err, want) {
		t.Errorf("flush = %v, want %v", err, want)
	}
}

// A write that failed may have sent a part of a frame: whatever followed it would
// be read as the rest.
func TestOutboxWritesNothingAfterAFailure(t *testing.T) {
	var o outbox
	to := writeList{err: errors.New("timeout")}
	o.add([]byte("an event, cut"))
	if err := o.flush(&to, true); err != to.err {
		t.Fatalf("flush = %v, want %v", err, to.err)
	}
	to.err = nil
	o.add([]byte("goodbye"))
	if err := o.flush(&to, true); err == nil || len(to.writes) != 1 {
		t.Errorf("flush after one that failed = %v with %q written, want an error and nothing more", err, to.writes[1:])
	}
	if n := o.waiting(); n != 0 {
		t.Errorf("%d bytes wait, want none to be kept", n)
	}
}

// A large event over a slow line is no stalled client, which takes nothing.
func TestOutboxWaitsForASlowClientButNotForAStalledOne(t *testing.T) {
	const piece = 4 << 10
	for _, tt := range []struct {
		name  string
		size  int
		every time.Duration // the client takes a piece
		lasts time.Duration // until the write has failed; 0: it does not fail
	}{
		{"slow", 256 << 10, 400 * time.Millisecond, 0},
		{"stalled", 256 << 10, time.Hour, writeTimeout},
		{"too slow for a piece", 256 << 10, 3 * time.Second, writeTimeout},
		{"too slow for all of it", 256 << 10, time.Second, writeLongest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				got := make(chan []byte)
				go func() {
					var all []byte
					for b := make([]byte, piece); ; {
						time.Sleep(tt.every)
						n, err := io.ReadFull(theirs, b)
						if all = append(all, b[:n]...); err != nil {
							got <- all
							return
						}
					}
				}()
				event := make([]byte, tt.size)
				for i := range event {
					event[i] = byte(i >> 10)
				}
				var o outbox
				o.add(event)
				began := time.Now()
				err := o.flush(ours, true)
				_ = ours.Close()
				if lasted := time.Since(began); tt.lasts != 0 && (err == nil || lasted != tt.lasts) {
					t.Errorf("flush = %v after %v, want an error after %v", err, lasted, tt.lasts)
				}
				if all := <-got; tt.lasts == 0 && (err != nil || !bytes.Equal(all, event)) {
					t.Errorf("flush = %v with %d bytes taken, want all %d as they were", err, len(all), tt.size)
				}
			})
		})
	}
}

// Whatever part of a write the kernel takes, the client gets every byte once and
// in order.
func TestOutboxGoesOnWhereTheKernelStopped(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	accepted, err := (&listener{ln, newDoor(0)}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = accepted.Close() }()

	var o outbox
	var want []byte
	blocked := false
	for n := 0; n < 1000 || !blocked; n++ {
		frame := bytes.Repeat([]byte{byte(n)}, 9_000+n%7)
		want = append(want, frame...)
		o.add(frame)
		if n%3 == 0 {
			err := o.flush(accepted, false)
			if blocked = err == errWouldBlock; err != nil && !blocked {
				t.Fatal(err)
			}
		}
	}
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, len(want))
		_, _ = io.ReadFull(client, b)
		got <- b
	}()
	if err := o.flush(accepted, true); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, want) {
		t.Error("the client got other bytes than were written")
	}
}

// A flushCounter counts events and flushes.
type flushCounter struct {
	listSink
	flushes int
}

func (f *flushCounter) flush(bool) error {
	f.flushes++
	return nil
}

func TestQueuedFramesLeaveTogetherAndNoneIsForgotten(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	to := &flushCounter{}
	s := r.session(to)
	s.health, s.changed = r.node.Health()
	s.told = s.health.State
	r.must(s.catchUp())
	r.must(s.serveReady(true))
	for _, want := range []int{gateway.QueueFrames, 5} {
		var batch []gateway.Record
		for range want {
			ev := event("order_1", "alice")
			batch = append(batch, gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
		}
		r.append(batch...)
		to.flushes, to.kinds = 0, nil
		r.must(s.serveReady(true))
		if got := len(to.kinds); got != want || to.flushes != 1 || s.sub.Queued() != 0 {
			t.Errorf("%d events in %d flushes, %d left; want %d in 1, and none", got, to.flushes, s.sub.Queued(), want)
		}
	}
}
