package downstream

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// These cases follow the categories of the Autobahn test suite for WebSocket:
// framing, pings and pongs, reserved bits, opcodes, fragmentation, UTF-8, close,
// limits. They send raw frames and read raw frames, so that they share nothing
// with the library under the server.

// Opcodes and bits of RFC 6455.
const (
	opContinuation, opText, opBinary  = 0x0, 0x1, 0x2
	opClose, opPing, opPong           = 0x8, 0x9, 0xA
	bitFin, bitRSV1, bitRSV2, bitRSV3 = 0x80, 0x40, 0x20, 0x10
	noStatus                          = 1005 // stands for a close frame without a code
)

// A rawFrame is a frame as a client sends it, with everything that can be wrong.
type rawFrame struct {
	bits     byte // instead of FIN, when not 0
	open     bool // FIN is not set
	op       byte
	payload  string
	unmasked bool
	length   uint64  // instead of the payload's, when not 0
	form     int     // bits of the length: 7, 16, 64; 0 is the shortest
	key      [4]byte // of the mask; a fixed one when zero
}

func (f rawFrame) bytes() []byte {
	first := f.op | f.bits
	if f.bits == 0 && !f.open {
		first |= bitFin
	}
	n := uint64(len(f.payload))
	if f.length != 0 {
		n = f.length
	}
	mask := byte(0x80)
	if f.unmasked {
		mask = 0
	}
	out := []byte{first}
	switch {
	case f.form == 64 || f.form == 0 && n > 0xffff:
		out = binary.BigEndian.AppendUint64(append(out, mask|127), n)
	case f.form == 16 || f.form == 0 && n > 125:
		out = binary.BigEndian.AppendUint16(append(out, mask|126), uint16(n))
	default:
		out = append(out, mask|byte(n))
	}
	if f.unmasked {
		return append(out, f.payload...)
	}
	key := f.key
	if key == [4]byte{} {
		key = [4]byte{0x37, 0xfa, 0x21, 0x3d}
	}
	out = append(out, key[:]...)
	for i := range len(f.payload) {
		out = append(out, f.payload[i]^key[i%4])
	}
	return out
}

// text, ping and the like make the frames that most cases need.
func text(s string) rawFrame  { return rawFrame{op: opText, payload: s} }
func ping(s string) rawFrame  { return rawFrame{op: opPing, payload: s} }
func pong(s string) rawFrame  { return rawFrame{op: opPong, payload: s} }
func start(s string) rawFrame { return rawFrame{op: opText, open: true, payload: s} }
func more(s string) rawFrame  { return rawFrame{op: opContinuation, open: true, payload: s} }
func last(s string) rawFrame  { return rawFrame{op: opContinuation, payload: s} }

func closing(code uint16, reason string) rawFrame {
	return rawFrame{op: opClose, payload: string(binary.BigEndian.AppendUint16(nil, code)) + reason}
}

// A rawSocket is a WebSocket of which the test sees every byte.
type rawSocket struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// rawSocket opens a live pepay.v1 stream.
func (r *rig) rawSocket(token string) *rawSocket {
	r.Helper()
	conn, err := net.Dial("tcp", r.addr)
	r.must(err)
	r.Cleanup(func() { _ = conn.Close() })
	r.must(conn.SetDeadline(time.Now().Add(wait)))
	_, err = fmt.Fprintf(conn, "GET %s?snapshot=0&token=%s HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: pepay.v1\r\n\r\n", wsPath, token)
	r.must(err)
	s := &rawSocket{t: r.TB, conn: conn, in: bufio.NewReader(conn)}
	resp, err := http.ReadResponse(s.in, nil)
	r.must(err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		r.Fatalf("status = %d, want 101", resp.StatusCode)
	}
	for {
		op, payload, err := s.read()
		r.must(err)
		if op == opText && strings.Contains(payload, `"replay_complete"`) {
			return s
		}
	}
}

// read reads one frame. What a server must not send is an error.
func (s *rawSocket) read() (op byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, "", err
	}
	if head[0]&0xf0 != bitFin || head[1]&0x80 != 0 {
		return 0, "", fmt.Errorf("server's frame begins with %x, want FIN alone and no mask", head)
	}
	n := uint64(head[1])
	var long [8]byte
	switch n {
	case 126:
		if _, err := io.ReadFull(s.in, long[6:]); err != nil {
			return 0, "", err
		}
		n = binary.BigEndian.Uint64(long[:])
	case 127:
		return 0, "", fmt.Errorf("server's frame is too long for any of these tests")
	}
	data := make([]byte, n)
	_, err = io.ReadFull(s.in, data)
	return head[0] & 0xf, string(data), err
}

// A reaction is what a server does about some frames.
type reaction struct {
	code  int // of its close frame; 0 = the connection lives
	tips  int // text messages that answer a ping message
	pongs []string
}

const lastPing = "still there?"

// react sends data and a last ping, and reads until want has come, or the
// connection's end. A chopped write is one of a byte at a time. A connection that is
// reset before its close frame could be read is an error: its page would see
// 1006, and not why.
func (s *rawSocket) react(frames []rawFrame, chop bool, want reaction) (got reaction, err error) {
	s.t.Helper()
	var data []byte
	for _, f := range append(slices.Clip(frames), ping(lastPing)) {
		data = append(data, f.bytes()...)
	}
	// A client that has said goodbye and talks on may be cut while it does.
	left := slices.ContainsFunc(frames, func(f rawFrame) bool { return f.op == opClose })
	var sending sync.WaitGroup
	defer sending.Wait()
	closed := make(chan struct{}, 1)
	sending.Go(func() {
		for n := len(data); len(data) > 0; data = data[n:] {
			if chop {
				n = 1
			}
			if _, err := s.conn.Write(data[:n]); err != nil {
				return // the server has closed, which the reader sees
			}
		}
		<-closed
		_ = s.conn.(*net.TCPConn).CloseWrite() // the server waits for it
	})
	defer close(closed)
	lives := false
	for {
		op, payload, err := s.read()
		switch {
		case err != nil && got.code == 0:
			_ = s.conn.Close()
			return got, fmt.Errorf("no close frame: %w", err)
		case err == io.EOF, err != nil && left:
			return got, nil
		case err != nil:
			return got, fmt.Errorf("after the close frame: %w", err)
		case got.code != 0:
			return got, fmt.Errorf("a frame of opcode %d after the close", op)
		case op == opClose:
			got.code = noStatus
			if len(payload) >= 2 {
				got.code = int(binary.BigEndian.Uint16([]byte(payload)))
			}
			closed <- struct{}{}
		case op == opPong && payload == lastPing:
			lives = true
		case op == opPong:
			got.pongs = append(got.pongs, payload)
		case strings.Contains(payload, `"type":"tip"`):
			got.tips++
		}
		if want.code == 0 && lives && got.tips >= want.tips {
			return got, nil
		}
	}
}

func TestWebSocketFrames(t *testing.T) {
	const tip = `{"type":"ping"}` // what is answered by a tip
	pad := func(n int) string { return tip + strings.Repeat(" ", n-len(tip)) }
	cat := func(frames ...rawFrame) []rawFrame { return frames }
	token := func(s string) string { return `{"type":"token","token":"` + s + `"}` } // answered by 4401 when it is text at all
	binary125 := strings.Repeat("\xfe\x00", 62) + "\xff"
	each := func(s string) []rawFrame {
		out := cat(start(s[:1]))
		for i := 1; i < len(s)-1; i++ {
			out = append(out, more(s[i:i+1]))
		}
		return append(out, last(s[len(s)-1:]))
	}
	pings := func(n int, f rawFrame) []rawFrame { return slices.Repeat(cat(f), n) }

	tests := []struct {
		name   string
		frames []rawFrame
		code   int // 0: the connection lives
		tips   int
		pongs  []string
	}{
		{"1 framing: a message", cat(text(tip)), 0, 1, nil},
		{"1 framing: 125 bytes", cat(text(pad(125))), 0, 1, nil},
		{"1 framing: 126 bytes", cat(text(pad(126))), 0, 1, nil},
		{"1 framing: 127 bytes", cat(text(pad(127))), 0, 1, nil},
		{"1 framing: 128 bytes", cat(text(pad(128))), 0, 1, nil},
		{"1 framing: the largest message", cat(text(pad(maxMessage))), 0, 1, nil},
		{"1 framing: one byte more", cat(text(pad(maxMessage + 1))), 1009, 0, nil},
		{"1 framing: 65535 bytes", cat(text(pad(65535))), 1009, 0, nil},
		{"1 framing: 65536 bytes", cat(text(pad(65536))), 1009, 0, nil},
		{"1 framing: a length of 2^63-1", cat(rawFrame{op: opText, payload: tip, length: 1<<63 - 1}), 1009, 0, nil},
		{"1 framing: a length of 2^63", cat(rawFrame{op: opText, payload: tip, length: 1 << 63}), 1009, 0, nil},
		{"1 framing: a length of 2^64-1", cat(rawFrame{op: opText, payload: tip, length: 1<<64 - 1}), 1009, 0, nil},
		{"1 framing: not the shortest length, 16 bits", cat(rawFrame{op: opText, payload: tip, form: 16}), 0, 1, nil},
		{"1 framing: not the shortest length, 64 bits", cat(rawFrame{op: opText, payload: tip, form: 64}), 0, 1, nil},
		{"1 framing: an empty text", cat(text("")), 4400, 0, nil},
		{"1 framing: an empty binary", cat(rawFrame{op: opBinary}), 4400, 0, nil},
		{"1 framing: a binary", cat(rawFrame{op: opBinary, payload: tip}), 4400, 0, nil},
		{"1 framing: a text without mask", cat(rawFrame{op: opText, payload: tip, unmasked: true}), 1002, 0, nil},
		{"1 framing: a ping without mask", cat(rawFrame{op: opPing, unmasked: true}), 1002, 0, nil},
		{"1 framing: a close without mask", cat(rawFrame{op: opClose, unmasked: true}), 1002, 0, nil},
		{"1 framing: a good message, then one without mask", cat(ping("a"), rawFrame{op: opText, payload: tip, unmasked: true}), 1002, 0, []string{"a"}},

		{"2 pings: without payload", cat(ping("")), 0, 0, []string{""}},
		{"2 pings: with text", cat(ping("hello")), 0, 0, []string{"hello"}},
		{"2 pings: with other bytes", cat(ping("\x00\xff\xfe\xfd")), 0, 0, []string{"\x00\xff\xfe\xfd"}},
		{"2 pings: 125 bytes", cat(ping(binary125)), 0, 0, []string{binary125}},
		{"2 pings: 126 bytes", cat(ping(strings.Repeat("x", 126))), 1002, 0, nil},
		{"2 pings: a length in 16 bits", cat(rawFrame{op: opPing, payload: "x", form: 16}), 1002, 0, nil},
		{"2 pings: a length in 64 bits", cat(rawFrame{op: opPing, payload: "x", form: 64}), 1002, 0, nil},
		{
			"2 pings: ten, answered in order", cat(ping("0"), ping("1"), ping("2"), ping("3"), ping("4"), ping("5"), ping("6"), ping("7"), ping("8"), ping("9")),
			0, 0,
			[]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
		},
		{"2 pongs: unasked", cat(pong("")), 0, 0, nil},
		{"2 pongs: unasked, with payload", cat(pong("hello")), 0, 0, nil},
		{"2 pongs: unasked, then a ping", cat(pong("hello"), ping("a")), 0, 0, []string{"a"}},
		{"2 pongs: 126 bytes", cat(pong(strings.Repeat("x", 126))), 1002, 0, nil},

		{"3 reserved bits: RSV1, compression was not agreed on", cat(rawFrame{op: opText, bits: bitFin | bitRSV1, payload: tip}), 1002, 0, nil},
		{"3 reserved bits: RSV2", cat(rawFrame{op: opText, bits: bitFin | bitRSV2, payload: tip}), 1002, 0, nil},
		{"3 reserved bits: RSV3", cat(rawFrame{op: opText, bits: bitFin | bitRSV3, payload: tip}), 1002, 0, nil},
		{"3 reserved bits: all", cat(rawFrame{op: opText, bits: bitFin | bitRSV1 | bitRSV2 | bitRSV3, payload: tip}), 1002, 0, nil},
		{"3 reserved bits: of a ping", cat(rawFrame{op: opPing, bits: bitFin | bitRSV1}), 1002, 0, nil},
		{"3 reserved bits: of a close", cat(rawFrame{op: opClose, bits: bitFin | bitRSV3}), 1002, 0, nil},
		{"3 reserved bits: of a continuation", cat(start(`{"type"`), rawFrame{op: opContinuation, bits: bitFin | bitRSV1, payload: `:"ping"}`}), 1002, 0, nil},
		{"3 reserved bits: after a good message", cat(ping("a"), rawFrame{op: opText, bits: bitFin | bitRSV2, payload: tip}), 1002, 0, []string{"a"}},

		{"5 fragments: two", cat(start(tip[:5]), last(tip[5:])), 0, 1, nil},
		{"5 fragments: an empty one first", cat(start(""), last(tip)), 0, 1, nil},
		{"5 fragments: an empty one last", cat(start(tip), last("")), 0, 1, nil},
		{"5 fragments: empty ones between", cat(start(tip[:5]), more(""), more(""), last(tip[5:])), 0, 1, nil},
		{"5 fragments: a byte each", each(tip), 0, 1, nil},
		{"5 fragments: all empty", cat(start(""), more(""), last("")), 4400, 0, nil},
		{"5 fragments: of a binary", cat(rawFrame{op: opBinary, open: true, payload: tip[:5]}, last(tip[5:])), 4400, 0, nil},
		{"5 fragments: a ping between", cat(start(tip[:5]), ping("a"), last(tip[5:])), 0, 1, []string{"a"}},
		{"5 fragments: pings between", cat(start(tip[:5]), ping("a"), more(tip[5:9]), ping("b"), last(tip[9:])), 0, 1, []string{"a", "b"}},
		{"5 fragments: a pong between", cat(start(tip[:5]), pong("a"), last(tip[5:])), 0, 1, nil},
		{"5 fragments: a close between", cat(start(tip[:5]), closing(1000, "")), 1000, 0, nil},
		{"5 fragments: of a ping", cat(rawFrame{op: opPing, open: true, payload: "a"}, last("b")), 1002, 0, nil},
		{"5 fragments: of a pong", cat(rawFrame{op: opPong, open: true, payload: "a"}, last("b")), 1002, 0, nil},
		{"5 fragments: of a close", cat(rawFrame{op: opClose, open: true}), 1002, 0, nil},
		{"5 fragments: a last one without a first", cat(last(tip)), 1002, 0, nil},
		{"5 fragments: a middle one without a first", cat(more(tip)), 1002, 0, nil},
		{"5 fragments: a last one twice", cat(start(tip[:5]), last(tip[5:]), last(tip)), 1002, 1, nil},
		{"5 fragments: a new message before the last", cat(start(tip[:5]), text(tip)), 1002, 0, nil},
		{"5 fragments: a new fragmented one before the last", cat(start(tip[:5]), start(tip[:5])), 1002, 0, nil},
		{"5 fragments: a binary before the last of a text", cat(start(tip[:5]), rawFrame{op: opBinary, payload: tip}), 1002, 0, nil},

		{"6 UTF-8: of several bytes", cat(text(token("κόσμε \U0001F600 \uffff"))), 4401, 0, nil},
		{"6 UTF-8: split within a character", cat(start(token("κ")[:26]), last(token("κ")[26:])), 4401, 0, nil},
		{"6 UTF-8: a lone continuation byte", cat(text(token("\x80"))), 4400, 0, nil},
		{"6 UTF-8: overlong", cat(text(token("\xc0\x80"))), 4400, 0, nil},
		{"6 UTF-8: a surrogate", cat(text(token("\xed\xa0\x80"))), 4400, 0, nil},
		{"6 UTF-8: beyond U+10FFFF", cat(text(token("\xf4\x90\x80\x80"))), 4400, 0, nil},
		{"6 UTF-8: cut short", cat(text(token("\xce"))), 4400, 0, nil},
		{"6 UTF-8: bytes that never occur", cat(text(token("\xfe\xff"))), 4400, 0, nil},
		{"6 UTF-8: bad in the second fragment", cat(start(token("")[:25]), last("\xff\"}")), 4400, 0, nil},

		{"7 close: without a code", cat(rawFrame{op: opClose}), noStatus, 0, nil},
		{"7 close: of one byte", cat(rawFrame{op: opClose, payload: "\x03"}), noStatus, 0, nil},
		{"7 close: with a code", cat(closing(1000, "")), 1000, 0, nil},
		{"7 close: with a reason", cat(closing(1000, "bye")), 1000, 0, nil},
		{"7 close: with a reason of 123 bytes", cat(closing(1000, strings.Repeat("x", 123))), 1000, 0, nil},
		{"7 close: with a reason of 124 bytes", cat(closing(1000, strings.Repeat("x", 124))), 1002, 0, nil},
		{"7 close: with a reason that is not UTF-8", cat(closing(1000, "\xce\xba\xe1\xbd\xb9\xed\xa0\x80")), 1002, 0, nil},
		{"7 close: then a ping", cat(closing(1000, ""), ping("a")), 1000, 0, nil},
		{"7 close: then a message", cat(closing(1000, ""), text(tip)), 1000, 0, nil},
		{"7 close: twice", cat(closing(1000, ""), closing(1001, "")), 1000, 0, nil},
		{"7 close: then what is no frame", cat(closing(1000, ""), rawFrame{op: 0xb, unmasked: true, payload: strings.Repeat("\xff", 100)}), 1000, 0, nil},
		{"7 close: after a bad frame", cat(rawFrame{op: 3}, closing(1000, "")), 1002, 0, nil},

		{"9 limits: fragments that together are too long", cat(start(pad(3000)), last(pad(3000))), 1009, 0, nil},
		{"9 limits: fragments that together just fit", cat(start(pad(3000)), last(strings.Repeat(" ", maxMessage-3000))), 0, 1, nil},
		{"9 limits: pings within the largest message", cat(start(pad(maxMessage)), ping("within"), last("")), 0, 1, []string{"within"}},
		{"9 limits: much behind a bad frame", cat(rawFrame{op: 3}, text(strings.Repeat("x", 1<<20))), 1002, 0, nil},
		{"9 limits: much behind a message too long", cat(text(strings.Repeat("x", 1<<20)), text(strings.Repeat("x", 1<<20))), 1009, 0, nil},
		{"9 limits: much behind a bad message", append(cat(text("x")), pings(1000, ping("a"))...), 4400, 0, nil},
		{"9 limits: much behind a close", cat(closing(1000, ""), text(strings.Repeat("x", 1<<20))), 1000, 0, nil},
		{"9 limits: as many pings as there may be", pings(messagesPerWindow-1, ping("a")), 0, 0, slices.Repeat([]string{"a"}, messagesPerWindow-1)},
		{"9 limits: one ping more", pings(messagesPerWindow+1, ping("a")), 1008, 0, slices.Repeat([]string{"a"}, messagesPerWindow)},
		{"9 limits: as many pongs as there may be", pings(messagesPerWindow-1, pong("a")), 0, 0, nil},
		{"9 limits: one pong more", pings(messagesPerWindow+1, pong("a")), 1008, 0, nil},
		{"9 limits: as many messages as there may be", pings(messagesPerWindow-1, text(tip)), 0, 1, nil},
		{"9 limits: one message more", pings(messagesPerWindow+1, text(tip)), 1008, 1, nil},
		{"9 limits: a message of 10,000 fragments of a byte", append(cat(start(" ")), pings(10_000, more(" "))...), 1008, 0, nil},
		{"9 limits: a message of 10,000 empty fragments", append(cat(start("")), pings(10_000, more(""))...), 1008, 0, nil},
	}
	for _, op := range []byte{0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		tests = append(tests, struct {
			name   string
			frames []rawFrame
			code   int
			tips   int
			pongs  []string
		}{fmt.Sprintf("4 opcodes: %#x is reserved", op), cat(rawFrame{op: op, payload: "x"}), 1002, 0, nil})
	}
	for code, good := range map[uint16]bool{
		0: false, 1: false, 999: false, 1000: true, 1001: true, 1002: true, 1003: true, 1004: false, 1005: false, 1006: false,
		1007: true, 1008: true, 1009: true, 1010: true, 1011: true, 1012: true, 1013: true, 1015: false, 1016: false, 1100: false,
		2000: false, 2999: false, 3000: true, 3999: true, 4000: true, 4999: true, 5000: false, 65535: false,
	} {
		want := 1002
		if good {
			want = int(code)
		}
		tests = append(tests, struct {
			name   string
			frames []rawFrame
			code   int
			tips   int
			pongs  []string
		}{fmt.Sprintf("7 close: code %d", code), cat(closing(code, "")), want, 0, nil})
	}

	r := newRig(t, nil)
	credential := r.token("alice")
	for _, tt := range tests {
		want := reaction{tt.code, tt.tips, tt.pongs}
		size := 0
		for _, f := range tt.frames {
			size += len(f.bytes())
		}
		for _, chop := range []bool{false, true} {
			if chop && size > 256 {
				continue
			}
			got, err := r.rawSocket(credential).react(tt.frames, chop, want)
			if err != nil || got.code != want.code || got.tips != want.tips && want.code == 0 || !slices.Equal(got.pongs, want.pongs) {
				t.Errorf("%s (chopped %v): closed %d, %d tips, pongs %.40q, %v; want %d, %d, %.40q",
					tt.name, chop, got.code, got.tips, got.pongs, err, want.code, want.tips, want.pongs)
			}
		}
	}
	r.until("all have left", func() bool { return r.node.Stats().Subscribers == 0 })
}
