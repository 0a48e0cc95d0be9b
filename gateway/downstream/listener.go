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
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBufferBytes) // works as well, only less promptly, without
	}
	return conn, err
}
