package downstream

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A heardConn is the receiver of one connection: it keeps what it was told.
type heardConn struct {
	conn *clientConn

	mu   sync.Mutex // guards the fields below
	b    []byte
	gone int
}

func (h *heardConn) receive(p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p...)
}

func (h *heardConn) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone++
}

func (h *heardConn) heard() (string, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b), h.gone
}

// A told is a heardConn as a receiver.
type told struct{ *heardConn }

func (t told) gone() { t.leave() }

// A pollRig is a poller and a listener whose connections it may watch.
type pollRig struct {
	testing.TB
	poller  *poller
	in      *listener
	batches atomic.Int64
}

func newPollRig(t *testing.T) *pollRig {
	t.Helper()
	r := &pollRig{TB: t}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.in = &listener{ln, newDoor(0)}
	r.poller, err = newPoller(func(f func()) {
		r.batches.Add(1)
		f()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ln.Close()
		r.poller.close()
		r.poller.mu.Lock()
		defer r.poller.mu.Unlock()
		if n := len(r.poller.watched); n != 0 {
			t.Errorf("%d connections are watched at the end, want none", n)
		}
	})
	return r
}

// pair connects a client.
func (r *pollRig) pair() (client net.Conn, h *heardConn) {
	r.Helper()
	client, err := net.Dial("tcp", r.in.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	conn, err := r.in.Accept()
	if err != nil {
		r.Fatal(err)
	}
	h = &heardConn{conn: conn.(*clientConn)}
	r.Cleanup(func() {
		_ = client.Close()
		_ = conn.Close()
	})
	return client, h
}

func (r *pollRig) watch(h *heardConn) {
	r.Helper()
	h.conn.to = told{h}
	h.conn.poller.Store(r.poller)
	if err := r.poller.watch(h.conn); err != nil {
		r.Fatalf("watch = %v, want nil", err)
	}
}

// What came before somebody watched is told as well.
func TestPollerTellsWhatWaits(t *testing.T) {
	r := newPollRig(t)
	client, h := r.pair()
	want := bytes.Repeat([]byte("0123456789"), 5*pollRead/10) // more than it reads at a time
	if _, err := client.Write(want); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	r.watch(h)
	eventually(t, "the client's leaving is told", func() bool { _, gone := h.heard(); return gone > 0 })
	if got, _ := h.heard(); got != string(want) {
		t.Errorf("told %d bytes, want the %d sent", len(got), len(want))
	}
}

// A connection at its end stays readable for ever: whoever looked at it again
// and again would do nothing else.
func TestPollerForgetsWhoHasLeft(t *testing.T) {
	r := newPollRig(t)
	for range 10 {
		client, h := r.pair()
		r.watch(h)
		_ = client.Close()
		eventually(t, "the client's leaving is told", func() bool { _, gone := h.heard(); return gone > 0 })
	} // their connections are open still
	client, h := r.pair()
	r.watch(h)
	before := r.batches.Load()
	const messages = 50
	for i := range messages {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the byte is told", func() bool { got, _ := h.heard(); return len(got) == i+1 })
	}
	if n := r.batches.Load() - before; n > 2*messages {
		t.Errorf("the poller was woken %d times for %d bytes, want once for each", n, messages)
	}
}

func TestPollerRefusesWhoIsClosed(t *testing.T) {
	r := newPollRig(t)
	_, h := r.pair()
	h.conn.closed.Store(true) // as Close begins: whoever is watched now is so for ever
	if err := r.poller.watch(h.conn); err == nil {
		t.Error("watch of a connection that is being closed = nil, want an error")
	}
}

// A connection may be closed more than once, and its descriptor be another's by
// then.
func TestClosingAgainForgetsNobodyElse(t *testing.T) {
	r := newPollRig(t)
	for range 100 {
		_, first := r.pair()
		r.watch(first)
		client, err := net.Dial("tcp", r.in.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		fd := first.conn.fd
		_ = first.conn.Close()
		conn, err := r.in.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		second := &heardConn{conn: conn.(*clientConn)}
		r.watch(second)
		if second.conn.fd != fd {
			continue // somebody else was faster
		}
		_ = first.conn.Close()
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the second connection on the descriptor is told its byte", func() bool { got, _ := second.heard(); return got == "x" })
		return
	}
	t.Fatal("no descriptor was used again in 100 tries")
}

// Descriptors are used again at once. However connections come and go, each is
// told its own bytes, and that its client has left once at most.
func TestPollerConcurrentUse(t *testing.T) {
	r := newPollRig(t)
	stays, staying := r.pair()
	r.watch(staying)
	var accepting, clients sync.WaitGroup
	var serving sync.Mutex // of the list below
	var all []*heardConn
	accepting.Go(func() {
		for {
			conn, err := r.in.Accept()
			if err != nil {
				return
			}
			h := &heardConn{conn: conn.(*clientConn)}
			serving.Lock()
			all = append(all, h)
			n := len(all)
			serving.Unlock()
			h.conn.to = told{h}
			h.conn.poller.Store(r.poller)
			if n%3 == 0 { // closed by us while it is taken in
				accepting.Go(func() { _ = h.conn.Close() })
			}
			if err := r.poller.watch(h.conn); err != nil && n%3 != 0 {
				t.Errorf("watch = %v, want nil", err)
			}
		}
	})
	const workers, rounds = 8, 250
	for w := range workers {
		clients.Go(func() {
			for i := range rounds {
				c, err := net.Dial("tcp", r.in.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.(*net.TCPConn).SetLinger(0) // no port waits for its end
				text := fmt.Sprintf("%d/%d\n", w, i)
				for range 1 + rand.N(3) {
					if _, err := io.WriteString(c, text); err != nil {
						break // closed by them
					}
				}
				_ = c.Close()
			}
		})
	}
	clients.Wait()
	eventually(t, "all have been accepted and have left", func() bool {
		serving.Lock()
		defer serving.Unlock()
		if len(all) < workers*rounds {
			return false
		}
		for _, h := range all {
			if _, gone := h.heard(); gone == 0 && !h.conn.closed.Load() {
				return false
			}
		}
		return true
	})
	if _, err := stays.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "who stayed all the while is told", func() bool { got, _ := staying.heard(); return got == "still here" })
	_ = r.in.Close()
	accepting.Wait()
	for _, h := range all {
		_ = h.conn.Close()
	}
	for _, h := range all {
		got, gone := h.heard()
		if gone > 1 {
			t.Errorf("a client left %d times, want once", gone)
		}
		first, _, _ := bytes.Cut([]byte(got), []byte("\n"))
		if rest := bytes.ReplaceAll([]byte(got), append(first, '\n'), nil); len(rest) != 0 && !bytes.HasPrefix(first, rest) {
			t.Errorf("a connection was told %q, want the bytes of one client", got)
		}
	}
}
