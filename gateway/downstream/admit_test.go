package downstream

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"pepay-gateway/auth"
)

// No page but those configured gets through any door, whatever token it has: not
// to an upgrade, not even to one that is told its refusal, and not to an answer
// that it may read.
func TestOriginIsExact(t *testing.T) {
	r := newRig(t, nil)
	doors := []string{wsPath, ssePath, "/api/v1/events", "/api/v1/events/evt_1-1", "/api/v1/orders/order_1/state"}
	for _, tc := range []struct {
		origins []string
		allowed bool
	}{
		{nil, true},
		{[]string{shop}, true},
		{[]string{"https://evil.example"}, false},
		{[]string{"null"}, false},
		{[]string{""}, false},
		{[]string{"*"}, false},
		{[]string{shop + ".evil.example"}, false},
		{[]string{"https://evilshop.example"}, false},
		{[]string{"https://evil.example/" + shop}, false},
		{[]string{"https://evil.example#" + shop}, false},
		{[]string{"https://shop.example@evil.example"}, false},
		{[]string{"https://www.shop.example"}, false},
		{[]string{"https://sh\u043ep.example"}, false},
		{[]string{shop + ":443"}, false},
		{[]string{shop + ":8443"}, false},
		{[]string{shop + "."}, false},
		{[]string{shop + "/"}, false},
		{[]string{"http://shop.example"}, false},
		{[]string{"shop.example"}, false},
		{[]string{strings.ToUpper(shop)}, false},
		{[]string{"https://Shop.example"}, false},
		{[]string{shop + ", https://evil.example"}, false},
		{[]string{shop, shop}, false},
		{[]string{shop, "https://evil.example"}, false},
		{[]string{"https://evil.example", shop}, false},
	} {
		lines := []string{}
		for _, o := range tc.origins {
			lines = append(lines, "Origin: "+o)
		}
		check := func(what string, got *client, want int) {
			t.Helper()
			if !tc.allowed {
				want = http.StatusForbidden
			}
			allowed := ""
			if tc.allowed && len(tc.origins) > 0 {
				allowed = tc.origins[0]
			}
			if got.resp.StatusCode != want || got.resp.Header.Get("Access-Control-Allow-Origin") != allowed {
				t.Errorf("%s from %q = %d, readable by %q, want %d, %q", what, tc.origins,
					got.resp.StatusCode, got.resp.Header.Get("Access-Control-Allow-Origin"), want, allowed)
			}
			got.close()
		}
		upgrade := append([]string{
			"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		}, lines...)
		check("WebSocket", r.request("GET", wsPath+"?token="+r.token("alice"), "", upgrade...), http.StatusSwitchingProtocols)
		told := append(upgrade, "Sec-WebSocket-Protocol: pepay.v1")
		check("WebSocket of pepay.v1", r.request("GET", wsPath+"?token="+r.token("alice"), "", told...), http.StatusSwitchingProtocols)
		check("WebSocket with a bad token", r.request("GET", wsPath+"?token=bad", "", told...), http.StatusSwitchingProtocols)
		bearer := append([]string{"Authorization: Bearer " + r.token("alice")}, lines...)
		check("SSE", r.request("GET", ssePath, "", bearer...), http.StatusOK)
		check("list", r.request("GET", "/api/v1/events", "", bearer...), http.StatusOK)
		check("unknown event", r.request("GET", "/api/v1/events/evt_1-1", "", bearer...), http.StatusNotFound)
		check("unknown state", r.request("GET", "/api/v1/orders/order_1/state", "", bearer...), http.StatusNotFound)
		for _, door := range doors {
			check("preflight of "+door, r.request("OPTIONS", door, "",
				append([]string{"Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization, last-event-id"}, lines...)...), http.StatusNoContent)
			check("POST to "+door, r.request("POST", door, "", bearer...), http.StatusMethodNotAllowed)
		}
	}
}

func TestTokenTransports(t *testing.T) {
	r := newRig(t, nil)
	token := r.token("alice")
	bearer := http.Header{"Authorization": {"Bearer " + token}}
	for _, tc := range []struct {
		name         string
		query        string
		header       http.Header
		subprotocols []string
		status       int
	}{
		{"query", "token=" + token, nil, nil, 101},
		{"header", "", bearer, nil, 101},
		{"subprotocol", "", nil, []string{"pepay.v1", "bearer." + token}, 101},
		{"API key", "", http.Header{"X-Api-Key": {opsKey}}, nil, 101},
		{"bearer alone", "", nil, []string{"bearer." + token}, 400},
		{"two places", "token=" + token, bearer, nil, 400},
		{"twice in the query", "token=" + token + "&token=" + token, nil, nil, 400},
		{"token and key", "token=" + token, http.Header{"X-Api-Key": {opsKey}}, nil, 400},
		{"two keys", "", http.Header{"X-Api-Key": {opsKey}, "X-Commerce-Api-Key": {opsKey}}, nil, 400},
		{"none", "", nil, nil, 401},
		{"basic", "", http.Header{"Authorization": {"Basic eDp5"}}, nil, 401},
		{"garbage", "token=abc", nil, nil, 401},
		{"key without events", "", http.Header{"X-Api-Key": {mintKey}}, nil, 403},
		{"unknown key", "", http.Header{"X-Api-Key": {"gwk_no"}}, nil, 401},
		{"token as key", "", http.Header{"X-Api-Key": {token}}, nil, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := r.dial(tc.query, tc.header, tc.subprotocols...)
			if c.resp == nil {
				t.Fatalf("no answer: %v", err)
			}
			if c.resp.StatusCode != tc.status {
				t.Errorf("status = %d, want %d", c.resp.StatusCode, tc.status)
			}
			if got := c.resp.Header.Get("Sec-WebSocket-Protocol"); tc.status == 101 && len(tc.subprotocols) > 0 && got != subprotocol {
				t.Errorf("subprotocol = %q, want %q", got, subprotocol)
			}
		})
	}
}

func TestRefusalsThatPagesCanSee(t *testing.T) {
	r := newRig(t, nil)
	expired := r.mintWith(func(c *auth.Claims) {
		c.Customer = "alice"
		c.IssuedAt = c.IssuedAt.Add(-time.Hour)
		c.ExpiresAt = c.ExpiresAt.Add(-time.Hour)
	})
	sseToken := r.mintWith(func(c *auth.Claims) { c.Customer, c.Kind = "alice", auth.KindSSE })
	for _, tc := range []struct {
		query  string
		status int // for clients that see it
		close  int
		code   string
	}{
		{"token=abc", 401, 4401, "TOKEN_INVALID"},
		{"token=" + expired, 401, 4401, "TOKEN_INVALID"},
		{"token=" + sseToken, 403, 4403, "TOKEN_SSE_ONLY"},
		{"token=" + r.token("alice") + "&customer_id=bob", 403, 4403, "OUT_OF_SCOPE"},
		{"token=" + r.token("alice") + "&since=", 400, 4400, "VALIDATION_ERROR"},
	} {
		c := r.ws(tc.query)
		if m, _ := c.next(); m.kind() != "error:"+tc.code {
			t.Errorf("%s: first message = %s, want %s", tc.code, m.Data, tc.code)
		}
		c.wantClose(tc.close)

		c, err := r.dial(tc.query, http.Header{"Origin": {shop}})
		r.must(err)
		c.want("error:" + tc.code)
		c.wantClose(tc.close)

		c, err = r.dial(tc.query, nil)
		if err == nil || c.resp == nil || c.resp.StatusCode != tc.status {
			t.Errorf("%s to a server: %v, want status %d", tc.code, err, tc.status)
		}
	}
	if n := r.node.Stats().Subscribers; n != 0 {
		t.Errorf("subscribers = %d, want 0", n)
	}
}

func TestFiltersOnlyNarrow(t *testing.T) {
	r := newRig(t, nil)
	account := r.mintWith(func(c *auth.Claims) { c.Account = true })
	tokens := map[string]string{
		"customer": r.token("alice"), "order": r.token("", "order_1"), "both": r.token("alice", "order_1"), "account": account,
	}
	filters := map[string]map[string]int{ // filter → token → status; "" for the others
		"":                                 {"": 200},
		"customer_id=alice":                {"": 200},
		"customer_id=bob":                  {"customer": 403, "both": 403, "": 200},
		"customer_id=alice&customer_id=b":  {"customer": 403, "both": 403, "": 200},
		"customer_id=Alice":                {"customer": 403, "both": 403, "": 200},
		"customer_id=alice%20":             {"customer": 403, "both": 403, "": 200},
		"customer_id=*":                    {"customer": 403, "both": 403, "": 200},
		"customer_id=":                     {"": 400},
		"customer_id=a%00":                 {"": 400},
		"order_id=order_1":                 {"": 200},
		"order_id=order_10":                {"order": 403, "both": 403, "": 200},
		"order_id=order_1&order_id=o2":     {"order": 403, "both": 403, "": 200},
		"order_id=" + longID:               {"": 400},
		"order_id[]=order_9":               {"": 200}, // not a parameter of ours
		"Order_Id=order_9":                 {"": 200},
		"invoice_id=i":                     {"": 200},
		"wallet_address=0xAB":              {"": 200},
		"wallet_network=solana":            {"": 200},
		"types=commerce.order.*,invoice.*": {"": 200},
		"types=*":                          {"": 400},
		"types=a.*.b":                      {"": 400},
		"types=":                           {"": 400},
		"types=a,,b":                       {"": 400},
		"since=cur_short":                  {"": 400},
		"since=a&since=b":                  {"": 400},
		"since=%01":                        {"": 400},
		"snapshot=yes":                     {"": 400},
		"control=2":                        {"": 400},
		"format=event_v2":                  {"": 400},
		"format=event_v1":                  {"": 200},
		"environment=x&z=1":                {"": 200},
		"x=%zz":                            {"": 400},
		"order_id=o" + strings.Repeat("&order_id=o", 50): {"": 400},
		"types=a" + strings.Repeat(",a", 50):             {"": 400},
	}
	for filter, statuses := range filters {
		for kind, token := range tokens {
			want, listed := statuses[kind]
			if !listed {
				want = statuses[""]
			}
			c := r.sse(filter, "Authorization: Bearer "+token)
			if got := c.resp.StatusCode; got != want {
				t.Errorf("%s token with %.60q: status = %d, want %d", kind, filter, got, want)
			}
			c.close()
		}
	}
}

func TestNeverAgain(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{ssePath, ssePath + "?token=abc&since="} {
		resp, body := r.answer("GET", path, "", "Last-Event-ID: end_4409", "Origin: "+shop)
		if resp.StatusCode != 204 || body != "" || resp.Header.Get("Access-Control-Allow-Origin") != shop {
			t.Errorf("GET %s after end_4409 = %d %q %v, want 204 that the page may read", path, resp.StatusCode, body, resp.Header)
		}
	}
}

func TestKeysAreNotForBrowsers(t *testing.T) {
	r := newRig(t, nil)
	resp, body := r.answer("GET", ssePath, "", "X-Api-Key: "+opsKey, "Origin: "+shop)
	if resp.StatusCode != 403 || errorCode(t, body) != "API_KEY_IN_BROWSER" {
		t.Errorf("API key with Origin = %d %s, want 403 API_KEY_IN_BROWSER", resp.StatusCode, body)
	}
}

func TestHandshakeLimit(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.HandshakesPerIP = 1 })
	token := "token=" + r.token("alice")
	r.sse(token)
	r.sse(token)
	// The third: pages are sent away for a while, and a WebSocket is not even upgraded.
	c := r.sse(token, "Origin: "+shop)
	if c.resp.StatusCode != 200 || c.resp.Header.Get("Access-Control-Allow-Origin") != shop {
		t.Errorf("event stream past the limit = %d %v, want 200 that the page may read", c.resp.StatusCode, c.resp.Header)
	}
	m := c.want("disconnect")
	if m.Retry != fmt.Sprint(m.fields["retry_ms"]) || m.fields["reconnect"] != true || m.fields["retry_ms"].(float64) < 4000 {
		t.Errorf("disconnect = %s, want a retry far away", m.Data)
	}
	c.wantEnd()
	ws, err := r.dial(token, nil, subprotocol)
	if err == nil || ws.resp.StatusCode != 429 || ws.resp.Header.Get("Retry-After") == "" {
		t.Errorf("WebSocket past the limit = %v, want 429 with Retry-After", ws.resp)
	}
}

// What a client writes into X-Forwarded-For gives it no fresh budget, and takes
// none from others: two streams are of one address, or they are not.
func TestForwardedForCannotBeForged(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	hops := func(first string, n int) string { return first + strings.Repeat(", 10.0.0.9", n) }
	for _, tc := range []struct {
		name          string
		proxies       []netip.Prefix // 127.0.0.1, where the test is, among them or not
		first, second []string       // lines
		same          bool
	}{
		{"nobody is trusted", nil, []string{"198.51.100.1"}, []string{"198.51.100.2"}, true},
		{"nobody is trusted, one line and none", nil, []string{"198.51.100.1"}, nil, true},
		{"another is trusted", loopback[1:], []string{"198.51.100.1"}, []string{"198.51.100.2"}, true},
		{"another is trusted and named", loopback[1:], []string{"198.51.100.1, 10.0.0.1"}, []string{"198.51.100.2, 10.0.0.1"}, true},
		{"a proxy's two clients", loopback, []string{"198.51.100.1"}, []string{"198.51.100.2"}, false},
		{"a proxy's one client", loopback, []string{"198.51.100.1"}, []string{"198.51.100.1"}, true},
		{"forged to the left", loopback, []string{"1.1.1.1, 198.51.100.1"}, []string{"2.2.2.2, 198.51.100.1"}, true},
		{"forged in a line of its own", loopback, []string{"1.1.1.1", "198.51.100.1"}, []string{"2.2.2.2", "198.51.100.1"}, true},
		{"a line for each hop", loopback, []string{"198.51.100.1", "10.0.0.9"}, []string{"198.51.100.2", "10.0.0.9"}, false},
		{"a proxy behind a proxy", loopback, []string{"198.51.100.1, 10.0.0.1"}, []string{"198.51.100.2, 10.0.0.1"}, false},
		{"a hundred hops", loopback, []string{hops("198.51.100.1", 100)}, []string{hops("198.51.100.2", 100)}, false},
		{"a hundred hops, forged beyond the client", loopback, []string{hops("1.1.1.1, 198.51.100.1", 100)}, []string{hops("2.2.2.2, 198.51.100.1", 100)}, true},
		{"garbage counts as the proxy", loopback, []string{"1.1.1.1, garbage"}, []string{"2.2.2.2, other garbage"}, true},
		{"empty", loopback, []string{""}, []string{","}, true},
		{"numbers that some take for addresses", loopback, []string{"0x7f.1"}, []string{"2130706433"}, true},
		{"IPv4 within IPv6", loopback, []string{"::ffff:198.51.100.1"}, []string{"198.51.100.1"}, true},
		{"two of them", loopback, []string{"::ffff:198.51.100.1"}, []string{"::ffff:198.51.100.2"}, false},
		{"with a port", loopback, []string{"198.51.100.1:1"}, []string{"198.51.100.1:2"}, true},
		{"IPv6 neighbours", loopback, []string{"2001:db8::1"}, []string{"2001:db8::2"}, true},
		{"IPv6 in brackets, with a port", loopback, []string{"[2001:db8::1]:1"}, []string{"2001:db8::1"}, true},
		{"other networks of IPv6", loopback, []string{"2001:db8:0:1::1"}, []string{"2001:db8:0:2::1"}, false},
		{"a zone", loopback, []string{"fe80::1%a"}, []string{"fe80::1%b"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Limits.ConnectionsPerIP, c.TrustedProxies = 1, tc.proxies })
			token := "token=" + r.token("alice")
			lines := func(values []string) (out []string) {
				for _, v := range values {
					out = append(out, "X-Forwarded-For: "+v)
				}
				return append(out, "X-Real-IP: 203.0.113.1", "Forwarded: for=203.0.113.2") // nobody's business
			}
			r.sse(token, lines(tc.first)...).want("hello")
			want := "hello"
			if tc.same {
				want = "disconnect"
			}
			if m, _ := r.sse(token, lines(tc.second)...).next(); m.kind() != want {
				t.Errorf("the second stream begins with %q, want %q", m.kind(), want)
			}
		})
	}
	r := newRig(t, func(c *Config) { c.Limits.ConnectionsPerIP = 1 })
	token := "token=" + r.token("alice")
	r.ws(token).want("hello")
	c := r.ws(token)
	c.want("disconnect")
	c.want("error:RATE_LIMIT_EXCEEDED")
	c.wantClose(4429)
}

func TestNodeFull(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.Connections = 1 })
	token := "token=" + r.token("alice")
	r.sse(token).want("hello")
	r.sse(token).want("disconnect")
	r.ws(token).wantClose(1013)
	if c, err := r.dial(token, nil); err == nil || c.resp.StatusCode != 503 {
		t.Errorf("WebSocket of a server to a full node: %v, want 503", err)
	}
}

func TestNewestWins(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.ConnectionsPerToken, c.Limits.ConnectionsPerCustomer = 2, 3 })
	token := "token=" + r.token("alice")
	first := r.ws(token)
	settled(first)
	second := r.sse(token)
	settled(second)
	settled(r.sse(token))
	first.want("error:REPLACED")
	first.wantClose(4409)

	settled(r.ws("token=" + r.token("alice"))) // another token of the same customer
	settled(r.ws("token=" + r.token("alice")))
	if m := second.want("error:REPLACED"); m.ID != "end_4409" || m.Event != "error_frame" {
		t.Errorf("error of the replaced event stream has id %q, event %q, want end_4409 and error_frame", m.ID, m.Event)
	}
	second.wantEnd()
	r.until("both count as replaced", func() bool { return r.server.Stats().Closes["4409"] == 2 })
}

func TestHundredsOfTabsKeepTheNewest(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.ConnectionsPerToken = 20 })
	token := "snapshot=0&token=" + r.token("alice")
	var last []*client
	for i := range 300 {
		c := r.sse(token)
		c.want("hello")
		if i >= 280 {
			last = append(last, c)
		}
	}
	r.until("twenty are left", func() bool {
		s := r.server.Stats()
		return s.SSE == 20 && s.Accepted == 20 && s.Closes["4409"] == 280
	})
	r.until("they are live", func() bool { return r.node.Stats().Subscribers == 20 })
	ev := r.publish("order_1", "alice")
	for _, c := range last {
		c.want("replay_complete")
		c.wantEvent(ev)
	}
}

func TestEventSourceTokenHasOneStream(t *testing.T) {
	r := newRig(t, nil)
	_, body := r.answer("POST", mintPath, `{"customer_id":"alice"}`, "X-Api-Key: "+mintKey)
	u, err := url.Parse(minted(t, body)["sse_url"].(string))
	r.must(err)
	old := r.sse(u.RawQuery)
	settled(old)
	settled(r.sse(u.RawQuery))
	if m := old.want("error:REPLACED"); m.ID != "end_4409" {
		t.Errorf("id of the end = %q, want end_4409", m.ID)
	}
	if resp, _ := r.answer("GET", "/api/v1/events?"+u.RawQuery, "", "Authorization: Bearer "+u.Query().Get("token")); resp.StatusCode != 403 {
		t.Errorf("REST with an sse token = %d, want 403", resp.StatusCode)
	}
}
