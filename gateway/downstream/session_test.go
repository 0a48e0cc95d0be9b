package downstream

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

// shortToken is for a session of at most two seconds; tokens count in whole ones.
func (r *rig) shortToken(kind auth.Kind) string {
	return r.mintWith(func(c *auth.Claims) {
		c.Kind, c.Customer = kind, "alice"
		c.IssuedAt = c.IssuedAt.Truncate(time.Second)
		c.ExpiresAt = c.IssuedAt.Add(2 * time.Second)
		c.SessionExpiresAt = c.ExpiresAt
	})
}

func TestSessionEnds(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := open(r, "snapshot=0&token="+r.shortToken(auth.KindStream))
			var m message
			noticed := false
			for m.kind() != "error:SESSION_EXPIRED" {
				var ok bool
				if m, ok = c.next(); !ok {
					t.Fatal("stream ended without saying why")
				}
				noticed = noticed || m.kind() == "token_expiring"
			}
			if !noticed {
				t.Error("no token_expiring before the end")
			}
			if name == "ws" {
				c.wantClose(4401)
				return
			}
			if m.ID != "end_4401" {
				t.Errorf("id of the end = %q, want end_4401", m.ID)
			}
			c.wantEnd()
		})
	}
}

func TestTokenInBandProlongsTheSession(t *testing.T) {
	r := newRig(t, nil)
	end := time.Now().Add(2 * time.Second)
	c := r.ws("snapshot=0&token=" + r.shortToken(auth.KindStream))
	r.say(c, `{"type":"token","token":"`+r.token("alice")+`"}`)
	for {
		m, ok := c.next()
		if !ok {
			t.Fatal("stream ended")
		}
		if m.kind() == "token_accepted" {
			if left := time.Until(time.Unix(int64(m.fields["session_expires_at"].(float64)), 0)); left < 50*time.Minute {
				t.Errorf("session after the new token ends in %v, want an hour", left)
			}
			break
		}
	}
	r.until("the first session would be over", func() bool { return time.Now().After(end) })
	ev := r.publish("order_1", "alice")
	for m, ok := c.next(); m.Data != string(ev.Data); m, ok = c.next() {
		if !ok {
			t.Fatal("the stream ended with the first token's session")
		}
	}
}

func (r *rig) say(c *client, text string) {
	r.Helper()
	r.must(c.conn.WriteMessage(websocket.TextMessage, []byte(text)))
}

func TestTokenInBandMustFit(t *testing.T) {
	r := newRig(t, nil)
	account := r.mintWith(func(c *auth.Claims) { c.Account = true })
	sse := r.mintWith(func(c *auth.Claims) { c.Customer, c.Kind = "alice", auth.KindSSE })
	for _, tc := range []struct {
		name, token, filter, next string
		code                      int // 0 = accepted
	}{
		{"same customer", r.token("alice"), "", r.token("alice"), 0},
		{"other customer", r.token("alice"), "", r.token("bob"), 4403},
		{"account", r.token("alice"), "", account, 4403},
		{"sse token", r.token("alice"), "", sse, 4403},
		{"garbage", r.token("alice"), "", "x.y.z", 4401},
		{"narrower than shown", r.token("alice"), "", r.token("alice", "order_1"), 4403},
		{"narrower, as shown", r.token("alice"), "&order_id=order_1", r.token("alice", "order_1"), 0},
		{"same orders", r.token("", "o1", "o2"), "", r.token("", "o2", "o1"), 0},
		{"wider", r.token("", "o1"), "", r.token("", "o1", "o2"), 4403},
		{"fewer orders", r.token("", "o1", "o2"), "", r.token("", "o1"), 4403},
		{"other subject", r.token("", "o1"), "", r.token("alice", "o1"), 4403},
		{"account again", account, "", account, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := r.ws("snapshot=0&token=" + tc.token + tc.filter)
			settled(c)
			r.say(c, `{"type":"token","token":"`+tc.next+`"}`)
			if tc.code != 0 {
				c.wantClose(tc.code)
				return
			}
			c.want("token_accepted")
		})
	}
}

func TestBadMessages(t *testing.T) {
	r := newRig(t, nil)
	token := "snapshot=0&token=" + r.token("alice")
	for _, text := range []string{
		"", "x", "{}", `{"type":"PING"}`, `{"type":"ping","x":1}`, `{"type":"ping","type":"ping"}`, `{"Type":"ping"}`,
		`{"type":"token"}`, `{"type":"token","token":1}`, `{"type":"auth","token":"x"}`, `["ping"]`, `{"type":"ping"} ` + "{}",
		strings.Repeat("[", 4000),
	} {
		c := r.ws(token)
		settled(c)
		r.say(c, text)
		c.want("error:BAD_MESSAGE")
		c.wantClose(4400)
	}
	c := r.ws(token)
	r.must(c.conn.WriteMessage(websocket.BinaryMessage, []byte(`{"type":"ping"}`)))
	c.wantClose(4400)

	c = r.ws(token)
	r.say(c, strings.Repeat(" ", maxMessage+1))
	c.wantClose(1009)

	c = r.ws(token)
	for range messagesPerWindow + 1 {
		r.say(c, `{"type":"ping"}`)
	}
	c.wantClose(1008)

	c = r.ws(token)
	for range messagesPerWindow + 1 {
		r.must(c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(wait)))
	}
	c.wantClose(1008)
}

// A client may ping once a second for as long as a replay takes.
func TestPingsThatWaitAreOne(t *testing.T) {
	s := &session{}
	s.post(request{token: "t"})
	for range 2 * messagesPerWindow {
		s.post(request{ping: true})
	}
	for _, want := range []request{{token: "t"}, {ping: true}} {
		if r, ok := s.request(true); !ok || r != want {
			t.Errorf("request = %+v, %v, want %+v", r, ok, want)
		}
	}
	if r, ok := s.request(true); ok {
		t.Errorf("request = %+v, want no other", r)
	}
}

func TestDrain(t *testing.T) {
	r := newRig(t, nil)
	token := "snapshot=0&token=" + r.token("alice")
	var clients []*client
	for range 5 {
		clients = append(clients, r.ws(token), r.sse(token))
	}
	plain, err := r.dial(token, nil)
	r.must(err)
	for _, c := range clients {
		settled(c)
	}
	r.until("all are live", func() bool { return r.node.Stats().Subscribers == 11 })

	done := make(chan struct{})
	go func() {
		defer close(done)
		r.server.Drain(context.Background(), 500*time.Millisecond)
	}()
	retries := make(map[string]bool)
	for i, c := range clients {
		m := c.want("disconnect")
		if m.fields["code"] != 1012.0 || m.fields["reconnect"] != true || m.ID != "" {
			t.Errorf("disconnect = %s, want 1012 and reconnect, without id", m.Data)
		}
		retries[fmt.Sprint(m.fields["retry_ms"])] = true
		if i%2 == 0 {
			c.wantClose(1012)
			continue
		}
		if m.Retry != fmt.Sprint(m.fields["retry_ms"]) {
			t.Errorf("retry = %q, want %v", m.Retry, m.fields["retry_ms"])
		}
		c.wantEnd()
	}
	plain.wantClose(1012)
	if len(retries) < 5 {
		t.Errorf("%d different retries, want one for each client", len(retries))
	}
	<-done
	if s := r.server.Stats(); s.WS != 0 || s.SSE != 0 || !s.Draining || s.Closes["1012"] != 11 {
		t.Errorf("Stats() after Drain = %+v, want no streams and 11 closes with 1012", s)
	}

	c := r.sse(token)
	c.want("disconnect")
	c.wantEnd()
	r.ws(token).wantClose(1012)
	if c, err := r.dial(token, nil); err == nil || c.resp.StatusCode != 503 {
		t.Errorf("WebSocket of a server during drain: %v, want 503", err)
	}
	r.server.Drain(context.Background(), 0) // again: nothing to do
}

func TestServeEndsWithOpenStreams(t *testing.T) {
	r := newRig(t, nil)
	token := "snapshot=0&token=" + r.token("alice")
	ws, sse := r.ws(token), r.sse(token)
	settled(ws)
	settled(sse)
	r.stop()
	ws.wantClose(1012)
	sse.want("disconnect")
	err := <-r.served
	r.served <- err // for the cleanup
	if err != nil {
		t.Errorf("Serve() = %v, want nil", err)
	}
}

func TestRegistryConcurrentUse(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Limits = Limits{ConnectionsPerToken: 2, ConnectionsPerCustomer: 3, ConnectionsPerIP: 8}
	})
	token := "token=" + r.token("alice")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				if i%2 == 0 {
					c, err := r.dial(token, nil, subprotocol)
					if err == nil {
						c.close()
					}
					continue
				}
				r.sse(token).close()
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			r.publish("order_1", "alice")
			r.server.Stats()
		}
	})
	wg.Wait()
	r.until("all have left", func() bool {
		s := r.server.Stats()
		return s.WS+s.SSE == 0
	})
	reg := r.server.streams
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if len(reg.perIP)+len(reg.tokens)+len(reg.customers)+len(reg.sessions) != 0 {
		t.Errorf("the registry keeps %d addresses, %d tokens, %d customers, %d sessions, want none",
			len(reg.perIP), len(reg.tokens), len(reg.customers), len(reg.sessions))
	}
}

func TestScopeIDHidesAndTells(t *testing.T) {
	s := &Server{cfg: Config{ScopeKey: []byte("key")}}
	var seen []string
	for _, scope := range []gateway.Scope{
		{Account: true},
		{Customer: "a"},
		{Customer: "b"},
		{Orders: []string{"a"}},
		{Customer: "a", Orders: []string{"b"}},
		{Orders: []string{"a", "b"}},
		{Orders: []string{"ab"}},
		{Customer: "ab"},
	} {
		id := s.scopeID(scope)
		if slices.Contains(seen, id) {
			t.Errorf("scopeID(%+v) = %s, want another than any before", scope, id)
		}
		seen = append(seen, id)
	}
	if got, want := s.scopeID(gateway.Scope{Orders: []string{"b", "a", "b"}}), s.scopeID(gateway.Scope{Orders: []string{"a", "b"}}); got != want {
		t.Errorf("scopeID of the same orders = %s, want %s", got, want)
	}
	other := &Server{cfg: Config{ScopeKey: []byte("another key")}}
	if id := other.scopeID(gateway.Scope{Customer: "a"}); slices.Contains(seen, id) {
		t.Errorf("scopeID with another key = %s, want another: whoever has no key must not guess scopes", id)
	}
}

func TestLimiterForgetsTheLeastRecent(t *testing.T) {
	l, now := newLimiter(1), time.Now()
	addr := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for i := range limiterEntries + 1000 {
		l.allow(addr(i), now)
	}
	if got := len(l.buckets); got != limiterEntries || l.recent.Len() != got {
		t.Errorf("the limiter holds %d and %d entries, want %d", got, l.recent.Len(), limiterEntries)
	}
	if l.allow(addr(limiterEntries+999), now); l.allow(addr(limiterEntries+999), now) {
		t.Error("a third handshake within the burst was allowed, want not")
	}
	six := netip.MustParseAddr("2001:db8::1")
	l.allow(six, now)
	l.punish(netip.MustParseAddr("2001:db8::2"), now)
	if !l.exhausted(six, now) {
		t.Error("a neighbour in the same /64 has handshakes left, want none")
	}
}
