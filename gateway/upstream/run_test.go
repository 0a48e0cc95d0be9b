package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"

	"pepay-gateway/gateway"
)

func TestRunMergesBackfillAndStream(t *testing.T) {
	f := newFake(t)
	f.add(1, 2, 3)
	sent := make(chan struct{})
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		send(ws, fakeEvent(3), fakeEvent(4)) // before the list is answered
		ws.SetPongHandler(func(string) error { close(sent); return nil })
		_ = ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) // both are read once it is answered
		readAll(ws)
	}
	f.onList = func(int, *fasthttp.RequestCtx) bool { <-sent; return false }
	s, k := newSource(t, f), &sink{}
	s.tune.overlap = 0
	stop := start(t, s, fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) && k.has(fakeID(4)) })
	if err := stop(); !errors.Is(err, errStop) {
		t.Errorf("Run() = %v, want %v", err, errStop)
	}
	var got []string
	for _, a := range k.got() {
		got = append(got, a.Event.ID)
		if a.Cursor.ID != a.Event.ID {
			t.Errorf("cursor after %s = %q, want the event's own", a.Event.ID, a.Cursor.ID)
		}
		if a.Cursor.Created != int64(a.Event.Version.Millis/1000) {
			t.Errorf("cursor's created = %d, want %d", a.Cursor.Created, a.Event.Version.Millis/1000)
		}
	}
	if diff := cmp.Diff(ids(1, 2, 3, 3, 4), got); diff != "" {
		t.Errorf("arrivals (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"catching_up backfill", "live"}, k.states()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if string(k.got()[0].Event.Data) != fakeEvent(1) {
		t.Errorf("data = %s, want %s", k.got()[0].Event.Data, fakeEvent(1))
	}
}

func TestRunColdStartLooksBackByTheUpstreamsClock(t *testing.T) {
	f := newFake(t) // its handshake has no Date
	var query atomic.Value
	rest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Unix(base+10_000, 0).UTC().Format(http.TimeFormat))
		if r.URL.Path == eventsPath {
			query.CompareAndSwap(nil, r.URL.Query().Get("created[gte]"))
			_, _ = io.WriteString(w, `{"object":"list","data":[],"has_more":false}`)
			return
		}
		_, _ = io.WriteString(w, `{"success":true,"data":{"token":"x","network_environment":null,"expires_at":1}}`)
	}))
	defer rest.Close()
	s, k := newSource(t, f, func(c *Config) { c.APIURL = rest.URL }), &sink{}
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if got, want := query.Load(), fmt.Sprint(base+10_000-3600); got != want {
		t.Errorf("created[gte] = %v, want %s", got, want)
	}
	if _, _, dials := f.seen(); strings.Contains(dials[0], "since=") {
		t.Errorf("dial = %s, want no since", dials[0])
	}
}

// An event may be listed later than one that is newer; the log dedupes the others.
func TestBackfillLooksBackBeforeTheCursor(t *testing.T) {
	f := newFake(t)
	f.add(1, 2, 3)
	s, k := newSource(t, f), &sink{}
	s.tune.overlap = 10 * time.Second
	start(t, s, fakeCursor(3), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if diff := cmp.Diff(ids(1, 2, 3), k.first()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestRunReconnectsWithSince(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onStream = func(n int, ws *websocket.Conn, since string) {
		f.add(n + 1)
		send(ws, fakeEvent(n+1))
		if n < 4 {
			hangUp(ws, []int{1000, 1001, 1012}[n-1])
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f, func(c *Config) { c.Types = []string{"commerce.order.*", "invoice.*"} }), &sink{}
	stop := start(t, s, fakeCursor(1), k)
	waitFor(t, "event 5", func() bool { return k.has(fakeID(5)) })
	_ = stop()
	mints, _, dials := f.seen()
	if mints != 4 || k.confirms != 4 {
		t.Errorf("mints, confirms = %d, %d, want 4, 4", mints, k.confirms)
	}
	for i, d := range dials {
		for _, want := range []string{"since=" + fakeID(i+1), fmt.Sprintf("token=%s%d", markerToken, i+1), "format=event_v1", "types=commerce.order.%2A%2Cinvoice.%2A"} {
			if !strings.Contains(d, want) {
				t.Errorf("dial %d = %s, want %s in it", i, d, want)
			}
		}
	}
	if diff := cmp.Diff(ids(1, 2, 3, 4, 5), k.first()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got := s.Stats(); got.Connects != 4 || got.Reconnects != 3 || got.Failures["upstream_down"] != 3 {
		t.Errorf("Stats() = %+v, want 4 connects, 3 reconnects and failures", got)
	}
}

func TestRunConfirmsBeforeEachDial(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 3 {
			cancel()
		}
		hangUp(ws, 1000)
	}
	lost := errors.New("lease lost")
	k := &sink{onConfirm: func(n int) error {
		if n == 3 {
			return lost
		}
		return nil
	}}
	s := newSource(t, f)
	if err := s.Run(ctx, gateway.UpstreamCursor{}, k); !errors.Is(err, lost) {
		t.Errorf("Run() = %v, want %v", err, lost)
	}
	if mints, _, dials := f.seen(); mints != 2 || len(dials) != 2 {
		t.Errorf("mints, dials = %d, %d, want 2, 2", mints, len(dials))
	}
}

func TestRunEndsWithSinkError(t *testing.T) {
	f := newFake(t)
	f.add(1, 2)
	full := errors.New("fenced")
	k := &sink{onPut: func(context.Context) error { return full }}
	if err := newSource(t, f).Run(t.Context(), fakeCursor(1), k); !errors.Is(err, full) {
		t.Errorf("Run() = %v, want %v", err, full)
	}
	waitFor(t, "the socket to be closed", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.ends == 1 })
}

func TestRunWithKeySendsHeaderAndMintsNothing(t *testing.T) {
	f := newFake(t)
	key := make(chan string, 1)
	f.onDial = func(_ int, c *fasthttp.RequestCtx) bool {
		key <- string(c.Request.Header.Peek("x-api-key"))
		return false
	}
	k := &sink{}
	start(t, newSource(t, f, func(c *Config) { c.Auth = AuthKey; c.WSURL += streamPath }), gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	mints, _, dials := f.seen()
	if got := <-key; got != markerKey || mints != 0 || strings.Contains(dials[0], "token") {
		t.Errorf("key, mints, dial = %q, %d, %s, want the key, 0, no token", got, mints, dials[0])
	}
}

func TestRunFailures(t *testing.T) {
	answer := func(status int, body string) func(int, *fasthttp.RequestCtx) bool {
		return func(n int, c *fasthttp.RequestCtx) bool {
			if n > 2 {
				return false
			}
			c.SetStatusCode(status)
			c.SetBodyString(body + markerKey + markerToken)
			return true
		}
	}
	tests := []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"401", 401, `{"success":false,"error":{"code":"API_KEY_INVALID"}}`, "stale upstream_auth"},
		{"403", 403, ``, "stale upstream_forbidden"},
		{"400", 400, `{"error":"x","code":"VALIDATION_ERROR"}`, "stale upstream_rejected"},
		{"429", 429, `{"error_code":"RATE_LIMIT_EXCEEDED"}`, "stale upstream_rate_limited"},
		{"500", 500, `<html>`, "stale upstream_down"},
		{"302", 302, ``, "stale upstream_down"},
		{"200 without JSON", 200, `nothing `, "stale upstream_down"},
	}
	for _, tt := range tests {
		for _, where := range []string{"mint", "dial"} {
			t.Run(tt.name+" at "+where, func(t *testing.T) {
				f := newFake(t)
				if where == "mint" {
					f.onMint = answer(tt.status, tt.body)
				} else {
					f.onDial = answer(tt.status, tt.body)
				}
				s, k := newSource(t, f), &sink{}
				s.tune.backoff.long = 5 * time.Millisecond
				start(t, s, gateway.UpstreamCursor{}, k)
				waitFor(t, "live", func() bool { return k.is(gateway.Live) })
				if diff := cmp.Diff([]string{tt.want, "catching_up backfill", "live"}, k.states()); diff != "" {
					t.Errorf("states (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestRunRemintsOnceAtOnceAfter401(t *testing.T) {
	f := newFake(t)
	f.onDial = func(n int, c *fasthttp.RequestCtx) bool {
		if n == 1 {
			c.SetStatusCode(401)
		}
		return n == 1
	}
	s, k := newSource(t, f), &sink{}
	s.tune.backoff.base = time.Hour // any other wait would hang the test
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	_, _, dials := f.seen()
	if len(dials) != 2 || !strings.Contains(dials[1], markerToken+"2") {
		t.Errorf("dials = %v, want two, the second with a new token", dials)
	}
}

func TestRunHonoursRetryAfter(t *testing.T) {
	f := newFake(t)
	f.onMint = func(n int, c *fasthttp.RequestCtx) bool {
		if n == 1 {
			c.SetStatusCode(429)
			c.Response.Header.Set("Retry-After", "1")
		}
		return n == 1
	}
	k := &sink{}
	begin := time.Now()
	start(t, newSource(t, f), gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if took := time.Since(begin); took < time.Second {
		t.Errorf("came back after %v, want at least %v", took, time.Second)
	}
}

func TestRunRefusesAnotherEnvironment(t *testing.T) {
	f := newFake(t)
	k := &sink{}
	start(t, newSource(t, f, func(c *Config) { c.Environment = "mainnet" }), gateway.UpstreamCursor{}, k)
	waitFor(t, "stale", func() bool { return k.is(gateway.Stale) })
	if _, _, dials := f.seen(); len(dials) != 0 {
		t.Errorf("dials = %d, want 0", len(dials))
	}
	if diff := cmp.Diff([]string{"stale upstream_rejected"}, k.states()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

func TestRunGap(t *testing.T) {
	refuse := func(status int, body string) func(int, *fasthttp.RequestCtx) bool {
		return func(_ int, c *fasthttp.RequestCtx) bool {
			c.SetStatusCode(status)
			c.SetBodyString(body)
			return true
		}
	}
	tests := []struct {
		name    string
		listed  []int
		onDial  func(int, *fasthttp.RequestCtx) bool
		replay  []string
		wantGap bool
	}{
		{"cursor listed", []int{5, 6}, nil, nil, false},
		{"older listed", []int{4, 6}, nil, nil, false},
		{"only older than the floor", []int{-4000, 6}, nil, nil, false},
		{"nothing as old", []int{6, 7}, nil, nil, true},
		{"nothing at all", nil, nil, nil, true},
		{"replay begins at the cursor", []int{6}, nil, []string{fakeEvent(5), fakeEvent(6)}, false},
		{"replay begins before the cursor", []int{6}, nil, []string{fakeEvent(4), fakeEvent(6)}, false},
		{"replay was truncated", []int{6}, nil, []string{`{"object":"ws_control","type":"replay.truncated"}`, fakeEvent(4), fakeEvent(6)}, true},
		{"truncated, but REST has all", []int{5, 6}, nil, []string{`{"object":"ws_control","type":"replay.truncated"}`}, false},
		{"400 names since", []int{5}, refuse(400, `{"error":"invalid since"}`), nil, true},
		{"410", []int{5}, refuse(410, ``), nil, true},
		{"ws_error about the cursor", []int{5}, nil, []string{`{"object":"ws_error","code":"CURSOR_EXPIRED"}`}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.add(tt.listed...)
			f.onDial = tt.onDial
			sent := make(chan struct{})
			f.onStream = func(_ int, ws *websocket.Conn, _ string) {
				send(ws, tt.replay...)
				close(sent)
				readAll(ws)
			}
			f.onList = func(int, *fasthttp.RequestCtx) bool { <-sent; return false }
			s, k := newSource(t, f), &sink{}
			s.tune.recheck = 100 * time.Millisecond
			if tt.wantGap {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := s.Run(ctx, fakeCursor(5), k); !errors.Is(err, gateway.ErrGap) {
					t.Errorf("Run() = %v, want %v", err, gateway.ErrGap)
				}
				return
			}
			stop := start(t, s, fakeCursor(5), k)
			waitFor(t, "live", func() bool { return k.is(gateway.Live) })
			if err := stop(); !errors.Is(err, errStop) {
				t.Errorf("Run() = %v, want %v", err, errStop)
			}
		})
	}
}

// A cursor handed over before continuity is proven would hide the gap from the
// next leader.
func TestRunHandsNothingOverBeforeContinuityIsProven(t *testing.T) {
	f := newFake(t)
	f.add(6, 7)
	k := &sink{}
	if err := newSource(t, f).Run(t.Context(), fakeCursor(5), k); !errors.Is(err, gateway.ErrGap) {
		t.Errorf("Run() = %v, want %v", err, gateway.ErrGap)
	}
	if n := len(k.got()); n != 0 {
		t.Errorf("arrivals = %d, want 0", n)
	}
}

func TestRunLooksTwiceBeforeItCallsAGap(t *testing.T) {
	f := newFake(t)
	s, k := newSource(t, f), &sink{}
	f.onList = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 3 { // after the walk and the probe
			f.add(5)
		}
		return false
	}
	start(t, s, fakeCursor(5), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
}

func TestRunControlBackfillsFromCursor(t *testing.T) {
	f := newFake(t)
	f.add(1, 2)
	resync := make(chan struct{})
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		send(ws, fakeEvent(2))
		<-resync
		f.add(3, 4, 5, 6)
		// 3 and 4 are dropped; what comes after must not move the cursor past them
		send(ws, `{"object":"ws_control","type":"resync"}`, fakeEvent(5))
		readAll(ws)
	}
	list := make(chan struct{})
	f.onList = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 2 {
			<-list
		}
		return false
	}
	s, k := newSource(t, f), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) && k.has(fakeID(2)) })
	close(resync)
	waitFor(t, "event 5", func() bool { return k.has(fakeID(5)) })
	last := k.got()[len(k.got())-1]
	if last.Event.ID != fakeID(5) || last.Cursor != fakeCursor(2) {
		t.Errorf("last = %s with cursor %s, want %s with %s", last.Event.ID, last.Cursor.ID, fakeID(5), fakeID(2))
	}
	close(list)
	waitFor(t, "what was dropped", func() bool { return k.has(ids(3, 4, 6)...) && k.is(gateway.Live) })
	if _, _, dials := f.seen(); len(dials) != 1 {
		t.Errorf("dials = %d, want 1", len(dials))
	}
	want := []string{"catching_up backfill", "live", "catching_up resync", "live"}
	if diff := cmp.Diff(want, k.states()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	for _, a := range k.got() {
		if slices.Contains(ids(3, 4, 6), a.Event.ID) && !a.Cursor.IsZero() {
			t.Errorf("cursor of swept %s = %q, want none", a.Event.ID, a.Cursor.ID)
		}
	}
}

func TestRunTruncationWhileLiveIsAGapUnlessRESTHasAll(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		waitFor(t, "the first list", func() bool { _, l, _ := f.seen(); return len(l) > 0 })
		f.mu.Lock()
		f.events = nil
		f.mu.Unlock()
		f.add(100)
		send(ws, fakeEvent(50), `{"object":"ws_control","type":"stream.truncated"}`)
		readAll(ws)
	}
	answered := make(chan struct{})
	f.onList = func(n int, c *fasthttp.RequestCtx) bool {
		if n > 1 {
			return false
		}
		c.SetBodyString(`{"object":"list","data":[` + fakeEvent(1) + `],"has_more":false}`) // without the envelope
		close(answered)
		return true
	}
	s, k := newSource(t, f), &sink{}
	if err := s.Run(t.Context(), fakeCursor(1), k); !errors.Is(err, gateway.ErrGap) {
		t.Errorf("Run() = %v, want %v", err, gateway.ErrGap)
	}
	<-answered
}

func TestRunSurvivesBadFrames(t *testing.T) {
	f := newFake(t)
	bad := []string{
		`nonsense`, `{"object":`, `[]`, `{}`, `{"object":"novelty","PRIVATE":1}`, `{"object":7}`, strings.Repeat("[", 5000),
		"\xff", `{"object":"event","object":"event"}`, `{"object":"event","PRIVATE":"` + strings.Repeat("x", gateway.MaxEventBytes) + `"}`,
		`{"object":"event","data":7}`,
	}
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		for i, b := range bad {
			send(ws, b, fakeEvent(i+1))
		}
		_ = ws.WriteMessage(websocket.BinaryMessage, []byte(fakeEvent(99))) // the client may have left
		send(ws, fakeEvent(100))
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "the last event", func() bool { return k.has(fakeID(100)) })
	for i := range bad {
		if !k.has(fakeID(i + 1)) {
			t.Errorf("event after %.20q is missing", bad[i])
		}
	}
	if k.has(fakeID(99)) {
		t.Error("a binary frame was taken for an event")
	}
	if _, _, dials := f.seen(); len(dials) != 1 {
		t.Errorf("dials = %d, want 1", len(dials))
	}
	if got := s.Stats(); got.Quarantined != 8 || got.Unknown != 3 || got.Oversize != 1 {
		t.Errorf("Stats() = %+v, want 8 quarantined, 3 unknown, 1 oversize", got)
	}
}

func TestRunUnknownErrorFrameReconnects(t *testing.T) {
	f := newFake(t)
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			send(ws, `{"object":"ws_error","code":"NEW_THING","message":"PRIVATE"}`)
		}
		readAll(ws)
	}
	k := &sink{}
	start(t, newSource(t, f), gateway.UpstreamCursor{}, k)
	waitFor(t, "the second dial", func() bool { _, _, d := f.seen(); return len(d) == 2 })
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
}

func TestRunStepsOverPoisonFrame(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onStream = func(_ int, ws *websocket.Conn, since string) {
		if since == fakeID(1) {
			send(ws, strings.Repeat("x", readLimitBytes+1))
		} else {
			f.add(2)
			send(ws, fakeEvent(2))
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "the event after it", func() bool { return k.has(fakeID(2)) })
	if _, _, dials := f.seen(); len(dials) != poisonLimit+1 {
		t.Errorf("dials = %d, want %d", len(dials), poisonLimit+1)
	}
	if got := s.Stats(); got.Oversize != poisonLimit {
		t.Errorf("oversize = %d, want %d", got.Oversize, poisonLimit)
	}
}

func TestBackfillStepsOverUnwieldyEvents(t *testing.T) {
	f := newFake(t)
	s, k := newSource(t, f), &sink{}
	s.tune.pageBytes = 64 << 10
	f.add(1, 2)
	f.addRaw(fakeID(3), base+3, `{"id":"`+fakeID(3)+`","object":"event","created":1,"x":"`+strings.Repeat("x", 64<<10)+`"}`)
	f.add(4)
	f.addRaw(fakeID(5), base+5, `{"id":"`+fakeID(5)+`","object":"event","x":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+`}`)
	f.addRaw(fakeID(6), base+6, `{"id":"`+fakeID(6)+`","object":"event","x":`+strings.Repeat("[", 70)+strings.Repeat("]", 70)+`}`)
	f.add(7)
	start(t, s, fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if diff := cmp.Diff(ids(1, 2, 4, 7), k.first()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestBackfillInWindows(t *testing.T) {
	f := newFake(t)
	var want []string
	for n := 1; n <= 950; n++ {
		// many share a second: more of them than a window holds
		id := fmt.Sprintf("evt_%d-%d", (base+n/300)*1000, n)
		created := int64(base + n/300)
		f.addRaw(id, created, fmt.Sprintf(`{"id":"%s","object":"event","created":%d,"type":"invoice.updated"}`, id, created))
		want = append(want, id)
	}
	s, k := newSource(t, f), &sink{}
	s.tune.windowEvents = 130
	first := gateway.UpstreamCursor{ID: want[0], Created: base}
	start(t, s, first, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	var got []string
	for _, a := range k.got() {
		got = append(got, a.Event.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arrivals (-want +got):\n%s", diff)
	}
}

func TestBackfillAppliesTypesItself(t *testing.T) {
	f := newFake(t)
	f.add(1, 2)
	f.addRaw("evt_x", base+3, `{"id":"evt_x","object":"event","created":1767225603,"type":"invoice_payment.updated"}`)
	f.addRaw("evt_y", base+3, `{"id":"evt_y","object":"event","created":1767225603,"type":"invoice.updated"}`)
	k := &sink{}
	start(t, newSource(t, f, func(c *Config) { c.Types = []string{"invoice.*"} }), fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if diff := cmp.Diff([]string{"evt_y"}, k.first()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestBackfillRetriesWhileTheSocketHolds(t *testing.T) {
	f := newFake(t)
	f.add(1, 2)
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		send(ws, fakeEvent(3))
		readAll(ws)
	}
	f.onList = func(n int, c *fasthttp.RequestCtx) bool {
		switch n {
		case 1:
			c.SetStatusCode(429)
			c.Response.Header.Set("Retry-After", "0")
		case 2:
			c.SetStatusCode(503)
		case 3:
			c.SetBodyString(`{"success":false}`)
		default:
			return false
		}
		return true
	}
	k := &sink{}
	start(t, newSource(t, f), fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) && k.has(fakeID(3)) })
	if diff := cmp.Diff(ids(1, 2, 3), k.first()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, _, dials := f.seen(); len(dials) != 1 {
		t.Errorf("dials = %d, want 1", len(dials))
	}
}

// What may be older than the log's history is told apart: listed by REST, or
// replayed, and not younger by the clock.
func TestEventsThatMayBeOlderThanTheHistoryAreTold(t *testing.T) {
	f := newFake(t)
	now := int(time.Now().Unix() - base) // the fake does not tell the time: by ours
	listed, live, replayed, young, late := now-20, now-10, now+1, now+1000, now+1
	f.add(listed)
	f.onDial = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 2 {
			f.add(live) // not before: it would be listed
		}
		return false
	}
	s, k := newSource(t, f), &sink{}
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			send(ws, fakeEvent(live))
			waitFor(t, "live events", func() bool { return k.has(fakeID(live)) })
			f.add(late)
			waitFor(t, "the sweep", func() bool { return k.has(fakeID(late)) })
			hangUp(ws, 1012)
			return
		}
		send(ws, fakeEvent(replayed), fakeEvent(young))
		readAll(ws)
	}
	s.tune.sweeps = []time.Duration{300 * time.Millisecond}
	before := time.Now().Unix()
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "all", func() bool { return k.has(ids(listed, live, replayed, young, late)...) })
	first := map[string]gateway.Arrival{}
	for _, a := range k.got() {
		if _, ok := first[a.Event.ID]; !ok {
			first[a.Event.ID] = a
		}
	}
	began := first[fakeID(listed)].Cursor.Began
	if began < before || began > time.Now().Unix() {
		t.Fatalf("the history began at %d, want a time since %d", began, before)
	}
	for _, c := range []struct {
		name string
		n    int
		want int64
	}{
		{"brought by a stream that replays nothing", live, 0},
		{"replayed", replayed, began},
		{"created later", young, 0},
		{"found by a sweep", late, began},
	} {
		if got := first[fakeID(c.n)]; got.Cursor.Began != c.want || got.Prior != (c.want != 0) {
			t.Errorf("%s: prior %v to %d, want to %d", c.name, got.Prior, got.Cursor.Began, c.want)
		}
	}
}

// Else the next term would not know it, and what comes late then could be older.
func TestFirstEventOfAHistoryTellsWhenItBegan(t *testing.T) {
	f := newFake(t)
	now := int(time.Now().Unix() - base)
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		send(ws, fakeEvent(now+100), fakeEvent(now+101))
		readAll(ws)
	}
	k := &sink{}
	start(t, newSource(t, f), gateway.UpstreamCursor{}, k)
	waitFor(t, "both", func() bool { return k.has(ids(now+100, now+101)...) })
	first, second := k.got()[0], k.got()[1]
	if first.Cursor.Began == 0 || second.Cursor.Began != 0 || first.Prior || second.Prior {
		t.Errorf("the history began at %d and %d, prior %v and %v; want that with the first alone, and neither prior",
			first.Cursor.Began, second.Cursor.Began, first.Prior, second.Prior)
	}
}

// An event that does not say when it was created is as old as can come.
func TestEventWithoutATimeMayBeOlderForAWhile(t *testing.T) {
	for _, c := range []struct {
		began int64
		want  bool
	}{{base + 1000 - 60, true}, {base + 1000 - 62, true}, {base + 1000 - 63, false}} {
		f := newFake(t)
		f.add(1000)
		f.onStream = func(_ int, ws *websocket.Conn, _ string) {
			send(ws, `{"id":"evt_x","object":"event","type":"invoice.updated"}`)
			readAll(ws)
		}
		k, from := &sink{}, fakeCursor(1000)
		from.Began = c.began
		start(t, newSource(t, f), from, k)
		waitFor(t, "the event", func() bool { return k.has("evt_x") })
		arrivals := k.got()
		if got := arrivals[len(arrivals)-1].Prior; got != c.want {
			t.Errorf("the history began at %d: prior %v, want %v", c.began, got, c.want)
		}
	}
}

func TestNextTermKnowsWhenTheHistoryBegan(t *testing.T) {
	f := newFake(t)
	f.add(1, 2, 4, 5)
	for _, began := range []int64{0, base + 2} {
		s, k := newSource(t, f), &sink{}
		from := fakeCursor(1)
		from.Began = began
		stop := start(t, s, from, k)
		waitFor(t, "live", func() bool { return k.is(gateway.Live) })
		_ = stop() // its error is the other tests' to look at
		var got []int64
		for _, a := range k.got() {
			got = append(got, a.Cursor.Began)
		}
		if diff := cmp.Diff([]int64{began, began, began, 0}, got); diff != "" {
			t.Errorf("Began, from %d (-want +got):\n%s", began, diff)
		}
	}
}

func TestSweepBringsWhatTheListShowedLate(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		send(ws, fakeEvent(3))
		readAll(ws)
	}
	f.onList = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 2 {
			f.add(2, 3)
		}
		return false
	}
	s, k := newSource(t, f), &sink{}
	s.tune.sweeps = []time.Duration{300 * time.Millisecond, time.Hour}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "event 2", func() bool { return k.has(fakeID(2)) })
	got := k.got()
	if last := got[len(got)-1]; last.Event.ID != fakeID(2) || !last.Cursor.IsZero() || len(got) != 3 {
		t.Errorf("%d arrivals, last = %s with cursor %q, want 3, %s without", len(got), last.Event.ID, last.Cursor.ID, fakeID(2))
	}
	if st := s.Stats(); st.Swept != 1 {
		t.Errorf("swept = %d, want 1", st.Swept)
	}
}

func TestHoldingStreamOverflows(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			for i := 2; i <= 40; i++ {
				f.add(i)
				send(ws, fakeEvent(i))
			}
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	s.tune.holdFrames = 10
	f.onList = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 1 {
			waitFor(t, "the overflow", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.ends == 1 })
		}
		return false
	}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "live again", func() bool { _, _, d := f.seen(); return len(d) == 2 && k.is(gateway.Live) })
	for i := 1; i <= 40; i++ {
		if !k.has(fakeID(i)) {
			t.Errorf("event %d is missing", i)
		}
	}
}

func TestBlockedPutIsNotSilence(t *testing.T) {
	f := newFake(t)
	begin, blocked := make(chan struct{}), make(chan struct{})
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		<-begin
		send(ws, fakeEvent(1))
		<-blocked
		for n := 2; n <= 20; n++ {
			send(ws, fakeEvent(n))
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	s.tune.ping, s.tune.silence = 20*time.Millisecond, 150*time.Millisecond
	once := make(chan struct{}, 1)
	once <- struct{}{}
	k.onPut = func(context.Context) error {
		select {
		case <-once:
			close(blocked)
			timer := time.NewTimer(400 * time.Millisecond) // longer than silence
			defer timer.Stop()
			<-timer.C
		default:
		}
		return nil
	}
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	close(begin)
	waitFor(t, "the last event", func() bool { return k.has(fakeID(20)) })
	if _, _, dials := f.seen(); len(dials) != 1 {
		t.Errorf("dials = %d, want 1", len(dials))
	}
}

func TestSilentSocketIsDialledAgain(t *testing.T) {
	f := newFake(t)
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			<-quit // reads nothing, so answers no ping
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	s.tune.ping, s.tune.silence = 20*time.Millisecond, 100*time.Millisecond
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "the second dial", func() bool { _, _, d := f.seen(); return len(d) == 2 && k.is(gateway.Live) })
}

func TestRunEndsDuringHandshake(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	f := &fakePepay{addr: ln.Addr().String()}
	s, k := newSource(t, f, func(c *Config) { c.Auth = AuthKey }), &sink{}
	stop := start(t, s, gateway.UpstreamCursor{}, k)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	begin := time.Now()
	if err := stop(); !errors.Is(err, errStop) {
		t.Errorf("Run() = %v, want %v", err, errStop)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Run() ended after %v, want at once", took)
	}
}

func TestHandshakeAnswerIsBounded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	done := make(chan int, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			done <- 0
			return
		}
		defer func() { _ = conn.Close() }()
		n, _ := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n"))
		for n < 64<<20 {
			m, err := conn.Write([]byte("X-Filler: " + strings.Repeat("x", 4000) + "\r\n"))
			n += m
			if err != nil {
				break
			}
		}
		done <- n
	}()
	s := newSource(t, &fakePepay{addr: ln.Addr().String()}, func(c *Config) { c.Auth = AuthKey })
	_, _, err = s.dial(t.Context(), secret{}, "")
	if err == nil || !strings.Contains(err.Error(), "handshake answer") {
		t.Errorf("dial() = %v, want a bounded answer", err)
	}
	if n := <-done; n >= 64<<20 {
		t.Errorf("the server could write %d bytes, want far fewer", n)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{APIURL: "https://api.example", APIKey: "ck_1"}
	tests := []struct {
		name   string
		change func(*Config)
	}{
		{"no URL", func(c *Config) { c.APIURL = "" }},
		{"relative", func(c *Config) { c.APIURL = "/api" }},
		{"password in the URL", func(c *Config) { c.APIURL = "https://a:" + markerKey + "@x" }},
		{"query in the stream URL", func(c *Config) { c.WSURL = "wss://x/?token=" + markerKey }},
		{"scheme", func(c *Config) { c.WSURL = "ftp://x" }},
		{"control character", func(c *Config) { c.WSURL = "ws://x\n" + markerKey }},
		{"no key", func(c *Config) { c.APIKey = "" }},
		{"key with a line break", func(c *Config) { c.APIKey = markerKey + "\n" }},
		{"auth", func(c *Config) { c.Auth = "jwt" }},
		{"backfill", func(c *Config) { c.Backfill = -1 }},
	}
	if _, err := New(good, discard()); err != nil {
		t.Errorf("New() = %v, want nil", err)
	}
	for _, tt := range tests {
		cfg := good
		tt.change(&cfg)
		_, err := New(cfg, discard())
		if err == nil {
			t.Errorf("%s: New() = nil, want an error", tt.name)
		} else if strings.Contains(err.Error(), markerKey) {
			t.Errorf("%s: New()'s error holds a secret", tt.name)
		}
	}
}

// What a sweep lists was nearly all handed over before: it is read no further
// than its id, but what it says of the list's reach holds.
func TestBackfillLeavesOutWhatIsHandedOver(t *testing.T) {
	f := newFake(t)
	f.add(1, 2, 3, 4)
	s := newSource(t, f)
	var handed []string
	var reached bool
	b := &backfill{
		Source: s, from: fakeCursor(2), floor: base + 2,
		found: func(met bool) error { reached = met; return nil },
		hand: func(es []entry) error {
			for _, e := range es {
				handed = append(handed, e.ID)
			}
			return nil
		},
		again: func(f *failure) error { return f },
		has:   func(id string) bool { return id == fakeID(2) || id == fakeID(4) },
	}
	if _, err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{fakeID(3)}; !slices.Equal(handed, want) {
		t.Errorf("handed over %v, want %v", handed, want)
	}
	if !reached {
		t.Error("the list does not reach the cursor's event, want it to: it was only left out")
	}
}

// What a sweep leaves out must not grow for as long as a connection lasts.
func TestHandedOverIsForgottenWithTime(t *testing.T) {
	var r recent
	now := time.Now()
	r.add("a", now)
	r.add("b", now.Add(recentAge))
	if !r.has("a") || !r.has("b") {
		t.Errorf("after %v: has(a) = %t, has(b) = %t, want both", recentAge, r.has("a"), r.has("b"))
	}
	r.add("c", now.Add(2*recentAge))
	if r.has("a") || !r.has("b") || !r.has("c") {
		t.Errorf("after %v: has(a) = %t, has(b) = %t, has(c) = %t, want false, true, true", 2*recentAge, r.has("a"), r.has("b"), r.has("c"))
	}
	for i := range 3 * maxRecent {
		r.add(fakeID(i), now.Add(2*recentAge))
	}
	if got := len(r.young) + len(r.old); got > 2*maxRecent {
		t.Errorf("%d ids held, want at most %d", got, 2*maxRecent)
	}
}
