package bench

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"pepay-gateway/gateway/socket"
)

// What the clients' connections and the publisher's clock ask of the system. The
// runtime is not told of calls that do not block: each time it has slept it would
// wake its watchdog for them, which takes the processor from the server beside.

// adopt takes the socket out of conn, which is closed, and returns it: with
// thousands of them the runtime need not watch each.
func adopt(conn *net.TCPConn) (int, error) {
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

func closeSocket(fd int) { _ = syscall.Close(fd) } // nothing is left to lose

// writeSocket sends a few bytes; a full socket is an error.
func writeSocket(fd int, b []byte) error {
	_, err := socket.Write(uintptr(fd), b)
	return err
}

// readSocket reads what fd has. Nothing, and no error, means that there is
// nothing yet.
func readSocket(fd int, room []byte) ([]byte, error) {
	n, err := socket.Read(uintptr(fd), room)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return nil, nil
	case err == nil && n == 0:
		return nil, io.EOF
	}
	return room[:n], err
}

// openFiles returns how many files this process may have open. The runtime has
// raised the soft limit to the hard one.
func openFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > math.MaxInt32 {
		return 0 // not limited, for all we know
	}
	return int(r.Cur)
}

// An alarm sleeps for less than timers can, which are a millisecond late in an
// idle program, and takes no thread for it. For one goroutine.
type alarm struct {
	file *os.File // a timerfd
	raw  syscall.RawConn

	rung  [8]byte
	errno error
	ring  func(fd uintptr) bool
}

func newAlarm() (*alarm, error) {
	const monotonic, flags = 1, syscall.O_CLOEXEC | syscall.O_NONBLOCK // TFD_CLOEXEC, TFD_NONBLOCK
	fd, _, errno := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, monotonic, flags, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("timerfd_create", errno)
	}
	a := &alarm{file: os.NewFile(fd, "timerfd")}
	var err error
	if a.raw, err = a.file.SyscallConn(); err != nil {
		_ = a.file.Close()
		return nil, err
	}
	a.ring = func(fd uintptr) bool {
		_, a.errno = socket.Read(fd, a.rung[:])
		return !errors.Is(a.errno, syscall.EAGAIN)
	}
	return a, nil
}

func (a *alarm) close() { _ = a.file.Close() }

// sleep returns after d, which is positive.
func (a *alarm) sleep(d time.Duration) error {
	spec := [2]syscall.Timespec{1: syscall.NsecToTimespec(d.Nanoseconds())} // once, and then
	var errno syscall.Errno
	err := a.raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	})
	switch {
	case err != nil:
		return err
	case errno != 0:
		return os.NewSyscallError("timerfd_settime", errno)
	}
	if err := a.raw.Read(a.ring); err != nil {
		return err
	}
	return a.errno
}
