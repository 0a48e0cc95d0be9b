package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// A seen is one thing that a stream brought, in the order it came.
type seen struct {
	event   string // the event's exact bytes
	eventID string
	control map[string]any
	sseID   string // "" when the block had none
	err     map[string]any
}

// A stream is a client's end of a WebSocket or SSE stream.
type stream struct {
	t      testing.TB
	sse    bool
	proto  string // of SSE, such as HTTP/2.0
	closer io.Closer
	done   chan struct{}

	mu     sync.Mutex
	items  []seen
	lastID string // as EventSource keeps it
	end    error  // once done
}

// openSSE opens an SSE stream as a plain EventSource does.
func openSSE(t testing.TB, rawURL, lastEventID string) *stream {
	t.Helper()
	s, status := dialSSE(t, rawURL, lastEventID)
	if status != http.StatusOK {
		t.Fatalf("SSE: status %d", status)
	}
	return s
}

func dialSSE(t testing.TB, rawURL, lastEventID string) (*stream, int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	// The proxies of the tests sign for themselves.
	transport := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		cancel()
		t.Fatalf("SSE: %v", err)
	}
	s := &stream{t: t, sse: true, proto: resp.Proto, done: make(chan struct{}), closer: closerFunc(func() error { cancel(); return nil }), lastID: lastEventID}
	t.Cleanup(s.close)
	go s.readSSE(resp.Body)
	return s, resp.StatusCode
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// readSSE parses blocks by the WHATWG rules, independently of the server's code.
func (s *stream) readSSE(body io.ReadCloser) {
	defer close(s.done)
	defer func() { _ = body.Close() }()
	r := bufio.NewReaderSize(body, 1<<20)
	var event, data, id string
	var hasID, hasData bool
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			s.mu.Lock()
			s.end = err
			s.mu.Unlock()
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			s.dispatch(event, data, id, hasID, hasData)
			event, data, id, hasID, hasData = "", "", "", false, false
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			event = value
		case "data":
			if hasData {
				data += "\n"
			}
			data += value
			hasData = true
		case "id":
			id, hasID = value, true
		}
	}
}

func (s *stream) dispatch(event, data, id string, hasID, hasData bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hasID {
		s.lastID = id
	}
	if !hasData {
		return
	}
	item := seen{sseID: id}
	switch event {
	case "":
		item.event, item.eventID = data, eventID(data)
	case "control":
		_ = json.Unmarshal([]byte(data), &item.control)
	case "error_frame":
		_ = json.Unmarshal([]byte(data), &item.err)
	}
	s.items = append(s.items, item)
}

func eventID(raw string) string {
	var e struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal([]byte(raw), &e)
	return e.ID
}

// openWS opens a WebSocket with the token as subprotocol, as our own client does.
func openWS(t testing.TB, wsURL, token, query string) *stream {
	t.Helper()
	return dialWS(t, wsURL+"?"+query, []string{"pepay.v1", "bearer." + token}, nil)
}

func dialWS(t testing.TB, rawURL string, protocols []string, header http.Header) *stream {
	t.Helper()
	d := websocket.Dialer{
		Subprotocols: protocols, HandshakeTimeout: 10 * time.Second, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	conn, resp, err := d.Dial(rawURL, header)
	if err != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		t.Fatalf("WS: status %d, %v", status, err)
	}
	s := &stream{t: t, done: make(chan struct{}), closer: conn.NetConn()}
	t.Cleanup(s.close)
	go s.readWS(conn)
	return s
}

func (s *stream) readWS(conn *websocket.Conn) {
	defer close(s.done)
	defer func() { _ = conn.Close() }()
	for {
		_, msg, err := conn.ReadMessage()
		s.mu.Lock()
		if err != nil {
			s.end = err
			s.mu.Unlock()
			return
		}
		var head struct {
			Object string `json:"object"`
		}
		_ = json.Unmarshal(msg, &head)
		item := seen{}
		switch head.Object {
		case "ws_control":
			_ = json.Unmarshal(msg, &item.control)
			if c, ok := item.control["cursor"].(string); ok && (item.control["type"] == "tip" || item.control["type"] == "replay_complete") {
				s.lastID = c
			}
		case "ws_error":
			_ = json.Unmarshal(msg, &item.err)
		default:
			item.event, item.eventID = string(msg), eventID(string(msg))
		}
		s.items = append(s.items, item)
		s.mu.Unlock()
	}
}

// close cuts the connection without a goodbye, as a phone in a tunnel does.
func (s *stream) close() {
	_ = s.closer.Close()
	<-s.done
}

func (s *stream) all() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.items...)
}

func (s *stream) cursor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastID
}

// ids returns the ids of the events, in order, first occurrences only.
func (s *stream) ids() []string {
	var out []string
	have := map[string]bool{}
	for _, it := range s.all() {
		if it.eventID != "" && !have[it.eventID] {
			have[it.eventID] = true
			out = append(out, it.eventID)
		}
	}
	return out
}

func (s *stream) count(control string) int {
	n := 0
	for _, it := range s.all() {
		if it.control["type"] == control {
			n++
		}
	}
	return n
}

func (s *stream) has(id string) bool {
	for _, it := range s.all() {
		if it.eventID == id {
			return true
		}
	}
	return false
}

// waitControl waits for the first control frame of a type and returns it.
func (s *stream) waitControl(kind string) map[string]any {
	s.t.Helper()
	var found map[string]any
	eventually(s.t, 20*time.Second, "control "+kind, func() bool {
		for _, it := range s.all() {
			if it.control["type"] == kind {
				found = it.control
				return true
			}
		}
		return false
	})
	return found
}

func (s *stream) waitStatus(state string) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, "status "+state, func() bool {
		last := ""
		for _, it := range s.all() {
			if v, ok := it.control["status"].(string); ok {
				last = v
			}
		}
		return last == state
	})
}

func (s *stream) waitIDs(n int) []string {
	s.t.Helper()
	eventually(s.t, 20*time.Second, "events", func() bool { return len(s.ids()) >= n })
	return s.ids()
}

func (s *stream) waitEnd() error {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.t.Fatal("the stream did not end")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

func closeCode(err error) int {
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		return ce.Code
	}
	return 0
}

func withQuery(rawURL string, pairs ...string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func mustJSON(t testing.TB, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}
