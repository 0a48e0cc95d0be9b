package devnet

import (
	"bytes"
	"net"
	"net/http"
	"time"
)

// skewed returns ln with the Date of every answer moved by offset: fasthttp writes
// it by the machine's clock, and lets nobody else.
func skewed(ln net.Listener, offset time.Duration) net.Listener {
	if offset == 0 {
		return ln
	}
	return skewedListener{ln, offset}
}

type skewedListener struct {
	net.Listener
	offset time.Duration
}

// Accept implements net.Listener.
func (l skewedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &skewedConn{conn, l.offset}, nil
}

type skewedConn struct {
	net.Conn
	offset time.Duration
}

var (
	answerBegins = []byte("HTTP/1.1 ")
	headEnds     = []byte("\r\n\r\n")
	dateBegins   = []byte("\r\nDate: ")
)

// Write implements net.Conn. An answer's head is the beginning of one write.
func (c *skewedConn) Write(b []byte) (int, error) {
	head, _, whole := bytes.Cut(b, headEnds)
	at := bytes.Index(head, dateBegins) + len(dateBegins)
	if !whole || !bytes.HasPrefix(b, answerBegins) || at < len(dateBegins) {
		return c.Conn.Write(b)
	}
	old, _, _ := bytes.Cut(head[at:], []byte("\r"))
	date, err := http.ParseTime(string(old))
	if err != nil {
		return c.Conn.Write(b)
	}
	moved := append([]byte(nil), b...) // it is the caller's
	copy(moved[at:], date.Add(c.offset).Format(http.TimeFormat))
	return c.Conn.Write(moved)
}
