package downstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"go.uber.org/goleak"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
	"pepay-gateway/redisbus"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

const (
	wait    = 10 * time.Second // for what must happen
	shop    = "https://shop.example"
	opsKey  = "gwk_ops_0123456789abcdef"
	mintKey = "gwk_mint_0123456789abcdef"
	pinKey  = "gwk_pinned_0123456789abcdef"
)

// A rig is a server on a loopback port over a log in an embedded Redis, which
// the test writes to.
type rig struct {
	testing.TB
	server *Server
	node   *gateway.Node
	bus    *redisbus.Bus
	keys   *auth.Keyring
	term   gateway.Term
	acked  uint64
	addr   string
	logs   *lockedBuffer
	stop   context.CancelFunc
	served chan error
	redis  func() // stops it
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newRig starts everything. edit may change the configuration, or be nil.
func newRig(t testing.TB, edit func(*Config)) *rig {
	t.Helper()
	r := &rig{TB: t, logs: &lockedBuffer{}, served: make(chan error, 1)}
	log := slog.New(slog.NewJSONHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.startLog()
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	r.node = gateway.NewNode(r.bus, gateway.NodeConfig{})
	ran := make(chan struct{})
	nodeCtx, stopNode := context.WithCancel(context.Background())
	go func() {
		defer close(ran)
		_ = r.node.Run(nodeCtx)
	}()

	key, err := auth.SecretKey("", bytes.Repeat([]byte("k"), 32))
	r.must(err)
	r.keys, err = auth.NewKeyring(key)
	r.must(err)
	apiKeys, err := auth.NewAPIKeys(
		auth.APIKey{Name: "ops", Hash: auth.HashKey(opsKey), Permissions: auth.AllPermissions},
		auth.APIKey{Name: "mint", Hash: auth.HashKey(mintKey), Permissions: auth.MayMint},
		auth.APIKey{Name: "pinned", Hash: auth.HashKey(pinKey), Permissions: auth.AllPermissions, CustomerRequired: true})
	r.must(err)
	cfg := Config{
		PublicURL: "https://events.shop.example", PepayURL: "https://api.pepay.example", Origins: []string{shop},
		DrainDuration: time.Millisecond,
	}
	if edit != nil {
		edit(&cfg)
	}
	r.server = New(cfg, r.node, r.keys, apiKeys, log)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	r.addr = ln.Addr().String()
	if portable {
		ln = portableListener{ln}
	}
	go func() { r.served <- r.server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.served; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
		stopNode()
		<-ran
		_ = r.bus.Close()
		r.redis()
	})
	r.until("the node is live", func() bool {
		h, _ := r.node.Health()
		return r.node.Ready() == nil && h.State == gateway.Live
	})
	return r
}

func (r *rig) startLog() {
	r.Helper()
	embedded, err := redisbus.StartEmbedded()
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = embedded.Run(ctx)
	}()
	r.redis = func() {
		cancel()
		<-ran
	}
	r.bus, err = redisbus.New(redisbus.Config{URL: embedded.URL(), Stream: "test"})
	r.must(err)
	r.term, _, err = r.bus.Acquire(context.Background(), gateway.AcquireRequest{Nonce: 42, TTL: time.Hour})
	r.must(err)
	r.must(r.bus.Renew(context.Background(), r.term, 0, time.Hour, gateway.Health{State: gateway.Live, Since: time.Now()}))
}

func (r *rig) must(err error) {
	if err != nil {
		r.Helper()
		r.Fatal(err)
	}
}

// until waits for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	eventually(r, what, ok)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(wait)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

var eventNumber atomic.Int64

// event makes an event of an order and its customer.
func event(order, customer string) *gateway.Event {
	n := eventNumber.Add(1)
	id := fmt.Sprintf("evt_1767225600000-%d", n)
	data := fmt.Sprintf(`{"id":%q,"object":"event","type":"commerce.order.updated","created":1767225600,`+
		`"data":{"object":{"object":"commerce_order","id":%q,"n":%d,"customer_id":%q}}}`, id, order, n, customer)
	return &gateway.Event{
		ID: id, Type: "commerce.order.updated", Object: gateway.ObjectOrder, Version: gateway.EventVersion(id, 0),
		Keys: gateway.Keys{Order: order, Customer: customer}, Received: time.Now().UnixMilli(), Data: []byte(data),
	}
}

// publish appends events of an order and waits until the node has them.
func (r *rig) publish(order, customer string) *gateway.Event {
	r.Helper()
	ev := event(order, customer)
	r.append(gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
	return ev
}

func (r *rig) append(records ...gateway.Record) {
	r.Helper()
	done, err := r.bus.Append(context.Background(), r.term, r.acked, records, gateway.UpstreamCursor{ID: records[0].ID, Created: 1767225600})
	r.must(err)
	r.acked = done.Seq
	r.until("the node has the event", func() bool { return r.node.Position().Seq >= done.Seq })
}

func (r *rig) health() gateway.Health {
	h, _ := r.node.Health()
	return h
}

// cover says that all of a customer's orders are known.
func (r *rig) cover(customer string) {
	r.Helper()
	r.append(gateway.Record{ID: "#cover-" + customer, Join: &gateway.Join{Customer: customer, Covered: true}})
}

// token mints a token for a customer, orders, or both.
func (r *rig) token(customer string, orders ...string) string {
	r.Helper()
	return r.mintWith(func(c *auth.Claims) { c.Customer, c.Orders = customer, orders })
}

func (r *rig) mintWith(edit func(*auth.Claims)) string {
	r.Helper()
	now := time.Now()
	c := auth.Claims{
		Kind: auth.KindStream, IssuedAt: now, ExpiresAt: now.Add(time.Minute), SessionExpiresAt: now.Add(time.Hour),
	}
	edit(&c)
	token, err := r.keys.Mint(c)
	r.must(err)
	return token
}

// A message is what a client received.
type message struct {
	ID, Event, Data string // ID and Event on SSE
	Retry           string
	fields          map[string]any
}

func (m message) kind() string {
	switch m.fields["object"] {
	case "ws_control":
		return m.fields["type"].(string)
	case "ws_error":
		return "error:" + m.fields["code"].(string)
	}
	return "event"
}

func (m message) text(name string) string {
	s, _ := m.fields[name].(string)
	return s
}

func parseMessage(t testing.TB, m *message) {
	t.Helper()
	if err := json.Unmarshal([]byte(m.Data), &m.fields); err != nil {
		t.Fatalf("message %q: %v", m.Data, err)
	}
}

// A client reads one stream, of either transport.
type client struct {
	t    testing.TB
	conn *websocket.Conn // WS
	body *bufio.Reader   // SSE
	raw  net.Conn
	resp *http.Response
}

// next returns the next message; false at the end of the stream.
func (c *client) next() (message, bool) {
	c.t.Helper()
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(time.Now().Add(wait))
		_, data, err := c.conn.ReadMessage()
		if err != nil {
			return message{}, false
		}
		m := message{Data: string(data)}
		parseMessage(c.t, &m)
		return m, true
	}
	_ = c.raw.SetReadDeadline(time.Now().Add(wait))
	return c.nextBlock()
}

// nextBlock is a little parser of event streams.
func (c *client) nextBlock() (message, bool) {
	c.t.Helper()
	var m message
	var data []string
	for {
		line, err := c.body.ReadString('\n')
		if err != nil {
			return message{}, false
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			m.ID = value
		case "event":
			m.Event = value
		case "data":
			data = append(data, value)
		case "retry":
			m.Retry = value
		case "":
			if data == nil {
				continue // a retry alone
			}
			m.Data = strings.Join(data, "\n")
			parseMessage(c.t, &m)
			return m, true
		}
	}
}

// want reads the next message, which must be of a kind; tips are skipped unless wanted.
func (c *client) want(kind string) message {
	c.t.Helper()
	for deadline := time.Now().Add(wait); ; {
		m, ok := c.next()
		if !ok || time.Now().After(deadline) {
			c.t.Fatalf("stream ended or nothing but tips came, want %s", kind)
		}
		if m.kind() == kind {
			return m
		}
		if m.kind() != "tip" && m.kind() != "status" {
			c.t.Fatalf("got %s (%s), want %s", m.kind(), m.Data, kind)
		}
	}
}

func (c *client) wantEvent(ev *gateway.Event) message {
	c.t.Helper()
	m := c.want("event")
	if m.Data != string(ev.Data) {
		c.t.Fatalf("event = %s, want %s", m.Data, ev.Data)
	}
	return m
}

// wantClose reads on to the end of a WebSocket and checks its close code.
func (c *client) wantClose(code int) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(wait))
	for {
		_, _, err := c.conn.ReadMessage()
		if err == nil {
			continue
		}
		if !websocket.IsCloseError(err, code) {
			c.t.Fatalf("WebSocket ended with %v, want close %d", err, code)
		}
		return
	}
}

// wantEnd reads on to the end of an event stream.
func (c *client) wantEnd() {
	c.t.Helper()
	if m, ok := c.next(); ok {
		c.t.Fatalf("got %s, want the end of the stream", m.Data)
	}
}

func (c *client) close() { _ = c.raw.Close() }

// dial opens a WebSocket. The status of a refusal is in the client's resp.
func (r *rig) dial(query string, header http.Header, subprotocols ...string) (*client, error) {
	d := websocket.Dialer{Subprotocols: subprotocols, HandshakeTimeout: wait}
	conn, resp, err := d.Dial("ws://"+r.addr+wsPath+"?"+query, header)
	c := &client{t: r.TB, conn: conn, resp: resp}
	if err == nil {
		c.raw = conn.NetConn()
		r.Cleanup(c.close)
	}
	return c, err
}

// ws opens a pepay.v1 WebSocket.
func (r *rig) ws(query string) *client {
	r.Helper()
	c, err := r.dial(query, nil, subprotocol)
	r.must(err)
	return c
}

// sse opens an event stream; header lines are "Name: value".
func (r *rig) sse(query string, header ...string) *client {
	r.Helper()
	c := r.request("GET", ssePath+"?"+query, "", header...)
	if c.resp.StatusCode == http.StatusOK && c.resp.Header.Get("Content-Type") != "text/event-stream" {
		r.Fatalf("Content-Type = %q, want text/event-stream", c.resp.Header.Get("Content-Type"))
	}
	return c
}

// request sends one request on a connection of its own.
func (r *rig) request(method, path, body string, header ...string) *client {
	r.Helper()
	conn, err := net.Dial("tcp", r.addr)
	r.must(err)
	c := &client{t: r.TB, raw: conn}
	r.Cleanup(c.close)
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: gateway\r\n", method, path)
	for _, h := range header {
		text += h + "\r\n"
	}
	if body != "" {
		text += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	_, err = io.WriteString(conn, text+"\r\n"+body)
	r.must(err)
	r.must(conn.SetReadDeadline(time.Now().Add(wait)))
	br := bufio.NewReader(conn)
	c.resp, err = http.ReadResponse(br, &http.Request{Method: method})
	r.must(err)
	c.body = bufio.NewReader(c.resp.Body)
	return c
}

// answer is request with the whole body read.
func (r *rig) answer(method, path, body string, header ...string) (*http.Response, string) {
	r.Helper()
	c := r.request(method, path, body, header...)
	data, err := io.ReadAll(c.body)
	r.must(err)
	return c.resp, string(data)
}

// errorCode returns the code in an envelope.
func errorCode(t testing.TB, body string) string {
	t.Helper()
	var e struct {
		Success bool
		Error   struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Message == "" || e.Success {
		t.Fatalf("body = %q, want an error envelope", body)
	}
	return e.Error.Code
}
