package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"

	"pepay-gateway/gateway"
)

const (
	markerKey   = "ck_live_MARKERKEY"
	markerToken = "MARKERTOKEN"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// base is the second of the first event of a fake.
const base = 1767225600

func fakeID(n int) string { return fmt.Sprintf("evt_%d-%d", (base+n)*1000, n) }

func fakeEvent(n int) string {
	return fmt.Sprintf(`{"id":"%s","object":"event","created":%d,"type":"commerce.order.updated","data":{"object":{"object":"commerce_order","id":"o%d","invoice_id":"i%d"}}}`,
		fakeID(n), base+n, n, n)
}

func fakeCursor(n int) gateway.UpstreamCursor {
	return gateway.UpstreamCursor{ID: fakeID(n), Created: base + int64(n)}
}

// A fakePepay serves mint, list and stream on one loopback listener. Its hooks
// are set before it is used.
type fakePepay struct {
	tb   testing.TB
	addr string

	onMint   func(n int, c *fasthttp.RequestCtx) bool      // n-th call, from 1; true: answered
	onList   func(n int, c *fasthttp.RequestCtx) bool      // likewise
	onDial   func(n int, c *fasthttp.RequestCtx) bool      // likewise, before the upgrade
	onStream func(n int, ws *websocket.Conn, since string) // the life of a stream; nil: until the client leaves
	onOther  func(c *fasthttp.RequestCtx)

	sent atomic.Uint64 // frames, by tell

	mu     sync.Mutex // guards the fields below
	events []fakeListed
	mints  int
	lists  []string // query strings
	dials  []string
	ends   int // streams that ended
}

type fakeListed struct {
	id      string
	created int64
	raw     string
}

func newFake(tb testing.TB) *fakePepay {
	tb.Helper()
	f := &fakePepay{tb: tb}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	f.addr = ln.Addr().String()
	server := &fasthttp.Server{Handler: f.serve, Logger: nolog{}, NoDefaultDate: true}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln) // ends with Shutdown
	}()
	tb.Cleanup(func() {
		_ = ln.Close() // Shutdown knows it only once Serve has begun
		_ = server.Shutdown()
		<-done
		waitFor(tb, "streams to end", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.ends == f.upgraded() })
	})
	return f
}

type nolog struct{}

func (nolog) Printf(string, ...any) {}

// upgraded is the number of streams begun; the caller holds the lock.
func (f *fakePepay) upgraded() int {
	n := 0
	for _, d := range f.dials {
		if strings.HasPrefix(d, "ok ") {
			n++
		}
	}
	return n
}

func (f *fakePepay) add(ns ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range ns {
		f.events = append(f.events, fakeListed{fakeID(n), base + int64(n), fakeEvent(n)})
	}
}

func (f *fakePepay) addRaw(id string, created int64, raw string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, fakeListed{id, created, raw})
}

func (f *fakePepay) seen() (mints int, lists, dials []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mints, slices.Clone(f.lists), slices.Clone(f.dials)
}

func (f *fakePepay) serve(c *fasthttp.RequestCtx) {
	switch path := string(c.Path()); path {
	case "/api/v1/ws/token":
		f.mu.Lock()
		f.mints++
		n := f.mints
		f.mu.Unlock()
		if string(c.Request.Header.Peek("x-api-key")) != markerKey {
			c.SetStatusCode(401)
			return
		}
		if f.onMint != nil && f.onMint(n, c) {
			return
		}
		fmt.Fprintf(c, `{"success":true,"data":{"token":"%s%d","scope":"commerce","network_environment":"devnet","expires_at":"2026-01-01T00:00:00Z","ws_url":"wss://evil.example/ws"}}`, markerToken, n)
	case eventsPath:
		f.mu.Lock()
		f.lists = append(f.lists, string(c.QueryArgs().QueryString()))
		n := len(f.lists)
		f.mu.Unlock()
		if f.onList == nil || !f.onList(n, c) {
			f.list(c)
		}
	case streamPath:
		f.stream(c)
	default:
		f.onOther(c)
	}
}

func (f *fakePepay) list(c *fasthttp.RequestCtx) {
	f.mu.Lock()
	events := slices.Clone(f.events)
	f.mu.Unlock()
	q := c.QueryArgs()
	gte, _ := strconv.ParseInt(string(q.Peek("created[gte]")), 10, 64)
	lte, err := strconv.ParseInt(string(q.Peek("created[lte]")), 10, 64)
	if err != nil {
		lte = 1 << 60
	}
	limit, _ := strconv.Atoi(string(q.Peek("limit")))
	after := string(q.Peek("starting_after"))
	slices.Reverse(events)
	var rows []json.RawMessage
	more := false
	for _, e := range events {
		if after != "" {
			if e.id == after {
				after = ""
			}
			continue
		}
		if e.created < gte || e.created > lte {
			continue
		}
		if len(rows) == limit {
			more = true
			break
		}
		rows = append(rows, json.RawMessage(e.raw))
	}
	var b bytes.Buffer
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r)
	}
	fmt.Fprintf(c, `{"success":true,"data":{"object":"list","data":[%s],"has_more":%t}}`, b.String(), more)
}

func (f *fakePepay) stream(c *fasthttp.RequestCtx) {
	query := string(c.QueryArgs().QueryString())
	since := string(c.QueryArgs().Peek("since"))
	f.mu.Lock()
	n := len(f.dials) + 1
	f.dials = append(f.dials, "no "+query)
	f.mu.Unlock()
	if f.onDial != nil && f.onDial(n, c) {
		return
	}
	up := websocket.FastHTTPUpgrader{}
	f.mu.Lock()
	f.dials[n-1] = "ok " + query
	f.mu.Unlock()
	err := up.Upgrade(c, func(ws *websocket.Conn) {
		defer func() { f.mu.Lock(); f.ends++; f.mu.Unlock() }()
		if f.onStream != nil {
			f.onStream(n, ws, since)
			return
		}
		readAll(ws)
	})
	if err != nil {
		f.tb.Errorf("upgrade: %v", err)
	}
}

// readAll answers pings until the client leaves.
func readAll(ws *websocket.Conn) {
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			return
		}
	}
}

func send(ws *websocket.Conn, texts ...string) {
	for _, s := range texts {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(s)); err != nil {
			return // the client has left
		}
	}
}

// tell sends one frame and counts it.
func (f *fakePepay) tell(ws *websocket.Conn, text string) {
	send(ws, text)
	f.sent.Add(1)
}

func hangUp(ws *websocket.Conn, code int) {
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second)) // may have left
	readAll(ws)
}

// A sink records what a Source does to it.
type sink struct {
	mu       sync.Mutex // guards the fields below
	busy     int
	overlaps int
	arrivals []gateway.Arrival
	health   []gateway.Health
	confirms int

	onConfirm func(n int) error
	onPut     func(context.Context) error
}

func (s *sink) enter() func() {
	s.mu.Lock()
	s.busy++
	if s.busy > 1 {
		s.overlaps++
	}
	s.mu.Unlock()
	return func() { s.mu.Lock(); s.busy--; s.mu.Unlock() }
}

func (s *sink) Confirm(context.Context) error {
	defer s.enter()()
	s.mu.Lock()
	s.confirms++
	n := s.confirms
	s.mu.Unlock()
	if s.onConfirm != nil {
		return s.onConfirm(n)
	}
	return nil
}

func (s *sink) Put(ctx context.Context, _ bool, arrivals ...gateway.Arrival) error {
	defer s.enter()()
	if s.onPut != nil {
		if err := s.onPut(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrivals = append(s.arrivals, arrivals...)
	return nil
}

func (s *sink) Report(h gateway.Health) {
	defer s.enter()()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health = append(s.health, h)
}

func (s *sink) got() []gateway.Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.arrivals)
}

// first are the ids in the order of their first arrival.
func (s *sink) first() []string {
	var ids []string
	seen := map[string]bool{}
	for _, a := range s.got() {
		if !seen[a.Event.ID] {
			seen[a.Event.ID] = true
			ids = append(ids, a.Event.ID)
		}
	}
	return ids
}

func (s *sink) states() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, h := range s.health {
		out = append(out, strings.TrimSpace(string(h.State)+" "+h.Reason))
	}
	return out
}

func (s *sink) is(state gateway.State) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.health) > 0 && s.health[len(s.health)-1].State == state
}

func (s *sink) has(ids ...string) bool {
	first := s.first()
	for _, id := range ids {
		if !slices.Contains(first, id) {
			return false
		}
	}
	return true
}

func ids(ns ...int) []string {
	out := make([]string, len(ns))
	for i, n := range ns {
		out[i] = fakeID(n)
	}
	return out
}

func waitFor(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited too long for %s", what)
		}
		<-t.C
	}
}

// newSource is a Source for f, impatient where the real one waits.
func newSource(tb testing.TB, f *fakePepay, change ...func(*Config)) *Source {
	tb.Helper()
	cfg := Config{APIURL: "http://" + f.addr, WSURL: "ws://" + f.addr, APIKey: markerKey, Backfill: time.Hour}
	// The fake's Shutdown waits for idle connections, which may become so late.
	cfg.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg, slog.New(slog.NewTextHandler(markerCheck{tb}, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		tb.Fatal(err)
	}
	s.tune.backoff.base, s.tune.backoff.limit, s.tune.backoff.extra = 5*time.Millisecond, 20*time.Millisecond, 0
	s.tune.settled = 0
	s.tune.recheck = 10 * time.Millisecond
	s.tune.sweeps = nil
	s.tune.controlEvery = 10 * time.Millisecond
	tb.Cleanup(s.client.CloseIdleConnections)
	return s
}

// markerCheck fails the test when a log line holds a secret or event data.
type markerCheck struct{ tb testing.TB }

func (m markerCheck) Write(line []byte) (int, error) {
	for _, marker := range []string{markerKey, markerToken, "invoice_id", "PRIVATE"} {
		if bytes.Contains(line, []byte(marker)) {
			m.tb.Errorf("log line holds %q: %s", marker, line)
		}
	}
	m.tb.Logf("%s", bytes.TrimSpace(line))
	return len(line), nil
}

var errStop = errors.New("test is over")

// start runs s until the test ends; stop ends it earlier and returns Run's error.
func start(tb testing.TB, s *Source, from gateway.UpstreamCursor, k *sink) (stop func() error) {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, from, k) }()
	stop = sync.OnceValue(func() error {
		cancel(errStop)
		err := <-done
		if err != nil && (strings.Contains(err.Error(), markerKey) || strings.Contains(err.Error(), markerToken)) {
			tb.Errorf("Run's error holds a secret: %v", err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.overlaps > 0 {
			tb.Errorf("sink calls that overlapped = %d, want 0", k.overlaps)
		}
		return err
	})
	tb.Cleanup(func() { _ = stop() }) // the test looks at it where it matters
	return stop
}
