package downstream

import (
	"net"
	"sync"
	"time"
)

const (
	// writeTimeout is for a piece of at most joinedBytes that the client does not
	// take at once, and writeLongest for all of it: a large event may come over a
	// slow line, but not for longer than clients wait for a sign of life.
	writeTimeout = 10 * time.Second
	writeLongest = 30 * time.Second
)

// joinedBuffers are for the moments in which more than one frame waits for a
// connection; hardly any connection has one.
var joinedBuffers = sync.Pool{New: func() any { return new(make([]byte, 0, joinedBytes+4<<10)) }}

// An outbox joins the frames that are ready for one connection into one write.
// It never waits for more. A single frame is shared by all its receivers and is
// not copied.
type outbox struct {
	first  []byte
	joined *[]byte // first and what came after it; nil while there is nothing more
	sent   int     // bytes of either
	failed bool    // within a frame, perhaps: what follows would be read as its rest
}

// add takes b, which must not change any more.
func (o *outbox) add(b []byte) {
	switch {
	case o.first == nil:
		o.first = b
		return
	case o.joined == nil:
		o.joined = joinedBuffers.Get().(*[]byte)
		*o.joined = append((*o.joined)[:0], o.first[o.sent:]...)
		o.sent = 0
	}
	*o.joined = append(*o.joined, b...)
}

// waiting is how many bytes wait.
func (o *outbox) waiting() int { return len(o.bytes()) - o.sent }

func (o *outbox) bytes() []byte {
	if o.joined != nil {
		return *o.joined
	}
	return o.first
}

// flush writes what waits. Unless it may block, for at most writeLongest, it
// returns errWouldBlock when the connection does not take all of it now. After
// one that failed it writes nothing more.
func (o *outbox) flush(to net.Conn, block bool) error {
	b := o.bytes()
	if len(b) == 0 {
		return nil
	}
	if o.failed {
		o.clear()
		return errBroken
	}
	n, err := 0, error(nil)
	if c, ok := to.(*clientConn); ok && c.sock != nil {
		n, err = c.sock.WriteNow(b[o.sent:])
	}
	if o.sent += n; err == nil && o.sent < len(b) {
		if !block {
			return errWouldBlock
		}
		err = writeWaiting(to, b[o.sent:])
	}
	o.clear()
	o.failed = err != nil
	return err
}

func (o *outbox) clear() {
	if o.joined != nil && cap(*o.joined) <= 4*joinedBytes { // one grown by a huge event is not kept
		joinedBuffers.Put(o.joined)
	}
	o.first, o.joined, o.sent = nil, nil, 0
}

// writeWaiting writes b, waiting for the client to take it.
func writeWaiting(to net.Conn, b []byte) error {
	longest := time.Now().Add(writeLongest)
	var err error
	for len(b) > 0 && err == nil {
		deadline := time.Now().Add(writeTimeout)
		if deadline.After(longest) {
			deadline = longest
		}
		if err = to.SetWriteDeadline(deadline); err != nil {
			return err
		}
		n := min(len(b), joinedBytes)
		_, err = to.Write(b[:n])
		b = b[n:]
	}
	_ = to.SetWriteDeadline(time.Time{}) // fails only when closed
	return err
}
