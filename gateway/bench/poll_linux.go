package bench

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"syscall"
	"time"
)

// pollBatch is how many ready connections are asked for at a time.
const pollBatch = 256

// A poller reads from many connections in one goroutine: with thousands of
// them, a goroutine each would take the processor from the server beside it.
type poller struct {
	epoll  int
	events [pollBatch]syscall.EpollEvent
	room   []byte
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	return &poller{epoll: fd, room: make([]byte, 64<<10)}, nil
}

// adopt takes the socket out of conn, which is closed, and returns it.
func (p *poller) adopt(conn *net.TCPConn) (int, error) {
	defer func() { _ = conn.Close() }() // the copy lives on
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if cerr := raw.Control(func(of uintptr) { fd, err = syscall.Dup(int(of)) }); cerr != nil {
		return -1, cerr
	}
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	return fd, err
}

// add begins to report fd under index.
func (p *poller) add(fd, index int) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(index)}
	return syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &ev)
}

// ignore stops reporting fd.
func (p *poller) ignore(fd int) {
	_ = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, fd, nil) // gone already is fine
}

// close closes fd.
func (p *poller) close(fd int) { _ = syscall.Close(fd) } // nothing is left to lose

// write sends a few bytes; a full socket is an error.
func (p *poller) write(fd int, b []byte) error {
	_, err := syscall.Write(fd, b)
	return err
}

// wait calls ready with the index of every connection that can be read, once,
// within a tenth of a second.
func (p *poller) wait(ready func(index int)) error {
	n, err := syscall.EpollWait(p.epoll, p.events[:], 100)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	for i := range max(n, 0) {
		ready(int(p.events[i].Fd))
	}
	return nil
}

// read reads what fd has, into room that the next read uses again. Nothing, and
// no error, means that there is nothing yet.
func (p *poller) read(fd int) ([]byte, error) {
	n, err := syscall.Read(fd, p.room)
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil, nil
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	return p.room[:n], nil
}

func (p *poller) end() { _ = syscall.Close(p.epoll) }

// openFiles returns how many files this process may have open. The runtime has
// raised the soft limit to the hard one.
func openFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > math.MaxInt32 {
		return 0 // not limited, for all we know
	}
	return int(r.Cur)
}

// nap sleeps for less than timers can: an idle program's are a millisecond late.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&ts, nil) // shorter when interrupted
}
