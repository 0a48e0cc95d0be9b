package bench

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestFramesAreReadHoweverTheyAreCut(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 600, 65535, 65536, 100_000} {
		data := bytes.Repeat([]byte("x"), size)
		frame := serverFrame(data)
		for _, cut := range []int{0, 1, 2, 3, 9, len(frame) / 2, len(frame) - 1} {
			if _, n, err := nextFrame(frame[:min(cut, len(frame)-1)]); n != 0 || err != nil {
				t.Errorf("%d bytes, cut at %d: n = %d, %v, want 0, nil", size, cut, n, err)
			}
		}
		m, n, err := nextFrame(append(frame, "more"...))
		if err != nil || n != len(frame) || m.opcode != opText || !bytes.Equal(m.data, data) {
			t.Errorf("%d bytes: n = %d, opcode %d, %v, want the frame of %d bytes", size, n, m.opcode, err, len(frame))
		}
	}
}

func TestBlocksAreReadFieldByField(t *testing.T) {
	m, n, err := nextBlock([]byte("id: cur_1\nevent: control\ndata: {\"a\":1}\n\nid: 2"))
	if err != nil || n != 40 || string(m.id) != "cur_1" || string(m.event) != "control" || string(m.data) != `{"a":1}` {
		t.Errorf("nextBlock = %q %q %q, %d, %v", m.id, m.event, m.data, n, err)
	}
	if _, n, err := nextBlock([]byte("data: {}\n")); n != 0 || err != nil {
		t.Errorf("half a block: n = %d, %v, want 0, nil", n, err)
	}
}

func TestEventsAreSizedAndNumbered(t *testing.T) {
	s := newScript(time.Now())
	for _, n := range []int64{1, 42, maxEvents} {
		ev := s.event(n, 9999)
		if got, want := len(ev), eventBytes; got != want {
			t.Errorf("event %d has %d bytes, want %d", n, got, want)
		}
		var v struct {
			ID   string `json:"id"`
			Data struct {
				Object struct {
					ID string `json:"id"`
				} `json:"object"`
			} `json:"data"`
		}
		if err := json.Unmarshal(ev, &v); err != nil {
			t.Fatalf("event %d: %v", n, err)
		}
		if v.ID != s.id(n) || v.Data.Object.ID != s.subject(9999) {
			t.Errorf("event %d is %q of %q, want %q of %q", n, v.ID, v.Data.Object.ID, s.id(n), s.subject(9999))
		}
		if got, ok := s.number(ev); !ok || got != n {
			t.Errorf("number = %d, %t, want %d", got, ok, n)
		}
	}
	other := newScript(time.Now().Add(time.Hour))
	for _, foreign := range []string{"", "{}", string(other.event(1, 1)), string(s.prefix) + "12x456789"} {
		if n, ok := s.number([]byte(foreign)); ok {
			t.Errorf("number of %.40q = %d, want none", foreign, n)
		}
	}
}

// Whatever a server sends, the readers neither panic nor read beyond it, and
// what is cut in two says the same as in one piece.
func FuzzServerBytes(f *testing.F) {
	f.Add([]byte("\x81\x05hello\x89\x00\x88\x02\x03\xe8"), 3)
	f.Add([]byte("id: a\ndata: b\n\n: c\n\n"), 9)
	f.Add([]byte("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		for name, next := range map[string]func([]byte) (message, int, error){"frame": nextFrame, "block": nextBlock} {
			all := messages(next, b, nil)
			cut := min(max(cut, 0), len(b))
			if got := messages(next, b[:cut], b[cut:]); got != all {
				t.Errorf("%s: cut at %d: %q, want %q", name, cut, got, all)
			}
		}
	})
}

func messages(next func([]byte) (message, int, error), first, second []byte) string {
	var out strings.Builder
	rest := []byte(nil)
	for _, part := range [][]byte{first, second} {
		rest = append(rest, part...)
		for {
			m, n, err := next(rest)
			if n == 0 || err != nil {
				break
			}
			out.WriteString(string(m.id) + "|" + string(m.event) + "|" + string(m.data) + ";")
			rest = rest[n:]
		}
	}
	return out.String()
}
