package downstream

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"pepay-gateway/auth"
)

// What is wrong with a token is nobody's business: an expired one, a forged one and
// no token at all are answered alike, through every door, to the byte.
func TestRefusedTokensAreAllToldTheSame(t *testing.T) {
	r := newRig(t, nil)
	good := r.token("alice")
	parts := strings.Split(good, ".")
	other, err := auth.SecretKey("", bytes.Repeat([]byte("x"), 32))
	r.must(err)
	foreign, err := auth.NewKeyring(other)
	r.must(err)
	now := time.Now()
	forged, err := foreign.Mint(auth.Claims{Kind: auth.KindStream, Customer: "alice", IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	r.must(err)
	expired := func(kind auth.Kind, before time.Duration) string {
		return r.mintWith(func(c *auth.Claims) {
			c.Kind, c.Customer = kind, "alice"
			c.IssuedAt, c.ExpiresAt, c.SessionExpiresAt = now.Add(-before-time.Minute), now.Add(-before), now.Add(-before)
		})
	}
	header := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	tokens := map[string]string{
		"none":                   "",
		"garbage":                "abc",
		"three parts of garbage": "a.b.c",
		"just expired":           expired(auth.KindStream, time.Second),
		"long expired":           expired(auth.KindStream, 24*time.Hour),
		"expired, for SSE":       expired(auth.KindSSE, time.Second),
		"from the future": r.mintWith(func(c *auth.Claims) {
			c.Customer, c.IssuedAt = "alice", now.Add(time.Hour)
			c.ExpiresAt, c.SessionExpiresAt = now.Add(2*time.Hour), now.Add(2*time.Hour)
		}),
		"another gateway's":   forged,
		"another's signature": parts[0] + "." + parts[1] + "." + strings.Split(forged, ".")[2],
		"no signature":        parts[0] + "." + parts[1] + ".",
		"a changed claim":     parts[0] + "." + parts[1][:10] + "A" + parts[1][11:] + "." + parts[2],
		"alg none":            header(`{"alg":"none","typ":"gw+jwt"}`) + "." + parts[1] + ".",
		"alg RS256":           header(`{"alg":"RS256","typ":"gw+jwt"}`) + "." + parts[1] + "." + parts[2],
		"unknown kid":         header(`{"alg":"HS256","kid":"../x","typ":"gw+jwt"}`) + "." + parts[1] + "." + parts[2],
		"another typ":         header(`{"alg":"HS256","typ":"JWT"}`) + "." + parts[1] + "." + parts[2],
		"five parts":          good + ".x.y",
		"a dot behind":        good + ".",
		"padding":             good + "=",
		"too long":            strings.Repeat("a", auth.MaxTokenBytes+1),
		"a token in capitals": strings.ToUpper(good),
		"a token with a tail": good + "%20",
		"the API key":         opsKey,
	}
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	told := map[string]string{} // by door, what the first of them was told
	for name, token := range tokens {
		bearer := []string{"Authorization: Bearer " + token}
		if token == "" {
			bearer = nil
		}
		for door, ask := range map[string]func() *client{
			"WebSocket":   func() *client { return r.request("GET", wsPath, "", append(bearer, upgrade...)...) },
			"SSE":         func() *client { return r.request("GET", ssePath, "", bearer...) },
			"list":        func() *client { return r.request("GET", "/api/v1/events", "", bearer...) },
			"event":       func() *client { return r.request("GET", "/api/v1/events/evt_1-1", "", bearer...) },
			"order state": func() *client { return r.request("GET", "/api/v1/orders/order_1/state", "", bearer...) },
		} {
			c := ask()
			body, err := c.body.ReadString('}')
			r.must(err)
			c.resp.Header.Del("Date")
			var head bytes.Buffer
			r.must(c.resp.Header.Write(&head))
			got := c.resp.Status + "\n" + head.String() + body
			if told[door] == "" {
				told[door] = got
			}
			if c.resp.StatusCode != http.StatusUnauthorized || got != told[door] {
				t.Errorf("%s with %s is told\n%s\nwant 401 and the same as others:\n%s", door, name, got, told[door])
			}
			c.close()
		}
		if token == "" {
			continue
		}
		c, err := r.dial("", nil, subprotocol, bearerPrefix+token)
		if err != nil {
			t.Errorf("WebSocket in band with %s: %v", name, err)
			continue
		}
		if m, _ := c.next(); m.Data != string(errTokenInvalid.frame()) {
			t.Errorf("WebSocket in band with %s is told %s, want %s", name, m.Data, errTokenInvalid.frame())
		}
		c.wantClose(4401)
	}
}
