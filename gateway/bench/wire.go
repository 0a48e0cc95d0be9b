package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// maxMessageBytes bounds one message of a server.
const maxMessageBytes = 8 << 20

// errTooBig says that a server sent a message that nobody expects.
var errTooBig = errors.New("bench: message too big")

// A message is what one WebSocket frame or SSE block carries. Its slices are
// only good until the next one is read.
type message struct {
	opcode byte   // of a WebSocket frame; opText for an SSE block
	id     []byte // of an SSE block
	event  []byte // of an SSE block
	data   []byte
}

// The opcodes of WebSocket frames.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// nextFrame cuts one unmasked WebSocket frame off b. Without a whole one, n is 0.
func nextFrame(b []byte) (m message, n int, err error) {
	if len(b) < 2 {
		return m, 0, nil
	}
	size, head := int(b[1]&0x7f), 2
	switch {
	case size == 126 && len(b) < 4, size == 127 && len(b) < 10:
		return m, 0, nil
	case size == 126:
		size, head = int(binary.BigEndian.Uint16(b[2:])), 4
	case size == 127:
		long := binary.BigEndian.Uint64(b[2:])
		if long > maxMessageBytes {
			return m, 0, errTooBig
		}
		size, head = int(long), 10
	}
	if len(b) < head+size {
		return m, 0, nil
	}
	return message{opcode: b[0] & 0x0f, data: b[head : head+size]}, head + size, nil
}

// nextBlock cuts one Server-Sent Event off b. Without a whole one, n is 0.
func nextBlock(b []byte) (m message, n int, err error) {
	end := bytes.Index(b, []byte("\n\n"))
	if end < 0 {
		if len(b) > maxMessageBytes {
			return m, 0, errTooBig
		}
		return m, 0, nil
	}
	m.opcode = opText
	for line := range bytes.SplitSeq(b[:end], []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			m.data = value // our events have one line
		case "id":
			m.id = value
		case "event":
			m.event = value
		}
	}
	return m, end + 2, nil
}

// clientFrame returns a small masked frame, as clients send it. The mask is
// zero: no proxy is being confused here.
func clientFrame(opcode byte, data []byte) []byte {
	data = data[:min(len(data), 125)] // the most a control frame may carry
	return append([]byte{0x80 | opcode, 0x80 | byte(len(data)), 0, 0, 0, 0}, data...)
}

// serverFrame returns a text frame as servers send it.
func serverFrame(data []byte) []byte {
	b := make([]byte, 0, len(data)+10)
	b = append(b, 0x80|opText)
	switch n := len(data); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, data...)
}
