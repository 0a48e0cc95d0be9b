package downstream

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// readFrames reads data cut into pieces of the lengths in cuts, again and again,
// and returns copies of what the reader made of it.
func readFrames(t testing.TB, data []byte, cuts ...int) (got []clientFrame, err error) {
	t.Helper()
	var r frameReader
	take := func(f clientFrame) bool {
		got = append(got, clientFrame{f.kind, bytes.Clone(f.data)})
		return true
	}
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(cuts) > 0 {
			n = min(n, max(cuts[i%len(cuts)], 1))
		}
		piece := bytes.Clone(data[:n]) // the reader may write into it
		data = data[n:]
		if err = r.read(piece, take); err != nil {
			return got, err
		}
		for i := range piece {
			piece[i] ^= 0xff // it is only lent
		}
		if n, most := len(r.held)+len(r.message), maxMessage+6+maxControl; n > most {
			t.Fatalf("the reader keeps %d bytes, want at most %d", n, most)
		}
	}
	if len(got) > 0 && r.kind == 0 && r.message != nil {
		t.Errorf("the reader keeps %d bytes between two messages, want none", len(r.message))
	}
	return got, err
}

func sameFrame(a, b clientFrame) bool { return a.kind == b.kind && bytes.Equal(a.data, b.data) }

// What a client's bytes mean does not depend on how they arrive, and whatever
// they are, the reader keeps no more than the largest message of them.
func FuzzWebSocketFrames(f *testing.F) {
	var all []byte
	for _, frame := range []rawFrame{
		text(`{"type":"ping"}`), start("a"), ping("b"), more(""), last("c"), pong(""), closing(1000, "bye"), {op: opBinary, form: 64, payload: "x"},
	} {
		f.Add(frame.bytes(), []byte{1})
		all = append(all, frame.bytes()...)
	}
	f.Add(all, []byte{3, 1, 7})
	f.Add(rawFrame{op: opText, length: 1<<64 - 1}.bytes(), []byte{2})
	f.Add(append(start(string(make([]byte, maxMessage))).bytes(), all...), []byte{255})
	f.Add(slices.Repeat(more("").bytes(), 100), []byte{5})
	f.Add(rawFrame{op: opPing, bits: bitFin | bitRSV1}.bytes(), []byte{})
	f.Fuzz(func(t *testing.T, data, pieces []byte) {
		cuts := []int{1}
		for _, n := range pieces {
			cuts = append(cuts, int(n))
		}
		want, wantErr := readFrames(t, data)
		got, err := readFrames(t, data, cuts...)
		if err != wantErr || !slices.EqualFunc(got, want, sameFrame) {
			t.Errorf("in pieces: %d frames and %v; want %d and %v, as at once", len(got), err, len(want), wantErr)
		}
		size := 0
		for _, f := range want {
			size += len(f.data)
			if f.kind >= opClose && len(f.data) > maxControl || len(f.data) > maxMessage {
				t.Errorf("a frame of kind %d and %d bytes, want it refused", f.kind, len(f.data))
			}
		}
		if size > len(data) {
			t.Errorf("%d bytes of payload in %d sent", size, len(data))
		}
	})
}

// What clients may send comes out as they meant it, however they fragment it and
// wherever the network cuts it.
func TestReaderGivesBackWhatClientsSend(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		payload := func(label string, most int) string {
			n := rapid.OneOf(rapid.SampledFrom([]int{0, 1, 125, 126, 127, 255, 256, maxMessage - 1, maxMessage}), rapid.IntRange(0, maxMessage)).Draw(rt, label)
			seed := rapid.Uint64().Draw(rt, "bytes")
			b := make([]byte, min(n, most))
			for i := range b {
				seed = seed*6364136223846793005 + 1442695040888963407
				b[i] = byte(seed >> 56)
			}
			return string(b)
		}
		var sent []byte
		var want []clientFrame
		send := func(f rawFrame) {
			copy(f.key[:], payload("key", 4))
			sent = append(sent, f.bytes()...)
		}
		controls := func() {
			for range rapid.IntRange(0, 2).Draw(rt, "controls") {
				f := rawFrame{op: rapid.SampledFrom([]byte{opClose, opPing, opPong}).Draw(rt, "control"), payload: payload("control payload", maxControl)}
				send(f)
				want = append(want, clientFrame{f.op, []byte(f.payload)})
			}
		}
		for range rapid.IntRange(1, 4).Draw(rt, "messages") {
			controls()
			whole := payload("message", maxMessage)
			op := rapid.SampledFrom([]byte{opText, opBinary}).Draw(rt, "opcode")
			left, kind := whole, op
			for fragments := rapid.IntRange(0, 4).Draw(rt, "fragments"); fragments > 0; fragments-- {
				n := rapid.OneOf(rapid.Just(len(left)), rapid.IntRange(0, len(left))).Draw(rt, "fragment")
				send(rawFrame{op: kind, open: true, payload: left[:n]})
				left, kind = left[n:], opContinuation
				controls()
			}
			send(rawFrame{op: kind, payload: left, form: rapid.SampledFrom([]int{0, 64}).Draw(rt, "form")})
			want = append(want, clientFrame{op, []byte(whole)})
		}
		cuts := rapid.SliceOfN(rapid.IntRange(1, 5000), 0, 8).Draw(rt, "cuts")
		got, err := readFrames(t, sent, cuts...)
		if err != nil || !slices.EqualFunc(got, want, sameFrame) {
			rt.Errorf("read %d frames and %v, want the %d sent and nil", len(got), err, len(want))
		}
	})
}
