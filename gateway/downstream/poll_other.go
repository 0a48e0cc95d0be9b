//go:build !linux

package downstream

import "errors"

// A poller is what this system does not have: every connection is read by a
// goroutine of its own.
type poller struct{}

func newPoller(func(func())) (*poller, error) {
	return nil, errors.New("downstream: no poller on this system")
}

func (*poller) watch(*clientConn) error { return errors.ErrUnsupported }
func (*poller) forget(*clientConn)      {}
func (*poller) close()                  {}
