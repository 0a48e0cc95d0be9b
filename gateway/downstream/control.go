package downstream

import "encoding/json"

// The controls tell a client how its stream is doing. They are the same object
// on both transports; design decides their names.

type control struct {
	Object string `json:"object"`
	Type   string `json:"type"`
}

func controlOf(kind string) control { return control{"ws_control", kind} }

// A cursorText is a cursor on the wire: null when there is none to keep.
type cursorText string

// MarshalJSON implements json.Marshaler.
func (c cursorText) MarshalJSON() ([]byte, error) {
	if c == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(c))
}

type helloControl struct {
	control
	Resumed          bool       `json:"resumed"`
	Cursor           cursorText `json:"cursor"`
	Status           string     `json:"status"`
	Reason           string     `json:"reason,omitempty"`
	SinceMS          int64      `json:"since_ms,omitempty"` // as in statusControl; zero while live
	HeartbeatMS      int64      `json:"heartbeat_ms"`
	SessionExpiresAt int64      `json:"session_expires_at"` // unix seconds
	ScopeID          string     `json:"scope_id"`
}

type snapshotControl struct {
	control
	Count     int  `json:"count"`
	Complete  bool `json:"complete"`
	Truncated bool `json:"truncated"`
}

type resetControl struct {
	control
	Reason string `json:"reason"`
}

// cursorControl is tip and replay_complete.
type cursorControl struct {
	control
	Cursor cursorText `json:"cursor"`
}

type statusControl struct {
	control
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	SinceMS int64  `json:"since_ms"` // unix milliseconds at which the status began
}

// sessionControl is token_expiring and token_accepted.
type sessionControl struct {
	control
	SessionExpiresAt int64 `json:"session_expires_at"` // unix seconds
}

type disconnectControl struct {
	control
	Code      int   `json:"code"`
	Reconnect bool  `json:"reconnect"`
	RetryMS   int64 `json:"retry_ms"`
}

func disconnectOf(e *ending) disconnectControl {
	return disconnectControl{controlOf("disconnect"), e.code, true, e.retry.Milliseconds()}
}

func encodeControl(v any) []byte {
	out, _ := json.Marshal(v) // numbers, booleans and strings always marshal
	return out
}
