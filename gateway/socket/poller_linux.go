package socket

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// A Poller tells which of many descriptors can be read, so that thousands need
// no goroutine each. While it waits it takes no thread either: it has an epoll of
// its own, which the runtime's network poller watches as it would a socket.
type Poller struct {
	file *os.File // the epoll
	raw  syscall.RawConn

	// For Wait only: what its system call fills, which is made once so that none
	// allocates.
	events  []syscall.EpollEvent
	ready   []int32
	n       int
	errno   syscall.Errno
	tryWait func(epoll uintptr) bool
}

// NewPoller returns a Poller that reports at most batch descriptors at a time.
func NewPoller(batch int) (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("socket: epoll: %w", err)
	}
	_ = syscall.SetNonblock(fd, true) // what os.NewFile looks at; an epoll itself does not care
	p := &Poller{
		file:   os.NewFile(uintptr(fd), "epoll"),
		events: make([]syscall.EpollEvent, batch), ready: make([]int32, 0, batch),
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("socket: epoll: %w", err)
	}
	p.tryWait = func(epoll uintptr) bool {
		for { // an interrupted one must not wait for a wake-up that has been
			n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll,
				uintptr(unsafe.Pointer(unsafe.SliceData(p.events))), uintptr(len(p.events)), 0, 0, 0) // the runtime need not know: it does not wait
			p.n, p.errno = int(n), errno
			if errno != syscall.EINTR {
				return n != 0
			}
		}
	}
	return p, nil
}

// Close ends the Wait under way, and all that follow. Descriptors are not closed.
func (p *Poller) Close() error { return p.file.Close() }

// Add has Wait return tag for as long as fd can be read, or its peer has left.
// Whoever closes fd removes it first, or knows that nobody else has a copy of it.
func (p *Poller) Add(fd uintptr, tag int32) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: tag}
	return p.control(syscall.EPOLL_CTL_ADD, fd, &ev)
}

// Remove ends what Add began.
func (p *Poller) Remove(fd uintptr) error { return p.control(syscall.EPOLL_CTL_DEL, fd, nil) }

func (p *Poller) control(op int, fd uintptr, ev *syscall.EpollEvent) error {
	var err error
	cerr := p.raw.Control(func(epoll uintptr) { err = syscall.EpollCtl(int(epoll), op, int(fd), ev) })
	if cerr != nil {
		return cerr // closed
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// Wait waits until something can be read, and returns the tags of it, in a slice
// that the next Wait uses again. One goroutine may wait at a time. An error says
// that p is closed.
func (p *Poller) Wait() ([]int32, error) {
	if err := p.raw.Read(p.tryWait); err != nil {
		return nil, err
	}
	if p.errno != 0 {
		return nil, os.NewSyscallError("epoll_pwait", p.errno)
	}
	p.ready = p.ready[:0]
	for i := range p.events[:p.n] {
		p.ready = append(p.ready, p.events[i].Fd)
	}
	return p.ready, nil
}
