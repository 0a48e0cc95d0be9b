package downstream

import (
	"errors"
	"net"
	"sync"

	"pepay-gateway/gateway/socket"
)

const (
	pollBatch = 256     // ready connections asked for at a time
	pollRead  = 8 << 10 // bytes read from one at a time
)

// A poller reads from all connections in one goroutine: one each would have a
// stack that is larger than all else an idle stream needs. Safe for concurrent
// use.
type poller struct {
	ready *socket.Poller
	done  chan struct{}

	mu      sync.Mutex            // guards the field below
	watched map[int32]*clientConn // by descriptor

	room [pollRead]byte // for the poller's goroutine only
}

// newPoller returns a poller that calls around for every batch of connections
// that can be read; around must call the function it is given.
func newPoller(around func(func())) (*poller, error) {
	ready, err := socket.NewPoller(pollBatch)
	if err != nil {
		return nil, err
	}
	p := &poller{ready: ready, done: make(chan struct{}), watched: make(map[int32]*clientConn)}
	go p.run(around)
	return p, nil
}

// close ends the goroutine. Connections are not closed.
func (p *poller) close() {
	_ = p.ready.Close() // fails only when closed already
	<-p.done
}

// watch has c's receiver told what arrives on it, until it is closed.
func (p *poller) watch(c *clientConn) error {
	var err error
	cerr := c.sock.Control(func(fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if c.closed.Load() { // whoever closes it has forgotten it already
			err = net.ErrClosed
			return
		}
		if err = p.ready.Add(fd, int32(fd)); err == nil {
			c.fd = int32(fd)
			p.watched[c.fd] = c
		}
	})
	return errors.Join(cerr, err)
}

// forget stops telling of c, before it is closed.
func (p *poller) forget(c *clientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched[c.fd] == c {
		delete(p.watched, c.fd)
	}
}

func (p *poller) run(around func(func())) {
	defer close(p.done)
	var fds []int32
	readAll := func() {
		for _, fd := range fds {
			p.mu.Lock()
			c := p.watched[fd]
			p.mu.Unlock()
			if c != nil { // else it was closed meanwhile
				p.read(c)
			}
		}
	}
	for {
		var err error
		if fds, err = p.ready.Wait(); err != nil {
			return // closed
		}
		around(readAll)
	}
}

// read reads from c once, and has it told.
func (p *poller) read(c *clientConn) {
	n, err := c.sock.ReadNow(p.room[:])
	switch {
	case err != nil:
		p.drop(c) // it would stay readable for ever
		c.to.gone()
	case n > 0:
		c.to.receive(p.room[:n])
	}
}

// drop stops telling of c.
func (p *poller) drop(c *clientConn) {
	_ = c.sock.Control(func(fd uintptr) { _ = p.ready.Remove(fd) }) // fails only when closed, and gone with it
	p.forget(c)
}
