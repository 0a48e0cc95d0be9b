package downstream

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

// minted returns the data of a mint's answer.
func minted(t testing.TB, body string) map[string]any {
	t.Helper()
	var a struct {
		Success bool
		Data    map[string]any
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || !a.Success {
		t.Fatalf("body = %q, want a token", body)
	}
	return a.Data
}

func TestMint(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MerchantID, c.Environment = 4217, "devnet" })
	resp, body := r.answer("POST", mintPath, `{"scope":"commerce","ttl_seconds":120,"customer_id":"alice","order_id":["order_1","order_2"],"new":{}}`,
		"X-Api-Key: "+mintKey, "Origin: "+shop)
	if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("mint = %d %v, want 200 without CORS, not stored", resp.StatusCode, resp.Header)
	}
	data := minted(t, body)
	claims, err := r.keys.Verify(data["token"].(string), time.Now())
	r.must(err)
	if claims.Customer != "alice" || !slices.Equal(claims.Orders, []string{"order_1", "order_2"}) || claims.Kind != auth.KindStream ||
		claims.ExpiresAt.Sub(claims.IssuedAt) != 2*time.Minute || claims.SessionExpiresAt.Sub(claims.IssuedAt) != time.Hour {
		t.Errorf("claims = %+v, want alice's two orders for 2 minutes and an hour", claims)
	}
	if data["expires_at"] != float64(claims.ExpiresAt.Unix()) || data["session_expires_at"] != float64(claims.SessionExpiresAt.Unix()) ||
		data["merchant_id"] != 4217.0 || data["network_environment"] != "devnet" || data["scope"] != "commerce" {
		t.Errorf("answer = %v", data)
	}
	if data["ws_url"] != "wss://events.shop.example/ws/commerce/events" {
		t.Errorf("ws_url = %v, want it on the public URL", data["ws_url"])
	}
	token, ok := strings.CutPrefix(data["sse_url"].(string), "https://events.shop.example/sse/commerce/events?token=")
	sse, err := r.keys.Verify(token, time.Now())
	if !ok || err != nil || sse.Kind != auth.KindSSE || !sse.ExpiresAt.Equal(claims.SessionExpiresAt) || sse.Customer != "alice" {
		t.Errorf("sse_url has claims %+v, %v, want an sse token until the session ends", sse, err)
	}
}

func TestMintRefuses(t *testing.T) {
	r := newRig(t, nil)
	many := `["o` + strings.Repeat(`","o`, 50) + `"]`
	for _, tc := range []struct {
		key, body string
		want      int
		code      string
	}{
		{opsKey, ``, 200, ""},
		{opsKey, `{}`, 200, ""},
		{opsKey, `{"ttl_seconds":3600}`, 200, ""},
		{opsKey, `{"ttl_seconds":3601}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":86400,"session_seconds":86400}`, 200, ""},
		{mintKey, `{"customer_id":"a","ttl_seconds":86401}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":7200}`, 200, ""},
		{mintKey, `{"customer_id":"a","ttl_seconds":61,"session_seconds":60}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","session_seconds":5}`, 200, ""},
		{mintKey, `{"customer_id":"a","session_seconds":86401}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":0}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":-1}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":"60"}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":6e1}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","ttl_seconds":null}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":1}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":""}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":null}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"customer_id":"a","customer_id":"b"}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"order_id":[]}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"order_id":[1]}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"order_id":` + many + `}`, 400, "VALIDATION_ERROR"},
		{mintKey, `{"order_id":"o"}`, 200, ""},
		{mintKey, `{"scope":"merchant","customer_id":"a"}`, 400, "VALIDATION_ERROR"},
		{mintKey, `[]`, 400, "VALIDATION_ERROR"},
		{mintKey, `{`, 400, "VALIDATION_ERROR"},
		{mintKey, `{}`, 403, "PERMISSION_DENIED"},
		{pinKey, `{"order_id":"o"}`, 403, "CUSTOMER_REQUIRED"},
		{pinKey, `{}`, 403, "CUSTOMER_REQUIRED"},
		{pinKey, `{"customer_id":"a","order_id":"o"}`, 200, ""},
		{"gwk_unknown", `{}`, 401, "API_KEY_INVALID"},
		{"", `{}`, 401, "API_KEY_INVALID"},
		{opsKey, `{"pad":"` + strings.Repeat("x", 4096) + `"}`, 413, "PAYLOAD_TOO_LARGE"},
	} {
		header := []string{}
		if tc.key != "" {
			header = append(header, "X-Commerce-Api-Key: "+tc.key)
		}
		resp, body := r.answer("POST", mintPath, tc.body, header...)
		if resp.StatusCode != tc.want || tc.code != "" && errorCode(t, body) != tc.code {
			t.Errorf("mint %.60s = %d %s, want %d %s", tc.body, resp.StatusCode, body, tc.want, tc.code)
		}
		if tc.want == 200 && tc.key == opsKey && strings.Contains(body, "sse_url") {
			t.Errorf("mint of the account = %s, want no sse_url", body)
		}
	}
}

func ids(events ...*gateway.Event) []string {
	var out []string
	for _, ev := range events {
		out = append(out, ev.ID)
	}
	return out
}

func TestListEvents(t *testing.T) {
	r := newRig(t, nil)
	a1, b1, a2 := r.publish("order_1", "alice"), r.publish("order_2", "bob"), r.publish("order_3", "alice")
	for _, tc := range []struct {
		query string
		want  []string
		more  bool
	}{
		{"", ids(a2, b1, a1), false},
		{"limit=2", ids(a2, b1), true},
		{"limit=1&starting_after=" + a2.ID, ids(b1), true},
		{"ending_before=" + a1.ID, ids(a2, b1), false},
		{"customer_id=alice", ids(a2, a1), false},
		{"order_id=order_2", ids(b1), false},
		{"commerce_order_id=order_2", ids(b1), false},
		{"type=invoice.*", nil, false},
		{"type=commerce.order.*", ids(a2, b1, a1), false},
		{"created%5Bgte%5D=1767225600&created[lte]=1767225600", ids(a2, b1, a1), false},
		{"created[gte]=1767225601", nil, false},
		{"environment=devnet", ids(a2, b1, a1), false},
	} {
		resp, body := r.answer("GET", "/api/v1/events?"+tc.query, "", "X-Api-Key: "+opsKey)
		var a struct {
			Data struct {
				Object  string
				Data    []struct{ ID string }
				HasMore *bool `json:"has_more"`
			}
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil || resp.StatusCode != 200 || a.Data.Object != "list" {
			t.Errorf("list %s = %d %s, want a list", tc.query, resp.StatusCode, body)
			continue
		}
		var got []string
		for _, ev := range a.Data.Data {
			got = append(got, ev.ID)
		}
		if !slices.Equal(got, tc.want) || *a.Data.HasMore != tc.more {
			t.Errorf("list %s = %v, more %v, want %v, more %v", tc.query, got, *a.Data.HasMore, tc.want, tc.more)
		}
	}
	for _, query := range []string{
		"limit=0", "limit=101", "limit=x", "limit=1&limit=2", "created[gte]=-1", "created[lte]=1.5", "starting_after=",
		"starting_after=a&ending_before=b", "order_id=", "type=*", "order_id=a&commerce_order_id=b",
	} {
		if resp, body := r.answer("GET", "/api/v1/events?"+query, "", "X-Api-Key: "+opsKey); resp.StatusCode != 400 || errorCode(t, body) != "VALIDATION_ERROR" {
			t.Errorf("list %s = %d %s, want 400", query, resp.StatusCode, body)
		}
	}
	_, body := r.answer("GET", "/api/v1/events", "", "Authorization: Bearer "+r.token("alice"))
	if strings.Contains(body, b1.ID) || !strings.Contains(body, string(a1.Data)) {
		t.Errorf("alice's list = %s, want her events, byte for byte", body)
	}
}

func TestRESTKeepsToTheScope(t *testing.T) {
	r := newRig(t, nil)
	mine, foreign := r.publish("order_1", "alice"), r.publish("order_2", "bob")
	token := r.token("alice")
	for _, header := range []string{"Authorization: Bearer " + token, "X-Api-Key: " + token, "x-commerce-api-key: " + token} {
		for path, want := range map[string]int{
			"/api/v1/events/" + mine.ID:      200,
			"/api/v1/events/" + foreign.ID:   404,
			"/api/v1/events/evt_1-1":         404,
			"/api/v1/events?customer_id=bob": 403,
			"/api/v1/orders/order_1/state":   200,
			"/api/v1/orders/order_2/state":   404,
			"/api/v1/orders/order_9/state":   404,
		} {
			if resp, body := r.answer("GET", path, "", header); resp.StatusCode != want {
				t.Errorf("GET %s = %d %s, want %d", path, resp.StatusCode, body, want)
			}
		}
	}
	_, f := r.answer("GET", "/api/v1/events/"+foreign.ID, "", "X-Api-Key: "+token)
	_, u := r.answer("GET", "/api/v1/events/evt_1-1", "", "X-Api-Key: "+token)
	if f != u {
		t.Errorf("foreign = %s, unknown = %s, want the same", f, u)
	}
	if _, body := r.answer("GET", "/api/v1/events/"+mine.ID, "", "X-Api-Key: "+token); body != `{"success":true,"data":`+string(mine.Data)+`}` {
		t.Errorf("event = %s, want its bytes", body)
	}
	if resp, _ := r.answer("GET", "/api/v1/events", "", "X-Api-Key: "+mintKey); resp.StatusCode != 403 {
		t.Errorf("list with a mint key = %d, want 403", resp.StatusCode)
	}
	if resp, _ := r.answer("GET", "/api/v1/events", ""); resp.StatusCode != 401 {
		t.Errorf("list without credential = %d, want 401", resp.StatusCode)
	}
}

func TestOrderState(t *testing.T) {
	r := newRig(t, nil)
	r.publish("order_1", "alice")
	newest := r.publish("order_1", "alice")
	r.cover("alice")
	get := func(header ...string) (int, string, string) {
		resp, body := r.answer("GET", "/api/v1/orders/order_1/state", "", append(header, "Authorization: Bearer "+r.token("alice"))...)
		if got := resp.Header.Get("Cache-Control"); got != "private, no-cache" {
			t.Errorf("Cache-Control = %q, want private, no-cache", got)
		}
		health, _ := r.node.Health()
		if got, want := resp.Header.Get("Stream-Status"), string(health.State); got != want {
			t.Errorf("Stream-Status = %q, want %q", got, want)
		}
		return resp.StatusCode, resp.Header.Get("ETag"), body
	}
	status, etag, body := get()
	if status != 200 || !strings.HasPrefix(etag, `"`) || !strings.Contains(body, `"data":[`+string(newest.Data)+`]`) {
		t.Fatalf("state = %d %s %s, want the newest event and a strong ETag", status, etag, body)
	}
	cursor := minted(t, body)["cursor"].(string)
	if !gateway.LooksLikeCursor(cursor) {
		t.Errorf("cursor = %q, want one", cursor)
	}
	r.publish("order_2", "bob")
	if status, _, body := get("If-None-Match: " + etag); status != 304 || body != "" {
		t.Errorf("unchanged state = %d %q, want 304", status, body)
	}
	ev := r.publish("order_1", "alice")
	if status, changed, _ := get("If-None-Match: " + etag); status != 200 || changed == etag {
		t.Errorf("changed state = %d %s, want 200 and another ETag", status, changed)
	}
	c := r.ws("token=" + r.token("alice") + "&since=" + cursor)
	hello := c.want("hello")
	c.wantEvent(ev)
	resp, body := r.answer("GET", "/api/v1/orders/order_1/state?limit=100&types=invoice.*", "", "Authorization: Bearer "+r.token("alice"))
	if resp.StatusCode != 404 {
		t.Errorf("state of types that it does not have = %d %s, want 404", resp.StatusCode, body)
	}
	if got, want := resp.Header.Get("Stream-Scope"), hello.text("scope_id"); got == "" || got != want {
		t.Errorf("Stream-Scope = %q, want %q, as a stream says", got, want)
	}
	resp, _ = r.answer("GET", "/api/v1/orders/order_1/state?type=", "", "Authorization: Bearer "+r.token("alice"))
	if resp.StatusCode != 400 {
		t.Errorf("state of no type = %d, want 400", resp.StatusCode)
	}
}

// Who polls hears of what is wrong where a stream would say it, also when there
// is nothing to show; and no more of an order that is another's than of none.
func TestStreamStatusOfWhatIsNotThere(t *testing.T) {
	r := newRig(t, nil)
	r.publish("order_9", "bob")
	r.cover("alice")
	began := time.Now().UnixMilli()
	status := func(path, token string) (int, string) {
		resp, _ := r.answer("GET", path, "", "Authorization: Bearer "+token)
		status, since := resp.Header.Get("Stream-Status"), resp.Header.Get("Stream-Since")
		if ms, err := strconv.ParseInt(since, 10, 64); status == "live" && since != "" || status != "live" && (err != nil || ms < began) {
			t.Errorf("%s is %s since %q, want a time since this test began unless live", path, status, since)
		}
		return resp.StatusCode, status
	}
	for _, tt := range []struct{ path, token, want string }{
		{"/api/v1/orders/order_1/state", r.token("", "order_1"), "catching_up"},
		{"/api/v1/orders/order_1/state", r.token("alice"), "live"},
		{"/api/v1/orders/order_9/state", r.token("alice"), "live"},
		{"/api/v1/events/evt_1-1", r.token("alice"), "live"},
	} {
		if code, got := status(tt.path, tt.token); code != 404 || got != tt.want {
			t.Errorf("%s = %d %s, want 404 %s", tt.path, code, got, tt.want)
		}
	}
	r.must(r.bus.Renew(context.Background(), r.term, 0, time.Hour, gateway.Health{State: gateway.Stale, Reason: "upstream_down", Since: time.Now()}))
	r.until("the node is stale", func() bool { return r.health().State == gateway.Stale })
	for _, path := range []string{"/api/v1/orders/order_1/state", "/api/v1/orders/order_9/state", "/api/v1/events/evt_1-1"} {
		if code, got := status(path, r.token("alice")); code != 404 || got != "stale" {
			t.Errorf("%s while stale = %d %s, want 404 stale", path, code, got)
		}
	}
}

func TestCORS(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{wsPath, ssePath, "/api/v1/events", "/api/v1/events/evt_1-1", "/api/v1/orders/o/state"} {
		resp, _ := r.answer("OPTIONS", path, "", "Origin: "+shop, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": shop, "Vary": "Origin", "Access-Control-Max-Age": "7200", "Access-Control-Allow-Credentials": "",
			"Access-Control-Allow-Headers": "Authorization, Last-Event-ID, If-None-Match, Content-Type, X-Api-Key, X-Commerce-Api-Key",
		} {
			if got := resp.Header.Get(name); resp.StatusCode != 204 || got != want {
				t.Errorf("preflight of %s: %d, %s = %q, want 204, %q", path, resp.StatusCode, name, got, want)
			}
		}
		resp, _ = r.answer("OPTIONS", path, "", "Origin: https://evil.example", "Access-Control-Request-Method: GET")
		if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != 403 || got != "" {
			t.Errorf("foreign preflight of %s: %d, allowed %q, want 403, none", path, resp.StatusCode, got)
		}
		if path == wsPath {
			continue
		}
		resp, _ = r.answer("GET", path, "", "Origin: "+shop)
		if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != 401 || got != shop ||
			resp.Header.Get("Access-Control-Expose-Headers") != "ETag, Retry-After, Stream-Status, Stream-Since, Stream-Scope" {
			t.Errorf("error of %s: %d, %v, want a 401 that the page may read", path, resp.StatusCode, resp.Header)
		}
	}
	if resp, _ := r.answer("OPTIONS", mintPath, "", "Origin: "+shop, "Access-Control-Request-Method: POST"); resp.StatusCode != 405 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of the mint = %d, %v, want 405 without CORS", resp.StatusCode, resp.Header)
	}
}

func TestWhatIsNotServed(t *testing.T) {
	r := newRig(t, nil)
	for _, tc := range []struct {
		method, path string
		want         int
		code         string
	}{
		{"GET", "/api/v1/invoices", 404, "NOT_PROXIED"},
		{"GET", "/ws/merchant/events", 404, "NOT_PROXIED"},
		{"GET", "/ws/payment", 404, "NOT_PROXIED"},
		{"GET", "/", 404, "NOT_FOUND"},
		{"GET", "/metrics", 404, "NOT_FOUND"},
		{"GET", "//metrics", 404, "NOT_FOUND"},
		{"GET", "/debug/pprof/", 404, "NOT_FOUND"},
		{"GET", wsPath, 426, "UPGRADE_REQUIRED"},
		{"POST", ssePath, 405, "METHOD_NOT_ALLOWED"},
		{"HEAD", ssePath, 405, ""},
		{"DELETE", "/api/v1/events", 405, "METHOD_NOT_ALLOWED"},
		{"GET", mintPath, 405, "METHOD_NOT_ALLOWED"},
	} {
		resp, body := r.answer(tc.method, tc.path, "")
		if resp.StatusCode != tc.want || tc.code != "" && errorCode(t, body) != tc.code {
			t.Errorf("%s %s = %d %s, want %d %s", tc.method, tc.path, resp.StatusCode, body, tc.want, tc.code)
		}
		if tc.code == "NOT_PROXIED" && !strings.Contains(body, "api.pepay.example") {
			t.Errorf("%s = %s, want it to name Pepay's host", tc.path, body)
		}
	}
	if resp, body := r.answer("GET", "/api/v1/events", "", "X: "+strings.Repeat("x", 17<<10)); resp.StatusCode != 431 || errorCode(t, body) != "HEADERS_TOO_LARGE" {
		t.Errorf("huge header = %d %s, want 431", resp.StatusCode, body)
	}
}

func TestLogsHoldNoSecrets(t *testing.T) {
	r := newRig(t, nil)
	token := r.token("alice")
	r.publish("order_1", "alice")
	_, body := r.answer("POST", mintPath, `{"customer_id":"alice"}`, "X-Api-Key: "+mintKey)
	data := minted(t, body)
	c := r.ws("token=" + token)
	settled(c)
	c.close()
	c = r.sse("token=" + token)
	settled(c)
	c.close()
	for _, path := range []string{
		ssePath + "%3Ftoken=" + token, "/api/v1/events/" + token, "/nowhere/" + token, ssePath + "?token=x" + token, "/api/v1/events?token=" + token,
	} {
		r.answer("GET", path, "", "Authorization: Bearer "+token)
		r.answer("GET", path, "", "X-Api-Key: "+opsKey+"x")
	}
	r.until("the streams have ended", func() bool { return strings.Count(r.logs.String(), "stream ended") == 2 })
	logs := r.logs.String()
	for _, secret := range []string{token, data["token"].(string), opsKey, mintKey, "alice", "order_1"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the logs contain %.12s…", secret)
		}
	}
	for _, want := range []string{`"token minted"`, `"stream ended"`, `"msg":"request"`} {
		if !strings.Contains(logs, want) {
			t.Errorf("the logs lack %s", want)
		}
	}
	if s := fmt.Sprintf("%+v", r.server.Stats()); strings.Contains(s, "alice") {
		t.Errorf("Stats() = %s, want no ids", s)
	}
}
