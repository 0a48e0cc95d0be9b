//go:build !linux

package socket

const supported = false

// ReadNow reads nothing: only waiting is portable.
func (c *Conn) ReadNow([]byte) (int, error) { return 0, nil }

// WriteNow writes nothing: only waiting is portable.
func (c *Conn) WriteNow([]byte) (int, error) { return 0, nil }
