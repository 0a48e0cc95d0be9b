package bench

import (
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// newAccount is a fleet of one connected client, whose events are those with odd
// numbers.
func newAccount(t Transport) (*fleet, *client) {
	f := &fleet{
		script: newScript(time.Now()), keyOf: func(n int64) int { return int(n % 2) }, began: time.Now(),
		due: []int64{0}, published: map[int]int64{}, receivers: map[int]int64{}, latency: hdrhistogram.New(1_000, 1_000_000, 3),
	}
	c := &client{fleet: f, key: 1, transport: t}
	f.clients = []*client{c}
	f.liveLocked(c)
	return f, c
}

func TestAccountTellsWhatWentWrong(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  []int64 // of five events published, three of them the client's
		want tally
	}{
		{"all", []int64{1, 3, 5}, tally{}},
		{"lost", []int64{1, 5}, tally{Lost: 1}},
		{"nothing", nil, tally{Lost: 3}},
		{"twice", []int64{1, 3, 3, 5}, tally{Duplicates: 1}},
		{"out of order", []int64{1, 5, 3}, tally{Disorder: 1, Lost: 1}},
		{"another's", []int64{1, 2, 3, 5}, tally{Foreign: 1}},
	} {
		for _, transport := range []Transport{WS, SSE} {
			f, c := newAccount(transport)
			for range 5 {
				if _, _, err := f.announce(time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range tt.got {
				b := serverFrame(f.script.event(n, int(n%2)))
				if transport == SSE {
					b = []byte("id: cur_x\ndata: " + string(f.script.event(n, int(n%2))) + "\n\n")
				}
				// In pieces, as the kernel may have it.
				for len(b) > 0 {
					piece := b[:min(97, len(b))]
					if err := c.feedLocked(piece, 1); err != nil {
						t.Fatal(err)
					}
					b = b[len(piece):]
				}
			}
			if got := f.reconcile(); got != tt.want {
				t.Errorf("%s over %s: %v, want %v", tt.name, transport, got, tt.want)
			}
		}
	}
}

func TestClientKeepsWhereItWouldResume(t *testing.T) {
	f, c := newAccount(WS)
	feed := func(data []byte) {
		t.Helper()
		if err := c.feedLocked(serverFrame(data), 1); err != nil {
			t.Fatal(err)
		}
	}
	feed([]byte(`{"object":"ws_control","type":"tip","cursor":"cur_1"}`))
	if got, want := c.cursor, "cur_1"; got != want {
		t.Errorf("cursor after a tip = %q, want %q", got, want)
	}
	feed(f.script.event(1, 1))
	if got, want := c.cursor, f.script.id(1); got != want {
		t.Errorf("cursor after an event = %q, want %q", got, want)
	}
	feed([]byte(`{"object":"ws_control","type":"reset","reason":"unknown"}`))
	if got, want := f.reconcile().Resets, int64(1); got != want {
		t.Errorf("resets = %d, want %d", got, want)
	}
	for _, end := range []string{
		`{"object":"ws_error","code":"TOKEN_INVALID","message":"no"}`,
		`{"object":"ws_control","type":"disconnect","code":1012}`,
	} {
		if err := c.feedLocked(serverFrame([]byte(end)), 1); err == nil {
			t.Errorf("%s did not end the connection", end)
		}
	}
}
