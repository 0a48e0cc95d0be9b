package downstream

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

const (
	pollBatch = 256     // ready connections asked for at a time
	pollRead  = 8 << 10 // bytes read from one at a time
)

// A poller reads from all connections in one goroutine: one each would have a
// stack that is larger than all else an idle stream needs. Safe for concurrent
// use.
//
// It has an epoll of its own, which the runtime's network poller watches as it
// would a socket: so it takes no thread.
type poller struct {
	file *os.File // the epoll
	raw  syscall.RawConn
	done chan struct{}

	mu      sync.Mutex            // guards the field below
	watched map[int32]*clientConn // by descriptor

	// For the poller's goroutine only: what its system calls fill, which are made
	// once so that none allocates.
	events   [pollBatch]syscall.EpollEvent
	ready    int // of events
	waitErr  syscall.Errno
	tryWait  func(epoll uintptr) bool
	room     [pollRead]byte
	readable func() // reads from all that are ready
}

// newPoller returns a poller that calls around for every batch of connections
// that can be read; around must call the function it is given.
func newPoller(around func(func())) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("downstream: epoll: %w", err)
	}
	_ = syscall.SetNonblock(fd, true) // what os.NewFile looks at; an epoll itself does not care
	p := &poller{
		file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), watched: make(map[int32]*clientConn),
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("downstream: epoll: %w", err)
	}
	p.tryWait = func(epoll uintptr) bool {
		for { // an interrupted one must not wait for a wake-up that has been
			n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll,
				uintptr(unsafe.Pointer(&p.events)), pollBatch, 0, 0, 0) // the runtime need not know: it does not wait
			p.ready, p.waitErr = int(n), errno
			if errno != syscall.EINTR {
				return n != 0
			}
		}
	}
	p.readable = p.readAll
	go p.run(around)
	return p, nil
}

// close ends the goroutine. Connections are not closed.
func (p *poller) close() {
	_ = p.file.Close() // fails only when closed already
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
		ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)}
		if err = syscall.EpollCtl(p.epoll(), syscall.EPOLL_CTL_ADD, int(fd), &ev); err == nil {
			c.fd = int32(fd)
			p.watched[c.fd] = c
		}
	})
	return errors.Join(cerr, err)
}

// epoll returns the descriptor; -1 once it is closed.
func (p *poller) epoll() (fd int) {
	fd = -1
	_ = p.raw.Control(func(of uintptr) { fd = int(of) }) // fails only when closed
	return fd
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
	for {
		if err := p.raw.Read(p.tryWait); err != nil || p.waitErr != 0 {
			return // closed
		}
		around(p.readable)
	}
}

func (p *poller) readAll() {
	for _, ev := range p.events[:p.ready] {
		p.mu.Lock()
		c := p.watched[ev.Fd]
		p.mu.Unlock()
		if c != nil { // else it was closed meanwhile
			p.read(c)
		}
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
	_ = c.sock.Control(func(fd uintptr) { // fails only when closed, and gone from the epoll with it
		_ = syscall.EpollCtl(p.epoll(), syscall.EPOLL_CTL_DEL, int(fd), nil)
	})
	p.forget(c)
}
