package downstream

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"pepay-gateway/gateway/socket"
)

const (
	// sendBufferBytes keeps slow clients from hiding behind megabytes of kernel
	// buffer: beyond it, and their queue, they are seen to be slow.
	sendBufferBytes = 48 << 10
	// minReserve is how many descriptors are kept for Redis, the upstream and the
	// admin listener, at least, where the process has twice as many.
	minReserve = 64
	// acceptRetry is the wait after an error of the system's that passes. It is
	// shorter than a shutdown takes.
	acceptRetry = 50 * time.Millisecond
	// What a client that was answered in the midst of its request may still send,
	// and for how long it is listened to.
	hearOutBytes = 4 << 20
	hearOutTime  = time.Second
)

// A door counts the connections of clients, also those that are no streams yet,
// so that they never take the last descriptors of the process. Safe for
// concurrent use.
type door struct {
	room int // connections before streams are refused; 0 = no limit
	most int // connections before one is closed unheard

	open, dropped atomic.Int64
}

// newDoor keeps a tenth of the descriptors, and half of those for telling the
// clients that are refused.
func newDoor(descriptors int) *door {
	if descriptors <= 0 {
		return &door{}
	}
	reserve := max(descriptors/10, min(minReserve, descriptors/2))
	return &door{room: descriptors - reserve, most: descriptors - reserve/2}
}

// admits says whether conn may become a stream: it came while there was room, or
// there is some now. Of many that come at once the first are admitted, not none.
func (d *door) admits(conn net.Conn) bool {
	c, ok := conn.(*clientConn)
	return !ok || !c.late || d.open.Load() <= int64(d.room)
}

// enter counts a connection; nil if there are too many.
func (d *door) enter(conn net.Conn) *clientConn {
	n := int(d.open.Add(1))
	if d.most > 0 && n > d.most {
		d.open.Add(-1)
		d.dropped.Add(1)
		return nil
	}
	c := &clientConn{Conn: socket.Wrap(conn), door: d, late: d.room > 0 && n > d.room}
	c.sock, _ = c.Conn.(*socket.Conn)
	return c
}

// A listener accepts until it is closed, and sets what connections need.
type listener struct {
	net.Listener
	door *door
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case passes(err):
			time.Sleep(acceptRetry) // the server would end at any error
			continue
		case err != nil:
			return nil, err
		}
		c := l.door.enter(conn)
		if c == nil {
			_ = conn.Close() // there is no descriptor to spare for a word
			continue
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(sendBufferBytes) // works as well, only less promptly, without
		}
		return c, nil
	}
}

// passes says whether accepting may work again by itself.
func passes(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A clientConn is a client's connection: it leaves through the door once, and
// what arrives on it can be had without a goroutine that waits for it.
type clientConn struct {
	net.Conn
	door   *door
	sock   *socket.Conn // nil where the connection has none
	late   bool         // it came when there was no room for a stream
	held   bool         // reading stops at what was read ahead
	amid   atomic.Bool  // it was answered in the midst of its request
	closed atomic.Bool
	poller atomic.Pointer[poller] // that watches it; nil while none does
	to     receiver               // told by it
	fd     int32                  // its descriptor; guarded by the poller's mu
}

// A receiver is told what arrives on a connection, one call at a time.
type receiver interface {
	// receive takes bytes, which are only lent. It must not block.
	receive([]byte)
	// gone is called once, when nothing arrives any more.
	gone()
}

// errHeld ends the reading of what was read ahead.
var errHeld = errors.New("downstream: held")

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	if c.held {
		return 0, errHeld
	}
	return c.Conn.Read(p)
}

// hearOut has the client know that the answer is over, and reads what it still
// sends: a connection that is closed with bytes unread is reset, and the client,
// as it writes on, may never see the answer (RFC 9112, section 9.6).
func (c *clientConn) hearOut() {
	under := c.Conn
	if c.sock != nil {
		under = c.sock.Conn
	}
	tcp, ok := under.(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil || tcp.SetReadDeadline(time.Now().Add(hearOutTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, tcp, hearOutBytes) // until it has left
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	if c.amid.Swap(false) {
		c.hearOut()
	}
	if !c.closed.Swap(true) {
		c.door.open.Add(-1)
	}
	if p := c.poller.Load(); p != nil {
		p.forget(c) // its descriptor may be another's soon
	}
	return c.Conn.Close()
}

// takeOver returns the connection under one that the library has handed over,
// and what the library has read of it beyond the request. The library's object
// is not needed any more.
func takeOver(conn net.Conn) (under net.Conn, ahead []byte) {
	hijacked, ok := conn.(interface{ UnsafeConn() net.Conn })
	if !ok {
		return conn, nil
	}
	c, ok := hijacked.UnsafeConn().(*clientConn)
	if !ok {
		return conn, nil
	}
	c.held = true
	var room [64]byte
	for {
		n, err := conn.Read(room[:])
		ahead = append(ahead, room[:n]...)
		if err != nil {
			break
		}
	}
	c.held = false
	return c, ahead
}

// receive has to told what arrives on conn, by the poller if there is one.
func (s *Server) receive(conn net.Conn, to receiver) {
	if c, ok := conn.(*clientConn); ok && c.sock != nil && s.poller != nil {
		c.to = to
		c.poller.Store(s.poller)
		if s.poller.watch(c) == nil {
			return
		}
	}
	read := func() {
		room := make([]byte, 512)
		for {
			n, err := conn.Read(room)
			if n > 0 {
				to.receive(room[:n])
			}
			if err != nil {
				to.gone()
				return
			}
		}
	}
	if !s.streams.spawn(read) {
		to.gone()
	}
}
