package devnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"go.uber.org/goleak"
)

const patience = 10 * time.Second // for anything that must happen

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// A rig is a served devnet with a client.
type rig struct {
	testing.TB
	*Server
	addr string
	http *http.Client
	stop func() // idempotent; waits for Serve
}

func start(t testing.TB, cfg Config) *rig {
	t.Helper()
	r := &rig{TB: t, Server: New(cfg, slog.New(slog.DiscardHandler))}
	r.http = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	t.Cleanup(r.http.CloseIdleConnections)
	r.serve()
	return r
}

// serve serves the devnet on a new address.
func (r *rig) serve() {
	r.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	r.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, ln) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		r.http.CloseIdleConnections()
		if err := <-done; err != nil {
			r.Errorf("Serve() = %v, want nil", err)
		}
	}
	r.Cleanup(r.stop)
	r.until("serving", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.serving != nil })
}

// until waits for a condition that has no channel of its own.
func (r *rig) until(what string, cond func() bool) {
	r.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			r.Fatalf("%s: did not happen", what)
		}
		<-tick.C
	}
}

// call sends a request with the commerce key and returns the status, the body
// and the header.
func (r *rig) call(method, path, body string, header ...string) (int, []byte, http.Header) {
	r.Helper()
	req, err := http.NewRequest(method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("x-api-key", DefaultAPIKey)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.http.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return res.StatusCode, data, res.Header
}

// ok is a call that must succeed; it decodes the answer into v.
func (r *rig) ok(method, path, body string, v any) {
	r.Helper()
	status, data, _ := r.call(method, path, body)
	if status != http.StatusOK {
		r.Fatalf("%s %s = %d %s, want 200", method, path, status, data)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(data, v); err != nil {
		r.Fatalf("%s %s answered %s: %v", method, path, data, err)
	}
}

func (r *rig) mintToken() (token, wsURL string) {
	r.Helper()
	var got struct {
		Data struct {
			Token string `json:"token"`
			WSURL string `json:"ws_url"`
		}
	}
	r.ok("POST", "/api/v1/ws/token", `{"scope":"commerce"}`, &got)
	return got.Data.Token, got.Data.WSURL
}

// A client is one open stream.
type client struct {
	*rig
	conn *websocket.Conn
}

// dial opens a stream with the key in a header and returns once it is open.
func (r *rig) dial(query string) *client {
	r.Helper()
	c, status := r.tryDial(query, "x-commerce-api-key", DefaultAPIKey)
	if c == nil {
		r.Fatalf("dial %q = %d, want 101", query, status)
	}
	return c
}

func (r *rig) tryDial(query string, header ...string) (*client, int) {
	r.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	before := r.State().TotalConnections
	conn, res, err := websocket.DefaultDialer.Dial("ws://"+r.addr+"/ws/commerce/events?"+query, h)
	if err != nil {
		if res == nil {
			r.Fatal(err)
		}
		return nil, res.StatusCode
	}
	r.Cleanup(func() { _ = conn.Close() })
	r.until("attach", func() bool { return r.State().TotalConnections > before })
	return &client{r, conn}, 101
}

// next reads one frame.
func (c *client) next() []byte {
	c.Helper()
	data, err := c.read()
	if err != nil {
		c.Fatalf("read: %v", err)
	}
	return data
}

func (c *client) read() ([]byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	_, data, err := c.conn.ReadMessage()
	return data, err
}

// rest reads until the stream ends and returns its frames and its end.
func (c *client) rest() (frames [][]byte, end error) {
	for {
		data, err := c.read()
		if err != nil {
			return frames, err
		}
		frames = append(frames, data)
	}
}

const markFrame = `{"object":"test_mark"}`

// mark puts a frame on every stream up to which toMark reads.
func (r *rig) mark() {
	r.Helper()
	if _, err := r.Emit(Frame{Frame: markFrame}); err != nil {
		r.Fatal(err)
	}
}

func (c *client) toMark() (frames [][]byte) {
	c.Helper()
	for {
		data := c.next()
		if string(data) == markFrame {
			return frames
		}
		frames = append(frames, data)
	}
}

// An eventView is what tests look at in a frame.
type eventView struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Type    string `json:"type"`
	Created int64  `json:"created"`
	Data    struct {
		Object map[string]any `json:"object"`
	} `json:"data"`
	Code string `json:"code"`
}

func view(t testing.TB, data []byte) eventView {
	t.Helper()
	var v eventView
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("frame %s: %v", data, err)
	}
	return v
}

func (c *client) wantEvent(typ, status string) eventView {
	c.Helper()
	v := view(c, c.next())
	if got, want := v.Type+" "+str(v.Data.Object["status"]), typ+" "+status; got != want {
		c.Fatalf("event = %q, want %q", got, want)
	}
	return v
}

func str(v any) string { s, _ := v.(string); return s }

func (r *rig) create(customer string) Order {
	r.Helper()
	o, err := r.CreateOrder(NewOrder{CustomerID: customer})
	if err != nil {
		r.Fatal(err)
	}
	return o
}

func (r *rig) move(o Order, steps ...string) {
	r.Helper()
	for _, to := range steps {
		if _, err := r.Simulate(o.ID, Transition{To: to}); err != nil {
			r.Fatalf("Simulate(%s) = %v, want nil", to, err)
		}
	}
}

func (r *rig) set(f Faults) {
	r.Helper()
	if err := r.SetFaults(f); err != nil {
		r.Fatal(err)
	}
}

func closeCode(err error) int {
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		return e.Code
	}
	return 0
}

func (r *rig) raws() [][]byte {
	var out [][]byte
	for _, ev := range r.Record("") {
		out = append(out, []byte(ev.Raw))
	}
	return out
}

func sameFrames(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d = %s, want %s", i, got[i], want[i])
		}
	}
}

// list reads one page of events and returns their exact bytes.
func (r *rig) list(query url.Values) (page []json.RawMessage, more bool) {
	r.Helper()
	var got struct {
		Success bool
		Data    struct {
			Object  string
			Data    []json.RawMessage
			HasMore bool `json:"has_more"`
		}
	}
	r.ok("GET", "/api/v1/events?"+query.Encode(), "", &got)
	if !got.Success || got.Data.Object != "list" {
		r.Fatalf("envelope = %+v, want a successful list", got)
	}
	return got.Data.Data, got.Data.HasMore
}

func ids(t testing.TB, page []json.RawMessage) []string {
	t.Helper()
	out := make([]string, len(page))
	for i, raw := range page {
		out[i] = view(t, raw).ID
	}
	return out
}
