package gateway

import (
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const testKey = "0123456789abcdef"

func testCodec(t testing.TB, key string) *CursorCodec {
	t.Helper()
	c, err := NewCursorCodec(key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCursorRoundTrip(t *testing.T) {
	c, other := testCodec(t, testKey), testCodec(t, "fedcba9876543210")
	rapid.Check(t, func(rt *rapid.T) {
		p := Position{Epoch(rapid.Uint64Range(1, 1<<48-1).Draw(rt, "epoch")), rapid.Uint64().Draw(rt, "seq")}
		cur := c.Encode(p)
		if !LooksLikeCursor(cur) {
			rt.Fatalf("LooksLikeCursor(%q) = false, want true", cur)
		}
		if got, ok := c.Decode(cur); got != p || !ok {
			rt.Fatalf("Decode(Encode(%v)) = %v, %v", p, got, ok)
		}
		if got, ok := other.Decode(cur); ok && got == p {
			rt.Fatalf("another key reads %q as %v", cur, got)
		}
	})
}

func TestCursorOfAnotherKeyDoesNotDecode(t *testing.T) {
	c, other := testCodec(t, testKey), testCodec(t, "fedcba9876543210")
	for seq := range uint64(100) {
		if p, ok := other.Decode(c.Encode(Position{7, seq})); ok {
			t.Errorf("another key's cursor decodes to %v, want none", p)
		}
	}
}

func TestCursorsTellNothingOfTheirOrder(t *testing.T) {
	c := testCodec(t, testKey)
	longest := 0
	for seq := range uint64(500) {
		a, b := c.Encode(Position{1, seq})[len(cursorPrefix):], c.Encode(Position{1, seq + 1})[len(cursorPrefix):]
		n := 0
		for n < len(a) && a[n] == b[n] {
			n++
		}
		longest = max(longest, n)
	}
	if longest > 3 { // 1 in 64 shares a character by chance, 1 in 2^24 four
		t.Errorf("two consecutive cursors share a prefix of %d characters, want almost none", longest)
	}
}

func TestCursorRefusals(t *testing.T) {
	c := testCodec(t, testKey)
	good := c.Encode(Position{1, 2})
	flipped := []byte(good)
	flipped[8] ^= 1
	var none *CursorCodec
	if _, ok := none.Decode(good); ok || none.Encode(Position{1, 2}) != "" || c.Encode(Position{}) != "" {
		t.Errorf("a codec or a position that is none has a cursor")
	}
	for _, s := range []string{
		"", "cur_", good[1:], good + "A", " " + good[1:], strings.Replace(good, "cur_", "CUR_", 1),
		"cur_" + strings.Repeat("=", 22), "cur_" + strings.Repeat("\n", 22), good[:25] + "+", string(flipped),
	} {
		if p, ok := c.Decode(s); ok {
			t.Errorf("Decode(%q) = %v, want none", s, p)
		}
	}
	for _, key := range []string{"", "short", testKey + "x"} {
		if _, err := NewCursorCodec(key); err == nil {
			t.Errorf("NewCursorCodec of %d bytes = nil, want an error", len(key))
		}
	}
}

func FuzzCursor(f *testing.F) {
	c, err := NewCursorCodec(testKey)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"", "cur_", c.Encode(Position{1, 0}), c.Encode(Position{1<<48 - 1, 1<<64 - 1}),
		"cur_AAAAAAAAAAAAAAAAAAAAAA", "cur_AAAAAAAAAAAAAAAAAAAAAB", "evt_1-1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, ok := c.Decode(s); ok && c.Encode(p) != s {
			t.Errorf("%q decodes to %v, which encodes to %q", s, p, c.Encode(p))
		}
	})
}

func TestEpochText(t *testing.T) {
	for range 100 {
		e := Epoch(rand.Uint64N(1 << 48))
		if got, err := ParseEpoch(e.String()); got != e || err != nil {
			t.Errorf("ParseEpoch(%s) = %v, %v, want %v", e, got, err, e)
		}
	}
	for _, s := range []string{"", "1", "00000000000g", "0000000000000", "-00000000001"} {
		if _, err := ParseEpoch(s); err == nil {
			t.Errorf("ParseEpoch(%q) = nil, want an error", s)
		}
	}
}
