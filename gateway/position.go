package gateway

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// An Epoch is one leadership term: 48 random bits, never reused. It is the fence
// of the log and part of every cursor. Zero is no epoch.
type Epoch uint64

// ParseEpoch reads the 12 hex digits of an epoch.
func ParseEpoch(s string) (Epoch, error) {
	if len(s) != 12 {
		return 0, fmt.Errorf("gateway: epoch of %d characters, want 12", len(s))
	}
	n, err := strconv.ParseUint(s, 16, 48)
	if err != nil {
		return 0, errors.New("gateway: epoch is not hexadecimal")
	}
	return Epoch(n), nil
}

// String returns the 12 hex digits of e.
func (e Epoch) String() string { return fmt.Sprintf("%012x", uint64(e)) }

// A Position is a place in the log: everything up to and including Seq, on the
// timeline of Epoch. The zero Position is the start of a log that does not
// exist yet (empty Redis).
type Position struct {
	Epoch Epoch
	Seq   uint64
}

// IsNone says whether p is the start of a log that does not exist yet.
func (p Position) IsNone() bool { return p.Epoch == 0 }

// CursorKeyBytes is the size of the key that makes cursors opaque.
const CursorKeyBytes = 16

const cursorPrefix = "cur_"

// A CursorCodec turns positions into the opaque cursors clients hold, and back:
// one AES block over epoch (48 bit), seq (64) and a zero check (16). Opaque
// because sequence numbers tell a customer how busy the shop is; it is no
// authorisation, a cursor only selects where to start. Safe for concurrent use.
type CursorCodec struct {
	block cipher.Block
	key   string
}

// NewCursorCodec returns a codec for a key of CursorKeyBytes.
func NewCursorCodec(key string) (*CursorCodec, error) {
	if len(key) != CursorKeyBytes {
		return nil, fmt.Errorf("gateway: cursor key of %d bytes, want %d", len(key), CursorKeyBytes)
	}
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		return nil, fmt.Errorf("gateway: cursor key: %w", err)
	}
	return &CursorCodec{block: block, key: key}, nil
}

// Encode returns the cursor of p: "cur_" and 22 base64url characters. A nil
// codec (no log yet) and the zero position have no cursor: "".
func (c *CursorCodec) Encode(p Position) string {
	if c == nil || p.IsNone() {
		return ""
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[0:], uint64(p.Epoch)<<16|p.Seq>>48)
	binary.BigEndian.PutUint64(b[8:], p.Seq<<16)
	c.block.Encrypt(b[:], b[:])
	var out [26]byte
	copy(out[:], cursorPrefix)
	base64.RawURLEncoding.Encode(out[len(cursorPrefix):], b[:])
	return string(out[:])
}

// Decode reads a cursor. It is false for anything this codec's key did not make.
func (c *CursorCodec) Decode(cursor string) (Position, bool) {
	if c == nil || !LooksLikeCursor(cursor) {
		return Position{}, false
	}
	var b [16]byte
	if _, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(cursor[len(cursorPrefix):])); err != nil {
		return Position{}, false
	}
	c.block.Decrypt(b[:], b[:])
	hi, lo := binary.BigEndian.Uint64(b[0:]), binary.BigEndian.Uint64(b[8:])
	p := Position{Epoch: Epoch(hi >> 16), Seq: hi<<48 | lo>>16}
	if lo&0xffff != 0 || p.IsNone() {
		return Position{}, false
	}
	return p, true
}

// LooksLikeCursor says whether s has the form of a cursor: the prefix and 22
// base64url characters. Whether it names a position is another question.
func LooksLikeCursor(s string) bool {
	if len(s) != len(cursorPrefix)+22 || s[:len(cursorPrefix)] != cursorPrefix {
		return false
	}
	for _, c := range []byte(s[len(cursorPrefix):]) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
