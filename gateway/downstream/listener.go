package downstream

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// sendBufferBytes keeps slow clients from hiding behind megabytes of kernel
	// buffer: beyond it, and their queue, they are seen to be slow.
	sendBufferBytes = 64 << 10
	// minReserve is how many descriptors are kept for Redis, the upstream and the
	// admin listener, at least, where the process has twice as many.
	minReserve = 64
	// acceptRetry is the wait after an error of the system's that passes. It is
	// shorter than a shutdown takes.
	acceptRetry = 50 * time.Millisecond
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
	return &clientConn{Conn: conn, door: d, late: d.room > 0 && n > d.room}
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

// A clientConn is a client's connection: it leaves through the door once, and a
// reader can have its bytes counted before any library has made something of
// them. A WebSocket's may be written to by several goroutines.
type clientConn struct {
	net.Conn
	door    *door
	late    bool // it came when there was no room for a stream
	left    sync.Once
	receive func(n int) error // may be nil; set and called by who reads

	framed bool       // whole WebSocket frames are written; set before there are two writers
	mu     sync.Mutex // guards the field below, and writes of frames
	closed bool       // a close frame was written: nothing may follow it
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.receive != nil {
		err = c.receive(n)
	}
	return n, err
}

// Write implements net.Conn. Whoever sends the first close frame of a WebSocket,
// the library or a session, it is the last.
func (c *clientConn) Write(p []byte) (int, error) {
	if !c.framed {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.closed = len(p) > 0 && p[0] == closeOpcode
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	err := c.Conn.Close()
	c.left.Do(func() { c.door.open.Add(-1) })
	return err
}

// accepted returns the clientConn under a connection that the library has
// handed over.
func accepted(conn net.Conn) (*clientConn, bool) {
	if hijacked, ok := conn.(interface{ UnsafeConn() net.Conn }); ok {
		conn = hijacked.UnsafeConn()
	}
	c, ok := conn.(*clientConn)
	return c, ok
}
