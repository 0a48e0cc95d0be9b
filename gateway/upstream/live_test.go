package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"

	"pepay-gateway/gateway"
)

// heldUp has the list answered only once n frames were sent, so that they are
// held, and the first Put of held events return only after next is closed, and a
// while for what must not happen meanwhile to happen. It closes taken when that Put begins.
func heldUp(f *fakePepay, s *Source, k *sink, n uint64, next <-chan struct{}) (taken <-chan struct{}) {
	f.onList = func(call int, _ *fasthttp.RequestCtx) bool {
		if call == 1 {
			waitFor(f.tb, "the stream to be sent", func() bool { return f.sent.Load() >= n })
		}
		return false
	}
	var once sync.Once
	begun := make(chan struct{})
	k.onPut = func(context.Context) error {
		if s.count.frames.Load() > 0 { // what is put now is of the stream
			once.Do(func() {
				close(begun)
				<-next
				timer := time.NewTimer(50 * time.Millisecond)
				defer timer.Stop()
				<-timer.C
			})
		}
		return nil
	}
	return begun
}

func TestFramesHeldComeBeforeFramesReadLater(t *testing.T) {
	f := newFake(t)
	f.add(1)
	later := make(chan struct{})
	var taken <-chan struct{}
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		for n := 2; n <= 600; n++ {
			f.tell(ws, fakeEvent(n))
		}
		<-taken
		for n := 601; n <= 900; n++ {
			f.tell(ws, fakeEvent(n))
		}
		close(later)
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	taken = heldUp(f, s, k, 599, later)
	start(t, s, fakeCursor(1), k)
	waitFor(t, "the last event", func() bool { return k.has(fakeID(900)) })
	var want []string
	for n := 1; n <= 900; n++ {
		want = append(want, fakeID(n))
	}
	var got []string
	for _, a := range k.got() {
		got = append(got, a.Event.ID)
		if a.Cursor.ID != a.Event.ID {
			t.Errorf("cursor of %s = %s, want its own", a.Event.ID, a.Cursor.ID)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arrivals (-want +got):\n%s", diff)
	}
}

// What comes after a frame that ended the stream must not move the cursor past
// what was dropped behind it.
func TestStreamThatEndedWhileHeldHandsNothingOver(t *testing.T) {
	f := newFake(t)
	f.add(1)
	later := make(chan struct{})
	var taken <-chan struct{}
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n > 1 {
			send(ws, fakeEvent(3), fakeEvent(4))
			readAll(ws)
			return
		}
		for _, text := range []string{fakeEvent(2), `{"object":"ws_error","code":"nobody_knows"}`, fakeEvent(3)} {
			f.tell(ws, text)
		}
		<-taken
		f.tell(ws, fakeEvent(4))
		close(later)
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	s.tune.overlap = 0
	taken = heldUp(f, s, k, 3, later)
	start(t, s, fakeCursor(1), k)
	waitFor(t, "event 4", func() bool { return k.has(fakeID(4)) })
	if diff := cmp.Diff(ids(1, 2, 3, 4), k.first()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, _, dials := f.seen(); len(dials) != 2 || !strings.Contains(dials[1], "since="+fakeID(2)) {
		t.Errorf("dials = %q, want a second since %s", dials, fakeID(2))
	}
}

// Frames that arrive in one piece with a close frame, or an error, count.
func TestFramesBeforeTheEndAreHandedOver(t *testing.T) {
	for name, end := range map[string]string{
		"close frame":       string([]byte{0x88, 2, 0x03, 0xe8}),
		"broken frame":      string([]byte{0xff, 0xff}),
		"half a frame":      string([]byte{0x81, 100, '{'}),
		"end of the socket": "",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.add(1)
			live := make(chan struct{})
			f.onStream = func(n int, ws *websocket.Conn, _ string) {
				if n > 1 {
					readAll(ws)
					return
				}
				<-live
				var raw []byte
				for n := 2; n <= 300; n++ {
					text := fakeEvent(n)
					raw = append(raw, 0x81, 126, byte(len(text)>>8), byte(len(text)))
					raw = append(raw, text...)
				}
				_, _ = ws.NetConn().Write(append(raw, end...))
				_ = ws.Close()
			}
			s, k := newSource(t, f), &sink{}
			s.tune.overlap = 0
			start(t, s, fakeCursor(1), k)
			waitFor(t, "live", func() bool { return k.is(gateway.Live) })
			close(live)
			waitFor(t, "the second dial", func() bool { _, _, d := f.seen(); return len(d) == 2 })
			if _, _, dials := f.seen(); !strings.Contains(dials[1], "since="+fakeID(300)) {
				t.Errorf("second dial = %s, want it since %s", dials[1], fakeID(300))
			}
			if got := k.got(); len(got) != 300 || got[299].Event.ID != fakeID(300) {
				t.Errorf("%d arrivals, want 300 and the last of them last", len(got))
			}
		})
	}
}

// Nothing is read while the log takes nothing, and nothing is lost for that.
func TestBlockedPutStopsTheReading(t *testing.T) {
	const frames, size = 80, 512 << 10
	f := newFake(t)
	live := make(chan struct{})
	filler := strings.Repeat("x", size)
	big := func(n int) string {
		return strings.Replace(fakeEvent(n), `"object":{`, `"object":{"memo":"`+filler+`",`, 1)
	}
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		<-live
		for n := 1; n <= frames; n++ {
			f.tell(ws, big(n))
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	open := make(chan struct{})
	k.onPut = func(context.Context) error { <-open; return nil }
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	close(live)
	var sent uint64
	var since time.Time
	waitFor(t, "the upstream to be held up", func() bool {
		if n := f.sent.Load(); n != sent || n == 0 {
			sent, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	if sent > frames/2 {
		t.Errorf("%d of %d frames were taken off the upstream's hands, want only what buffers take", sent, frames)
	}
	close(open)
	waitFor(t, "the last event", func() bool { return len(k.got()) == frames })
	for i, a := range k.got() {
		if a.Event.ID != fakeID(i+1) {
			t.Fatalf("arrival %d is %s, want %s", i, a.Event.ID, fakeID(i+1))
		}
	}
}

// Whoever runs the stream ends it at once, although its reader waits for the log.
func TestRunEndsWhilePutIsBlocked(t *testing.T) {
	f := newFake(t)
	live := make(chan struct{})
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		<-live
		send(ws, fakeEvent(1), `{"object":"ws_control","type":"resync"}`, fakeEvent(2))
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	blocked := make(chan struct{})
	k.onPut = func(ctx context.Context) error {
		close(blocked)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	stop := start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	close(live)
	<-blocked
	if err := stop(); !errors.Is(err, errStop) {
		t.Errorf("Run() = %v, want %v", err, errStop)
	}
}

// A control frame that comes alone on a quiet stream is answered with a sweep.
func TestControlFramesWhileLiveAreEachPaid(t *testing.T) {
	f := newFake(t)
	f.add(1)
	step := make(chan int)
	end := sync.OnceFunc(func() { close(step) })
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		for n := range step {
			f.add(n)
			send(ws, `{"object":"ws_control","type":"resync"}`)
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	start(t, s, fakeCursor(1), k)
	t.Cleanup(end)
	for n := 2; n < 8; n++ {
		waitFor(t, "live", func() bool { return k.is(gateway.Live) })
		step <- n
		waitFor(t, fmt.Sprint("event ", n), func() bool { return k.has(fakeID(n)) })
	}
	end()
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if got := slices.Compact(k.states()); len(got) != 14 {
		t.Errorf("states = %q, want six times resync and live", got)
	}
}
