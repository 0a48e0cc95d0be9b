package downstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
)

func TestDoorKeepsAReserve(t *testing.T) {
	for descriptors, want := range map[int][2]int{
		0: {0, 0}, -1: {0, 0}, 64: {32, 48}, 128: {64, 96}, 256: {192, 224}, 1024: {922, 973}, 100_000: {90_000, 95_000},
	} {
		if d := newDoor(descriptors); d.room != want[0] || d.most != want[1] {
			t.Errorf("newDoor(%d) = %d, %d, want %v", descriptors, d.room, d.most, want)
		}
	}
}

// A hostileListener fails as a kernel without descriptors does, then accepts.
type hostileListener struct {
	net.Listener
	errs []error
}

func (l *hostileListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		a, b := net.Pipe()
		_ = b.Close()
		return a, nil
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestAcceptOutlivesWhatPasses(t *testing.T) {
	failing := func(e error) error { return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", e)} }
	l := &listener{&hostileListener{errs: []error{failing(syscall.EMFILE), failing(syscall.ENFILE), failing(syscall.ECONNABORTED)}}, newDoor(0)}
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("Accept() = %v, want a connection", err)
	}
	_ = conn.Close()
	for _, e := range []error{net.ErrClosed, failing(syscall.EBADF), errors.New("else")} {
		l := &listener{&hostileListener{errs: []error{e}}, newDoor(0)}
		if _, err := l.Accept(); !errors.Is(err, e) {
			t.Errorf("Accept() = %v, want %v", err, e)
		}
	}
}

func TestDoorCountsEachConnectionOnce(t *testing.T) {
	d := newDoor(128) // 64 streams, 96 connections
	l := &listener{&hostileListener{}, d}
	var conns []net.Conn
	for i := range 96 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if got, want := d.admits(conn), i < 64; got != want {
			t.Errorf("admits the connection %d = %v, want %v", i+1, got, want)
		}
	}
	if d.enter(conns[0]) != nil || d.dropped.Load() != 1 {
		t.Errorf("the 97th came in, or %d were dropped; want it dropped", d.dropped.Load())
	}
	if !d.admits(conns[0]) {
		t.Error("the first is not admitted any more, want it to be")
	}
	for _, c := range conns[:32] {
		_ = c.Close()
	}
	if !d.admits(conns[95]) {
		t.Error("the last is not admitted though there is room now, want it to be")
	}
	var wg sync.WaitGroup
	for _, c := range conns {
		for range 3 {
			wg.Go(func() { _ = c.Close() })
		}
	}
	wg.Wait()
	if n := d.open.Load(); n != 0 {
		t.Errorf("%d open after all were closed, want 0", n)
	}
}

// Connections that ask for nothing take room as streams do.
func TestStreamsAreRefusedForWantOfDescriptors(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Descriptors = 20 }) // room for ten
	token := "token=" + r.token("alice")
	ws, sse := r.ws(token), r.sse(token)
	settled(ws)
	settled(sse)
	idle := make([]net.Conn, 0, 8)
	for range 8 {
		c, err := net.Dial("tcp", r.addr)
		r.must(err)
		defer func() { _ = c.Close() }()
		idle = append(idle, c)
	}
	r.until("all are counted", func() bool { return r.server.Stats().Accepted == 10 })
	r.sse(token).want("disconnect")
	r.ws(token).wantClose(1013)
	if c, err := r.dial(token, nil); err == nil || c.resp.StatusCode != 503 {
		t.Errorf("WebSocket of a server: %v, want 503", err)
	}
	if resp, body := r.answer("GET", "/api/v1/events", "", "Authorization: Bearer "+r.token("alice")); resp.StatusCode != 200 {
		t.Errorf("REST = %d %s, want it answered from the reserve", resp.StatusCode, body)
	}

	// Past that, nobody is heard.
	r.until("those refused have left", func() bool { return r.server.Stats().Accepted <= 11 })
	for range 20 {
		c, err := net.Dial("tcp", r.addr)
		r.must(err)
		defer func() { _ = c.Close() }()
	}
	r.until("some are dropped", func() bool { return r.server.Stats().Dropped > 0 })
	if s := r.server.Stats(); s.Accepted > 15 || s.Limit != 10 {
		t.Errorf("%d connections open and a limit of %d, want at most 15, and 10", s.Accepted, s.Limit)
	}
	ev := r.publish("order_1", "alice")
	ws.wantEvent(ev)
	sse.wantEvent(ev)
	for _, c := range idle {
		_ = c.Close()
	}
}

func TestLimitIsTheLower(t *testing.T) {
	for _, tc := range []struct{ limit, descriptors, want int }{
		{0, 0, 0}, {100, 0, 100}, {0, 256, 192}, {100, 256, 100}, {1000, 256, 192},
	} {
		s := &Server{cfg: Config{Limits: Limits{Connections: tc.limit}}, door: newDoor(tc.descriptors)}
		if got := s.limit(); got != tc.want {
			t.Errorf("limit of %s = %d, want %d", fmt.Sprint(tc), got, tc.want)
		}
	}
}

// A call that a page's handler has made may ask its request's context for
// something after the answer, while the connection's next request is read.
func TestContextOfARequestOutlivesIt(t *testing.T) {
	kept := make(chan context.Context, 1)
	r := newRig(t, func(cfg *Config) {
		cfg.Site = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			select {
			case kept <- req.Context():
			default:
			}
			w.WriteHeader(http.StatusNoContent)
		})
	})
	get := func() {
		resp, err := http.Get("http://" + r.addr + "/page")
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
	}
	get()
	first := <-kept
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for range 20 {
			get()
		}
	}()
	type key struct{}
	for asking := true; asking; { // the race detector watches
		select {
		case <-answered:
			asking = false
		default:
			if got, err := first.Value(key{}), first.Err(); got != nil || err != nil {
				t.Fatalf("value %v, error %v, want neither", got, err)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
