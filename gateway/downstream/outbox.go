package downstream

import (
	"io"
	"sync"
)

// joinedBytes is when frames that wait for one connection are written at the
// latest; few writes are larger.
const joinedBytes = 32 << 10

// joinedBuffers are for the moments in which more than one frame waits for a
// connection; hardly any connection has one.
var joinedBuffers = sync.Pool{New: func() any { return new(make([]byte, 0, joinedBytes+4<<10)) }}

// An outbox joins the frames that are ready for one connection into one write.
// It never waits for more. A single frame is shared by all its receivers and is
// not copied.
type outbox struct {
	first  []byte
	joined *[]byte // first and what came after it; nil while there is nothing more
}

// add takes b, which must not change any more, and says whether it is time to
// flush.
func (o *outbox) add(b []byte) (full bool) {
	switch {
	case o.first == nil:
		o.first = b
		return len(b) >= joinedBytes
	case o.joined == nil:
		o.joined = joinedBuffers.Get().(*[]byte)
		*o.joined = append((*o.joined)[:0], o.first...)
	}
	*o.joined = append(*o.joined, b...)
	return len(*o.joined) >= joinedBytes
}

func (o *outbox) empty() bool { return o.first == nil }

// flush writes what is there.
func (o *outbox) flush(to io.Writer) error {
	if o.joined == nil {
		b := o.first
		o.first = nil
		_, err := to.Write(b)
		return err
	}
	joined := o.joined
	o.first, o.joined = nil, nil
	_, err := to.Write(*joined)
	if cap(*joined) <= 4*joinedBytes { // one grown by a huge event is not kept
		joinedBuffers.Put(joined)
	}
	return err
}
