//go:build !linux

package socket

import "errors"

const supported = false

// ReadNow reads nothing: only waiting is portable.
func (c *Conn) ReadNow([]byte) (int, error) { return 0, nil }

// WriteNow writes nothing: only waiting is portable.
func (c *Conn) WriteNow([]byte) (int, error) { return 0, nil }

// A Poller is what this system does not have.
type Poller struct{}

// NewPoller returns an error: a Poller needs Linux.
func NewPoller(int) (*Poller, error) { return nil, errors.New("socket: a poller needs Linux") }

// Close does nothing.
func (*Poller) Close() error { return nil }

// Add fails.
func (*Poller) Add(uintptr, int32) error { return errors.ErrUnsupported }

// Remove fails.
func (*Poller) Remove(uintptr) error { return errors.ErrUnsupported }

// Wait fails.
func (*Poller) Wait() ([]int32, error) { return nil, errors.ErrUnsupported }
