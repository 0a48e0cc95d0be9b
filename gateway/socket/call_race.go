//go:build linux && race

package socket

import (
	"errors"
	"syscall"
)

// The race detector learns from the standard library's calls what happened
// before what.

func read(fd uintptr, b []byte) (int, syscall.Errno) {
	return call(func() (int, error) { return syscall.Read(int(fd), b) })
}

func write(fd uintptr, b []byte) (int, syscall.Errno) {
	return call(func() (int, error) { return syscall.Write(int(fd), b) })
}

func call(f func() (int, error)) (int, syscall.Errno) {
	for {
		n, err := f()
		var errno syscall.Errno
		switch {
		case err == nil:
			return n, 0
		case !errors.As(err, &errno) || errno != syscall.EINTR:
			return 0, errno
		}
	}
}
