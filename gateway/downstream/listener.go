package downstream

import "net"

// sendBufferBytes keeps slow clients from hiding behind megabytes of kernel
// buffer: beyond it, and their queue, they are seen to be slow.
const sendBufferBytes = 64 << 10

// A listener sets what accepted connections need.
type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBufferBytes) // works as well, only less promptly, without
	}
	return &clientConn{Conn: conn}, nil
}

// A clientConn is an accepted connection, of which a reader can have the bytes
// counted before any library has made something of them.
type clientConn struct {
	net.Conn
	receive func(n int) error // may be nil; set and called by who reads
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.receive != nil {
		err = c.receive(n)
	}
	return n, err
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
