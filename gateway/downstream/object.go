package downstream

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// parseObject splits a JSON object into its members, undecoded. It refuses
// names that occur twice: parsers disagree about which one counts.
func parseObject(raw []byte) (map[string]json.RawMessage, bool) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	members := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, false
		}
		var value json.RawMessage
		if _, twice := members[name]; twice || d.Decode(&value) != nil {
			return nil, false
		}
		members[name] = value
	}
	return members, true
}

// parseString reads a JSON string and nothing else.
func parseString(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// parseRequest reads a client's message: {"type":"ping"}, or {"type":"token",
// "token":"…"}. False for everything else.
func parseRequest(data []byte) (request, bool) {
	o, ok := parseObject(data)
	if !ok {
		return request{}, false
	}
	kind, ok := parseString(o["type"])
	switch {
	case ok && kind == "ping" && len(o) == 1:
		return request{ping: true}, true
	case ok && kind == "token" && len(o) == 2:
		token, ok := parseString(o["token"])
		return request{token: token}, ok
	}
	return request{}, false
}
