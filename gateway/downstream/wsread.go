package downstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"

	inner "github.com/fasthttp/websocket"

	"pepay-gateway/auth"
)

const (
	maxMessage = auth.MaxTokenBytes + 64 // bytes; a token and its wrapping
	maxControl = 125                     // bytes of a control frame, by RFC 6455
)

// Why a client's frames are not read any further.
var (
	errFrame   = errors.New("downstream: frame against RFC 6455")
	errTooLong = errors.New("downstream: message too long")
)

// A frameReader makes messages of what a WebSocket client sends, by RFC 6455,
// section 5. It keeps nothing of a connection between two messages. The zero
// value is ready to use.
type frameReader struct {
	held    []byte // the beginning of a frame of which the rest is yet to come
	message []byte // the fragments of a message so far
	kind    byte   // of that message; 0 when there is none
}

// A clientFrame is one whole message or control frame.
type clientFrame struct {
	kind byte // opcode
	data []byte
}

// read calls f with every message and control frame that p completes, whose
// data is only lent, until f is false. After an error nothing more can be read.
func (r *frameReader) read(p []byte, f func(clientFrame) bool) error {
	if len(r.held) > 0 {
		r.held = append(r.held, p...)
		p = r.held
	}
	whole := len(p)
	for {
		frame, rest, err := r.next(p)
		if err != nil {
			return err
		}
		if rest == nil {
			break
		}
		p = rest
		if frame.kind != 0 && !f(frame) {
			return nil
		}
	}
	switch {
	case len(p) == 0:
		r.held = nil
	case len(p) < whole || len(r.held) == 0:
		r.held = bytes.Clone(p)
	}
	return nil
}

// next reads one frame from p. rest is nil when p does not hold all of it;
// the frame's kind is 0 when its message goes on.
func (r *frameReader) next(p []byte) (frame clientFrame, rest []byte, err error) {
	if len(p) < 2 {
		return clientFrame{}, nil, nil
	}
	final, reserved, opcode := p[0]&0x80 != 0, p[0]&0x70, p[0]&0x0f
	masked, size := p[1]&0x80 != 0, uint64(p[1]&0x7f)
	control := opcode >= inner.CloseMessage
	switch {
	case reserved != 0, !masked:
		return clientFrame{}, nil, errFrame
	case control && (opcode > inner.PongMessage || !final || size > maxControl):
		return clientFrame{}, nil, errFrame
	case !control && opcode > inner.BinaryMessage:
		return clientFrame{}, nil, errFrame
	case !control && (opcode == 0) != (r.kind != 0): // a fragment of nothing, or a message within another
		return clientFrame{}, nil, errFrame
	}
	at := 2
	switch {
	case size == 126 && len(p) >= at+2:
		size, at = uint64(binary.BigEndian.Uint16(p[at:])), at+2
	case size == 127 && len(p) >= at+8:
		size, at = binary.BigEndian.Uint64(p[at:]), at+8
	case size >= 126:
		return clientFrame{}, nil, nil
	}
	if !control && size > uint64(maxMessage-len(r.message)) {
		return clientFrame{}, nil, errTooLong
	}
	end := at + 4 + int(size)
	if len(p) < end {
		return clientFrame{}, nil, nil
	}
	key, data := p[at:at+4], p[at+4:end]
	for i := range data {
		data[i] ^= key[i%4]
	}
	return r.whole(final, control, opcode, data), p[end:], nil
}

// whole returns the message that a frame completes, if it does.
func (r *frameReader) whole(final, control bool, opcode byte, data []byte) clientFrame {
	switch {
	case control || final && r.kind == 0:
		return clientFrame{opcode, data}
	case r.kind == 0:
		r.kind = opcode
	}
	r.message = append(r.message, data...)
	if !final {
		return clientFrame{}
	}
	whole := clientFrame{r.kind, r.message}
	r.kind, r.message = 0, nil
	return whole
}

// closeCode returns the code of a close frame's payload, by RFC 6455, section
// 7.4: CloseNoStatusReceived when there is none.
func closeCode(payload []byte) (int, error) {
	if len(payload) < 2 {
		return inner.CloseNoStatusReceived, nil
	}
	code := int(binary.BigEndian.Uint16(payload))
	assigned := code >= 1000 && code <= 1013 && code != 1004 && code != 1005 && code != 1006
	if !assigned && (code < 3000 || code > 4999) || !utf8.Valid(payload[2:]) {
		return 0, errFrame
	}
	return code, nil
}
