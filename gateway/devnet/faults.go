package devnet

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
)

// The error bodies of Refusal.Body. The API's documentation shows three.
const (
	BodyNested = "nested" // {"success":false,"error":{"code","message"}}, the default
	BodyFlat   = "flat"   // {"error","code"}
	BodyLegacy = "legacy" // {"success":false,"message","error_code","retry_after"}
	BodyText   = "text"   // not JSON
	BodyEmpty  = "empty"  // nothing at all
)

// The entries of Faults.Unknown.
const (
	UnknownType   = "type"   // an event of an unknown type
	UnknownStatus = "status" // an event with an unknown status
	UnknownObject = "object" // a frame with an unknown top-level object, which is no event
)

// Faults are the switches that make a devnet misbehave. The zero value is a
// well-behaved one.
type Faults struct {
	Duplicate      int `json:"duplicate,omitempty"`        // send every live event this many times more
	Shuffle        int `json:"shuffle,omitempty"`          // send each stream's frames in shuffled groups of up to this many
	Drop           int `json:"drop,omitempty"`             // record, but do not send, the next so many events; negative: all
	CloseAfter     int `json:"close_after,omitempty"`      // cut each stream, without close frame, once it was sent this many frames
	CloseMidReplay int `json:"close_mid_replay,omitempty"` // cut each stream after this many frames of a longer replay
	Retention      int `json:"retention,omitempty"`        // newest events a stream can replay, if fewer; negative: none
	RESTRetention  int `json:"rest_retention,omitempty"`   // newest events REST lists, if fewer; negative: none

	Mint *Refusal `json:"mint_status,omitempty"` // refuse mints
	WS   *Refusal `json:"ws_status,omitempty"`   // refuse handshakes
	REST *Refusal `json:"rest_status,omitempty"` // refuse reads of events, orders and invoices

	WSError         *Ending `json:"ws_error,omitempty"`          // accept new streams, then ws_error and close
	AcceptThenClose *Ending `json:"accept_then_close,omitempty"` // accept new streams, then close

	RESTDelay      int `json:"rest_delay_ms,omitempty"`      // answer those reads this much later
	RESTVisibility int `json:"rest_visibility_ms,omitempty"` // REST knows an event this much later than streams

	ExpiredTokens bool `json:"expired_tokens,omitempty"` // mint tokens that have already expired
	Minimal       bool `json:"minimal,omitempty"`        // events have the short documented form
	ISOExpires    bool `json:"iso_expires,omitempty"`    // mint says expires_at in ISO 8601
	ISOTimestamps bool `json:"iso_timestamps,omitempty"` // so do orders and invoices with their times
	Silent        bool `json:"silent,omitempty"`         // streams carry nothing, not even pongs; what was due is lost

	Unknown []string `json:"unknown,omitempty"` // before each event, send these unknown things too
}

// A Refusal answers requests with an error status.
type Refusal struct {
	Status     int    `json:"status"`                // 400–599
	Count      int    `json:"count,omitempty"`       // that many times, then no more; 0: until reset
	RetryAfter string `json:"retry_after,omitempty"` // value of the Retry-After header; empty: no header
	Body       string `json:"body,omitempty"`        // one of the Body constants
}

// An Ending is how a stream ends. The zero Ending drops the connection without
// a close frame.
type Ending struct {
	CloseCode int    `json:"close_code,omitempty"` // of the close frame; 0 sends none
	Code      string `json:"code,omitempty"`       // of a ws_error frame before it; empty sends none
	Message   string `json:"message,omitempty"`
	HalfOpen  bool   `json:"half_open,omitempty"` // do not end the stream: from now on it carries nothing, while the connection stays
	Count     int    `json:"count,omitempty"`     // as a fault, that many times; 0: until reset
}

// clone copies f so that the copy can be changed.
func (f *Faults) clone() *Faults {
	c := *f
	c.Mint, c.WS, c.REST = clonePtr(f.Mint), clonePtr(f.WS), clonePtr(f.REST)
	c.WSError, c.AcceptThenClose = clonePtr(f.WSError), clonePtr(f.AcceptThenClose)
	c.Unknown = slices.Clone(f.Unknown)
	return &c
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func (f *Faults) validate() error {
	for _, r := range []*Refusal{f.Mint, f.WS, f.REST} {
		if r != nil && (r.Status < 400 || r.Status > 599) {
			return invalid("status of a refusal must be 400 to 599")
		}
	}
	for _, kind := range f.Unknown {
		if kind != UnknownType && kind != UnknownStatus && kind != UnknownObject {
			return invalid("unknown must list type, status or object")
		}
	}
	return nil
}

// decodeStrict reads one JSON value and refuses fields that do not exist, so
// that a mistyped switch does not go unnoticed.
func decodeStrict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil && err != io.EOF {
		return invalid("body: %v", err)
	}
	return nil
}

// Faults returns the switches as they are now; counts have been used up as far
// as they were.
func (s *Server) Faults() Faults { return *s.faults.Load().clone() }

// SetFaults replaces all switches. An invalid setting changes nothing and is
// ErrInvalid.
func (s *Server) SetFaults(f Faults) error {
	if err := f.validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.Store(f.clone())
	return nil
}

// mergeFaults changes the switches named in a JSON object.
func (s *Server) mergeFaults(patch []byte) (Faults, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults.Load().clone()
	if err := decodeStrict(patch, f); err != nil {
		return Faults{}, err
	}
	if err := f.validate(); err != nil {
		return Faults{}, err
	}
	s.faults.Store(f)
	return *f.clone(), nil
}

// takeRefusal returns the refusal that pick selects, if it is on, and counts
// it as used.
func (s *Server) takeRefusal(pick func(*Faults) **Refusal) *Refusal {
	if *pick(s.faults.Load()) == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults.Load().clone()
	p := pick(f)
	r := clonePtr(*p)
	if r == nil {
		return nil
	}
	if spend(&(*p).Count) {
		*p = nil
	}
	s.faults.Store(f)
	return r
}

// takeEndingLocked returns how a stream that was just accepted ends at once,
// or nil.
func (s *Server) takeEndingLocked() *Ending {
	f := s.faults.Load().clone()
	p := &f.WSError
	if *p == nil {
		p = &f.AcceptThenClose
	}
	e := clonePtr(*p)
	if e == nil {
		return nil
	}
	if p == &f.WSError && e.Code == "" {
		e.Code = "INTERNAL_SERVER_ERROR"
	}
	if spend(&(*p).Count) {
		*p = nil
	}
	s.faults.Store(f)
	return e
}

// takeDropLocked says whether the event at hand is one that Drop swallows.
func (s *Server) takeDropLocked() bool {
	f := s.faults.Load()
	if f.Drop == 0 {
		return false
	}
	if f.Drop > 0 {
		f = f.clone()
		f.Drop--
		s.faults.Store(f)
	}
	return true
}

// spend uses up one of count and says whether that was the last; 0 is never
// used up.
func spend(count *int) bool {
	if *count == 0 {
		return false
	}
	*count--
	return *count <= 0
}

// retained is the retention that limit and fault allow together.
func retained(limit, fault int) int {
	switch {
	case fault < 0:
		return 0
	case fault > 0:
		return min(limit, fault)
	}
	return limit
}
