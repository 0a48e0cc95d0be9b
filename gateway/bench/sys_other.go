//go:build !linux

package bench

import (
	"errors"
	"net"
	"time"
)

func adopt(*net.TCPConn) (int, error)        { return -1, errors.ErrUnsupported }
func closeSocket(int)                        {}
func writeSocket(int, []byte) error          { return errors.ErrUnsupported }
func readSocket(int, []byte) ([]byte, error) { return nil, errors.ErrUnsupported }

func openFiles() int { return 0 }

// An alarm is what this system does not have.
type alarm struct{}

func newAlarm() (*alarm, error)          { return nil, errors.New("bench: this needs Linux") }
func (*alarm) close()                    {}
func (*alarm) sleep(time.Duration) error { return errors.ErrUnsupported }
