package socket

import (
	"io"
	"os"
	"sync"
	"syscall"
)

const supported = true

// Read makes one read call on a descriptor that does not block. Its errors are
// of the system: EAGAIN says that there is nothing yet, and no bytes without an
// error that there will not be any more.
func Read(fd uintptr, b []byte) (int, error) {
	n, errno := read(fd, b)
	return n, failed(errno)
}

// Write makes one write call on a descriptor that does not block, with errors
// like Read's.
func Write(fd uintptr, b []byte) (int, error) {
	n, errno := write(fd, b)
	return n, failed(errno)
}

func failed(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// ops hold what one call needs, so that it allocates nothing.
var ops = sync.Pool{New: func() any {
	o := &op{}
	o.tryRead, o.tryWrite = o.read, o.write
	o.tryReadOnce = func(fd uintptr) bool { o.read(fd); return true }
	o.tryWriteOnce = func(fd uintptr) bool { o.write(fd); return true }
	return o
}}

type op struct {
	b     []byte
	n     int
	errno syscall.Errno

	tryRead, tryWrite, tryReadOnce, tryWriteOnce func(fd uintptr) bool
}

func (o *op) read(fd uintptr) bool {
	o.n, o.errno = read(fd, o.b)
	return o.errno != syscall.EAGAIN
}

func (o *op) write(fd uintptr) bool {
	o.n, o.errno = write(fd, o.b)
	return o.errno != syscall.EAGAIN
}

// done gives o back and returns what came of it.
func (o *op) done(name string, err error) (int, error) {
	n, errno := o.n, o.errno
	o.b, o.n, o.errno = nil, 0, 0
	ops.Put(o)
	if err == nil && errno != 0 {
		err = os.NewSyscallError(name, errno)
	}
	return n, err
}

func begin(b []byte) *op {
	o := ops.Get().(*op)
	o.b, o.n, o.errno = b, 0, 0
	return o
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	o := begin(p)
	n, err := o.done("read", c.raw.Read(o.tryRead))
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	written := 0
	for {
		o := begin(p[written:])
		n, err := o.done("write", c.raw.Write(o.tryWrite))
		if written += n; err != nil || written >= len(p) {
			return written, err
		}
	}
}

// ReadNow reads what is there, without waiting: no bytes and no error mean that
// there is nothing yet.
func (c *Conn) ReadNow(p []byte) (int, error) {
	o := begin(p)
	again := false
	err := c.raw.Read(o.tryReadOnce)
	if again = o.errno == syscall.EAGAIN; again {
		o.errno = 0
	}
	n, err := o.done("read", err)
	if n == 0 && err == nil && !again && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// WriteNow writes as much of p as the kernel takes at once, and says how much
// that is.
func (c *Conn) WriteNow(p []byte) (int, error) {
	o := begin(p)
	err := c.raw.Write(o.tryWriteOnce)
	if o.errno == syscall.EAGAIN {
		o.errno = 0
	}
	return o.done("write", err)
}
