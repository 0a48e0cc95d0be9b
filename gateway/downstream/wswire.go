package downstream

import (
	"encoding/binary"

	inner "github.com/fasthttp/websocket"
)

// appendFrame appends one whole WebSocket message as a server sends it: not
// fragmented, not masked, not compressed. kind is the library's name of its
// opcode.
func appendFrame(dst []byte, kind int, data []byte) []byte {
	dst = append(dst, 0x80|byte(kind))
	switch n := len(data); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, data...)
}

func textFrame(data []byte) []byte {
	return appendFrame(make([]byte, 0, len(data)+10), inner.TextMessage, data)
}

func closeFrame(code int, reason string) []byte {
	if len(reason) > maxCloseReason {
		reason = reason[:maxCloseReason]
	}
	return appendFrame(nil, inner.CloseMessage, inner.FormatCloseMessage(code, reason))
}
