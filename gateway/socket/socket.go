// Package socket makes the system calls of network connections cheaper.
//
// The runtime is told of every system call, in case it blocks, and wakes its
// watchdog for the first of a busy spell. Those of a socket that the network
// poller watches never block, so nobody needs to be told: on a node that is busy
// a thousand times a second for a tenth of a millisecond that is a tenth of its
// processor time.
package socket

import (
	"net"
	"syscall"
)

// A Conn is a connection whose reads and writes the runtime is not told of. All
// else is the connection's. Safe for concurrent use as any net.Conn.
type Conn struct {
	net.Conn
	raw syscall.RawConn
}

// Control calls f with the connection's descriptor, which is good until f
// returns.
func (c *Conn) Control(f func(fd uintptr)) error { return c.raw.Control(f) }

// Listener returns ln with every connection that it accepts wrapped.
func Listener(ln net.Listener) net.Listener { return listener{ln} }

type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Wrap(conn), nil
}

// Wrap returns conn as a *Conn, or as it is where it has no socket.
func Wrap(conn net.Conn) net.Conn {
	c, ok := conn.(syscall.Conn)
	if !ok || !supported {
		return conn
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return conn
	}
	return &Conn{Conn: conn, raw: raw}
}
