package devnet

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestMintAnswersDocumentedEnvelope(t *testing.T) {
	r := start(t, Config{})
	var got struct {
		Success bool
		Data    map[string]any
	}
	r.ok("POST", "/api/v1/ws/token", `{"scope":"commerce","ttl_seconds":30}`, &got)
	d := got.Data
	if !got.Success || d["scope"] != "commerce" || d["merchant_id"] != 4217.0 || d["network_environment"] != "devnet" {
		t.Errorf("mint = %v, want the commerce envelope", got)
	}
	if want := "ws://" + r.addr + "/ws/commerce/events"; d["ws_url"] != want {
		t.Errorf("ws_url = %v, want %v", d["ws_url"], want)
	}
	left := time.Until(time.Unix(int64(d["expires_at"].(float64)), 0))
	if left < 25*time.Second || left > 30*time.Second {
		t.Errorf("token lives %v, want about 30s", left)
	}
	if got := r.State().Mints; got != 1 {
		t.Errorf("mints = %d, want 1", got)
	}
}

func TestMintRefusals(t *testing.T) {
	r := start(t, Config{})
	for _, tc := range []struct {
		name, key, body string
		want            int
	}{
		{"no key", "", `{}`, 401},
		{"wrong key", "ck_other", `{}`, 401},
		{"scope of another key", DefaultAPIKey, `{"scope":"merchant"}`, 400},
		{"merchant key, commerce scope", "pk_1", `{"scope":"commerce"}`, 400},
		{"ttl too short", DefaultAPIKey, `{"ttl_seconds":0}`, 400},
		{"ttl too long", DefaultAPIKey, `{"ttl_seconds":3601}`, 400},
		{"not JSON", DefaultAPIKey, `{`, 400},
		{"merchant key", "pk_1", `{"scope":"merchant"}`, 200},
		{"empty body", DefaultAPIKey, ``, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, body, _ := r.call("POST", "/api/v1/ws/token", tc.body, "x-api-key", tc.key)
			if got != tc.want {
				t.Errorf("status = %d %s, want %d", got, body, tc.want)
			}
		})
	}
}

func TestStreamCredentials(t *testing.T) {
	r := start(t, Config{})
	token, _ := r.mintToken()
	_, merchant, _ := r.call("POST", "/api/v1/ws/token", "", "x-api-key", "pk_1")
	var m struct{ Data struct{ Token string } }
	if err := json.Unmarshal(merchant, &m); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, query, header, key string
		want                     int
	}{
		{"token", "token=" + token, "x-none", "", 101},
		{"token again", "token=" + token, "x-none", "", 101},
		{"x-api-key", "", "x-api-key", DefaultAPIKey, 101},
		{"x-commerce-api-key", "", "x-commerce-api-key", DefaultAPIKey, 101},
		{"nothing", "", "x-none", "", 401},
		{"forged token", "token=" + token[:len(token)-2] + "xx", "x-none", "", 401},
		{"garbage token", "token=x", "x-none", "", 401},
		{"merchant key", "", "x-api-key", "sk_1", 403},
		{"merchant token", "token=" + m.Data.Token, "x-none", "", 403},
		{"malformed since", "since=evt_x-1", "x-api-key", DefaultAPIKey, 400},
		{"signed since", "since=evt_-1-1", "x-api-key", DefaultAPIKey, 400},
		{"unknown type", "types=shop.opened", "x-api-key", DefaultAPIKey, 400},
		{"bare wildcard", "types=*", "x-api-key", DefaultAPIKey, 400},
		{"empty type", "types=invoice.*,", "x-api-key", DefaultAPIKey, 400},
		{"unknown format", "format=v9", "x-api-key", DefaultAPIKey, 400},
		{"unknown parameter", "format=event_v1&colour=red", "x-api-key", DefaultAPIKey, 101},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, got := r.tryDial(tc.query, tc.header, tc.key); got != tc.want {
				t.Errorf("handshake = %d, want %d", got, tc.want)
			}
		})
	}
	if status, _, _ := r.call("GET", "/ws/commerce/events", ""); status != http.StatusUpgradeRequired {
		t.Errorf("plain GET = %d, want 426", status)
	}
}

func TestSingleUseTokens(t *testing.T) {
	r := start(t, Config{SingleUseTokens: true})
	token, _ := r.mintToken()
	for i, want := range []int{101, 401} {
		if _, got := r.tryDial("token="+token, "x-none", ""); got != want {
			t.Errorf("handshake %d = %d, want %d", i, got, want)
		}
	}
}

func TestExpiredTokenEndsStream(t *testing.T) {
	r := start(t, Config{CloseExpiredTokens: true, TokenTTL: 300 * time.Millisecond})
	token, _ := r.mintToken()
	c, status := r.tryDial("token="+token, "x-none", "")
	if c == nil {
		t.Fatalf("handshake = %d, want 101", status)
	}
	if got := view(t, c.next()); got.Object != "ws_error" || got.Code != "TOKEN_EXPIRED" {
		t.Errorf("frame = %+v, want ws_error TOKEN_EXPIRED", got)
	}
	if _, err := c.rest(); closeCode(err) != 1008 {
		t.Errorf("end = %v, want close 1008", err)
	}
}

func FuzzVerifyToken(f *testing.F) {
	s := New(Config{}, discard())
	good := s.signToken(tokenClaims{Scope: scopeCommerce, Expires: s.now().Add(time.Hour).UnixMilli()})
	f.Add(good)
	f.Add("")
	f.Add("..")
	f.Add(jwtHeader + ".e30." + strings.Repeat("A", 43))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.verifyToken(token); (err == nil) != (token == good) {
			t.Errorf("verifyToken(%q) = %v", token, err)
		}
	})
}
