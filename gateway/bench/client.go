package bench

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// A Transport is how a client is connected.
type Transport string

// The transports.
const (
	WS  Transport = "ws"
	SSE Transport = "sse"
)

// A client is one simulated browser. It outlives its connections: what it has
// received is reconciled over all of them.
type client struct {
	fleet     *fleet
	index     int
	key       int // whose events it gets
	transport Transport
	token     string // what its target gave it to connect with
	small     bool   // it has room for little, so that it is soon seen not to read

	// Guarded by the fleet's lock.
	fd      int    // -1 while not connected
	local   string // its address
	live    bool
	ended   error  // why the server ended the last connection
	pending []byte // of a message that has not come whole
	cursor  string // where it would resume
	status  string // of the stream, as last told
	base    int64  // events published for its key before it was first live
	opened  bool   // it was live once
	slow    bool   // it has stopped reading, and is not reconciled
	last    int64  // newest event received
	got     int64  // events received, each once
	tally
}

// A tally is what went wrong.
type tally struct {
	Lost       int64 `json:"lost"`
	Duplicates int64 `json:"duplicates"`
	Disorder   int64 `json:"disorder"`
	Foreign    int64 `json:"foreign"` // events that are another's
	Resets     int64 `json:"resets"`  // continuity was denied
	Cut        int64 `json:"cut"`     // connections that the server ended
}

func (t *tally) add(o tally) {
	t.Lost += o.Lost
	t.Duplicates += o.Duplicates
	t.Disorder += o.Disorder
	t.Foreign += o.Foreign
	t.Resets += o.Resets
	t.Cut += o.Cut
}

func (t tally) clean() bool { return t == tally{} }

func (t tally) String() string {
	return fmt.Sprintf("%d lost, %d duplicates, %d out of order, %d of others, %d resets, %d connections cut",
		t.Lost, t.Duplicates, t.Disorder, t.Foreign, t.Resets, t.Cut)
}

// feedLocked takes bytes as they came, at now, in nanoseconds since the fleet
// began. An error ends the connection.
func (c *client) feedLocked(b []byte, now int64) error {
	if len(c.pending) > 0 {
		c.pending = append(c.pending, b...)
		b = c.pending
	}
	next := nextFrame
	if c.transport == SSE {
		next = nextBlock
	}
	for {
		m, n, err := next(b)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := c.takeLocked(m, now); err != nil {
			return err
		}
		b = b[n:]
	}
	if len(b) == 0 {
		c.pending = nil // most have nothing waiting, and there are many
		return nil
	}
	c.pending = append(c.pending[:0:0], b...)
	return nil
}

func (c *client) takeLocked(m message, now int64) error {
	switch m.opcode {
	case opPing:
		return writeSocket(c.fd, clientFrame(opPong, m.data))
	case opClose:
		code := 0
		if len(m.data) >= 2 {
			code = int(binary.BigEndian.Uint16(m.data))
		}
		return fmt.Errorf("closed with %d %q", code, m.data[min(2, len(m.data)):])
	case opText:
	default:
		return nil
	}
	if len(m.id) > 0 {
		c.cursor = string(m.id)
	}
	if n, ok := c.fleet.script.number(m.data); ok {
		c.eventLocked(n, now)
		return nil
	}
	if bytes.HasPrefix(m.data, []byte(`{"object":"ws_`)) {
		return c.controlLocked(m.data)
	}
	return nil // somebody else's event, of the running gateway
}

func (c *client) eventLocked(n, now int64) {
	f := c.fleet
	if f.keyOf(n) != c.key {
		c.Foreign++
		return
	}
	switch {
	case n == c.last:
		c.Duplicates++
		return
	case n < c.last:
		c.Disorder++
		return
	}
	c.last = n
	c.got++
	if c.transport == WS {
		c.cursor = f.script.id(n)
	}
	if !c.slow {
		f.deliveredLocked(n, now)
	}
}

// A controlFrame is what a client looks at in a control.
type controlFrame struct {
	Object  string `json:"object"`
	Type    string `json:"type"`
	Cursor  string `json:"cursor"`
	Status  string `json:"status"`
	Code    any    `json:"code"`
	Message string `json:"message"`
}

func (c *client) controlLocked(data []byte) error {
	var f controlFrame
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("a control that is no JSON: %w", err)
	}
	if f.Object == "ws_error" {
		return fmt.Errorf("refused: %v: %s", f.Code, f.Message)
	}
	if f.Cursor != "" {
		c.cursor = f.Cursor
	}
	if f.Status != "" {
		c.status = f.Status
	}
	switch f.Type {
	case "replay_complete":
		c.fleet.liveLocked(c)
	case "reset":
		c.Resets++
	case "disconnect":
		return fmt.Errorf("sent away with %v", f.Code)
	}
	return nil
}
