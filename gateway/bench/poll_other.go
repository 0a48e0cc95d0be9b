//go:build !linux

package bench

import (
	"errors"
	"net"
	"time"
)

// A poller needs epoll; elsewhere there is none.
type poller struct{}

func newPoller() (*poller, error) { return nil, errors.New("bench: this needs Linux") }

func (*poller) adopt(*net.TCPConn) (int, error) { return -1, errors.ErrUnsupported }
func (*poller) add(int, int) error              { return errors.ErrUnsupported }
func (*poller) ignore(int)                      {}
func (*poller) close(int)                       {}
func (*poller) write(int, []byte) error         { return errors.ErrUnsupported }
func (*poller) wait(func(int)) error            { return errors.ErrUnsupported }
func (*poller) read(int) ([]byte, error)        { return nil, errors.ErrUnsupported }
func (*poller) end()                            {}

func openFiles() int { return 0 }

func nap(time.Duration) {}
