package auth

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

var (
	now       = time.Unix(1_800_000_000, 0)
	secret    = []byte("0123456789abcdef0123456789abcdef")
	oldSecret = []byte("fedcba9876543210fedcba9876543210")
	private   = ed25519.NewKeyFromSeed([]byte("a seed of exactly 32 bytes......"))
	public    = private.Public().(ed25519.PublicKey)
)

func newKeyring(t testing.TB) *Keyring {
	t.Helper()
	signing, err := SecretKey("main", secret)
	if err != nil {
		t.Fatal(err)
	}
	shop, err := PublicKey("shop", base64.StdEncoding.EncodeToString(public))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewKeyring(signing, shop)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func scopedClaims() Claims {
	return Claims{
		Kind: KindStream, ID: "t1", Customer: "cust_1",
		IssuedAt: now, ExpiresAt: now.Add(time.Minute), SessionExpiresAt: now.Add(time.Hour),
	}
}

// A forgery is a token written by hand.
type forgery struct {
	header  string
	payload string
	sign    func(text string) []byte // nil: HS256 with the signing key
}

func (f forgery) token() string {
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(f.header)) + "." + enc.EncodeToString([]byte(f.payload))
	sign := f.sign
	if sign == nil {
		sign = hs256(secret)
	}
	return text + "." + enc.EncodeToString(sign(text))
}

func hs256(key []byte) func(string) []byte {
	return func(text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
}

func eddsa(text string) []byte { return ed25519.Sign(private, []byte(text)) }

func unsigned(string) []byte { return nil }

const goodHeader = `{"alg":"HS256","kid":"main","typ":"gw+jwt"}`

// with returns a good payload in which the members given, as JSON text, replace
// or join the usual ones; an empty one removes its name.
func with(members ...string) string {
	m := map[string]json.RawMessage{
		"iss": json.RawMessage(`"pepay-gateway"`), "aud": json.RawMessage(`"pepay-gateway"`),
		"scope": json.RawMessage(`"commerce"`), "customer_id": json.RawMessage(`"cust_1"`),
		"iat": json.RawMessage(fmt.Sprint(now.Unix())), "exp": json.RawMessage(fmt.Sprint(now.Unix() + 60)),
	}
	for i := 0; i < len(members); i += 2 {
		delete(m, members[i])
		if members[i+1] != "" {
			m[members[i]] = json.RawMessage(members[i+1])
		}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func at(offset int64) string { return fmt.Sprint(now.Unix() + offset) }

func TestMintedTokenVerifies(t *testing.T) {
	r := newKeyring(t)
	account := Claims{Kind: KindStream, ID: "a", Account: true, IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
	orders := scopedClaims()
	orders.Kind, orders.Customer, orders.Orders = KindSSE, "", []string{"o1", "o 2", "ö3"}
	one := scopedClaims()
	one.Orders = []string{"o1"}
	for name, c := range map[string]Claims{"customer": scopedClaims(), "orders": orders, "one order": one, "account": account} {
		t.Run(name, func(t *testing.T) {
			token, err := r.Mint(c)
			if err != nil {
				t.Fatalf("Mint = %v, want nil", err)
			}
			got, err := r.Verify(token, now)
			if err != nil {
				t.Fatalf("Verify = %v, want nil", err)
			}
			want := c
			want.Scope = ScopeCommerce
			if want.SessionExpiresAt.IsZero() {
				want.SessionExpiresAt = want.ExpiresAt
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMintMakesAnID(t *testing.T) {
	r := newKeyring(t)
	c := scopedClaims()
	c.ID = ""
	ids := map[string]bool{}
	for range 3 {
		token, err := r.Mint(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Verify(token, now)
		if err != nil {
			t.Fatal(err)
		}
		ids[got.ID] = true
	}
	if len(ids) != 3 || ids[""] {
		t.Errorf("ids = %v, want 3 different ones", ids)
	}
}

func TestMintRefusesWhatVerifyWould(t *testing.T) {
	r := newKeyring(t)
	change := func(f func(*Claims)) Claims {
		c := scopedClaims()
		f(&c)
		return c
	}
	for name, c := range map[string]Claims{
		"zero":                {},
		"no kind":             change(func(c *Claims) { c.Kind = "" }),
		"nobody":              change(func(c *Claims) { c.Customer = "" }),
		"account and scope":   change(func(c *Claims) { c.Account = true }),
		"account sse":         change(func(c *Claims) { c.Account, c.Customer, c.Kind = true, "", KindSSE }),
		"account 1 h 1 s":     change(func(c *Claims) { c.Account, c.Customer, c.ExpiresAt = true, "", now.Add(3601*time.Second) }),
		"24 h 1 s":            change(func(c *Claims) { c.ExpiresAt = now.Add(86401 * time.Second); c.SessionExpiresAt = c.ExpiresAt }),
		"session 24 h 1 s":    change(func(c *Claims) { c.SessionExpiresAt = now.Add(86401 * time.Second) }),
		"session before exp":  change(func(c *Claims) { c.SessionExpiresAt = now.Add(59 * time.Second) }),
		"exp at iat":          change(func(c *Claims) { c.ExpiresAt = now }),
		"51 orders":           change(func(c *Claims) { c.Orders = slices.Repeat([]string{"o"}, 51) }),
		"empty order":         change(func(c *Claims) { c.Orders = []string{""} }),
		"control in customer": change(func(c *Claims) { c.Customer = "a\nb" }),
		"long customer":       change(func(c *Claims) { c.Customer = strings.Repeat("a", 129) }),
		"not UTF-8":           change(func(c *Claims) { c.Customer = "\xff" }),
		"too large":           change(func(c *Claims) { c.Orders = slices.Repeat([]string{strings.Repeat("o", 128)}, MaxOrders) }),
		"no iat":              change(func(c *Claims) { c.IssuedAt = time.Time{} }),
		"before 1970":         change(func(c *Claims) { c.IssuedAt = time.Unix(-5, 0) }),
		"far future": {
			Kind: KindStream, Customer: "c", IssuedAt: time.Unix(1<<41, 0),
			ExpiresAt: time.Unix(1<<41+60, 0),
		},
	} {
		if token, err := r.Mint(c); !errors.Is(err, ErrInvalidClaims) || token != "" {
			t.Errorf("%s: Mint = %q, %v, want ErrInvalidClaims", name, token, err)
		}
	}
}

func TestVerifyAcceptsWhatMerchantsSign(t *testing.T) {
	r := newKeyring(t)
	edHeader := `{"alg":"EdDSA","kid":"shop","typ":"gw+jwt"}`
	for name, f := range map[string]forgery{
		"plain":               {goodHeader, with(), nil},
		"EdDSA":               {edHeader, with(), eddsa},
		"sse":                 {`{"alg":"HS256","kid":"main","typ":"gw-sse+jwt"}`, with("exp", at(86400)), nil},
		"aud list of one":     {goodHeader, with("aud", `["pepay-gateway"]`), nil},
		"unknown claims":      {goodHeader, with("sub", `"x"`, "deep", `{"a":[{"b":1}]}`, "jku", `"https://evil"`), nil},
		"unknown header":      {`{"alg":"HS256","kid":"main","typ":"gw+jwt","jku":"https://evil","x5c":[]}`, with(), nil},
		"clock 30 s ahead":    {goodHeader, with("iat", at(30), "nbf", at(30)), nil},
		"order string":        {goodHeader, with("customer_id", "", "order_id", `"o"`), nil},
		"order list":          {goodHeader, with("customer_id", "", "order_id", `["o","p"]`), nil},
		"account":             {goodHeader, with("customer_id", "", "account", `true`, "exp", at(3600)), nil},
		"account false":       {goodHeader, with("account", `false`), nil},
		"longest":             {goodHeader, with("exp", at(86400), "session_exp", at(86400)), nil},
		"last second":         {goodHeader, with("iat", at(-59), "exp", at(1)), nil},
		"name in other case":  {goodHeader, with("Customer_ID", `"cust_2"`), nil},
		"space in the object": {goodHeader, " " + with() + "\n", nil},
	} {
		if _, err := r.Verify(f.token(), now); err != nil {
			t.Errorf("%s: Verify = %v, want nil", name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	r := newKeyring(t)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	header := func(alg, kid, typ string) string {
		raw, _ := json.Marshal(map[string]string{"alg": alg, "kid": kid, "typ": typ})
		return string(raw)
	}
	ids := func(n int) string {
		raw, _ := json.Marshal(slices.Repeat([]string{"o"}, n))
		return string(raw)
	}
	good := forgery{goodHeader, with(), nil}.token()
	parts := strings.Split(good, ".")

	tests := map[string]string{
		"empty":                       "",
		"dots":                        "..",
		"two parts":                   parts[0] + "." + parts[1],
		"empty signature":             parts[0] + "." + parts[1] + ".",
		"trailing dot":                good + ".",
		"five parts":                  good + ".a.b",
		"padding":                     good + "=",
		"padded parts":                parts[0] + "=." + parts[1] + "=." + parts[2] + "=",
		"standard base64":             good[:len(good)-2] + "+/",
		"space before":                " " + good,
		"newline after":               good + "\n",
		"newline inside":              parts[0] + ".\n" + parts[1] + "." + parts[2],
		"unicode":                     strings.Replace(good, ".", "․", 1),
		"signature of another":        parts[0] + "." + parts[1] + "." + strings.Split(forgery{goodHeader, with("jti", `"x"`), nil}.token(), ".")[2],
		"payload of another":          parts[0] + "." + strings.Split(forgery{goodHeader, with("jti", `"x"`), nil}.token(), ".")[1] + "." + parts[2],
		"too long":                    forgery{goodHeader, with("x", `"`+strings.Repeat("a", MaxTokenBytes)+`"`), nil}.token(),
		"none":                        forgery{header("none", "main", "gw+jwt"), with(), unsigned}.token(),
		"None":                        forgery{header("None", "main", "gw+jwt"), with(), unsigned}.token(),
		"no alg":                      forgery{`{"kid":"main","typ":"gw+jwt"}`, with(), nil}.token(),
		"alg a number":                forgery{`{"alg":1,"kid":"main","typ":"gw+jwt"}`, with(), nil}.token(),
		"HS384":                       forgery{header("HS384", "main", "gw+jwt"), with(), nil}.token(),
		"hs256":                       forgery{header("hs256", "main", "gw+jwt"), with(), nil}.token(),
		"RS256":                       forgery{header("RS256", "main", "gw+jwt"), with(), nil}.token(),
		"HS256 with the public key":   forgery{header("HS256", "shop", "gw+jwt"), with(), hs256(public)}.token(),
		"HS256 with the PEM":          forgery{header("HS256", "shop", "gw+jwt"), with(), hs256(pemKey)}.token(),
		"HS256 with the DER":          forgery{header("HS256", "shop", "gw+jwt"), with(), hs256(der)}.token(),
		"EdDSA with the HS256 kid":    forgery{header("EdDSA", "main", "gw+jwt"), with(), eddsa}.token(),
		"another secret":              forgery{goodHeader, with(), hs256(oldSecret)}.token(),
		"empty secret":                forgery{goodHeader, with(), hs256(nil)}.token(),
		"no kid":                      forgery{`{"alg":"HS256","typ":"gw+jwt"}`, with(), nil}.token(),
		"kid null":                    forgery{`{"alg":"HS256","kid":null,"typ":"gw+jwt"}`, with(), nil}.token(),
		"kid a path":                  forgery{header("HS256", "../x", "gw+jwt"), with(), nil}.token(),
		"kid SQL":                     forgery{header("HS256", "' OR 1=1 --", "gw+jwt"), with(), nil}.token(),
		"kid unknown":                 forgery{header("HS256", "other", "gw+jwt"), with(), nil}.token(),
		"own key in the header":       forgery{`{"alg":"HS256","kid":"mine","jwk":{"kty":"oct","k":"AAAA"},"typ":"gw+jwt"}`, with(), hs256([]byte{0, 0, 0})}.token(),
		"crit":                        forgery{`{"alg":"HS256","kid":"main","typ":"gw+jwt","crit":["b64"],"b64":false}`, with(), nil}.token(),
		"alg twice":                   forgery{`{"alg":"none","alg":"HS256","kid":"main","typ":"gw+jwt"}`, with(), nil}.token(),
		"no typ":                      forgery{`{"alg":"HS256","kid":"main"}`, with(), nil}.token(),
		"typ JWT":                     forgery{header("HS256", "main", "JWT"), with(), nil}.token(),
		"typ without +jwt":            forgery{header("HS256", "main", "gw"), with(), nil}.token(),
		"typ in capitals":             forgery{header("HS256", "main", "GW+JWT"), with(), nil}.token(),
		"header a list":               forgery{`[]`, with(), nil}.token(),
		"header null":                 forgery{`null`, with(), nil}.token(),
		"payload null":                forgery{goodHeader, `null`, nil}.token(),
		"payload a list":              forgery{goodHeader, `[` + with() + `]`, nil}.token(),
		"payload empty":               forgery{goodHeader, ``, nil}.token(),
		"payload twice":               forgery{goodHeader, with() + with(), nil}.token(),
		"payload not UTF-8":           forgery{goodHeader, strings.Replace(with(), "cust_1", "cust_\xff", 1), nil}.token(),
		"wrong iss":                   forgery{goodHeader, with("iss", `"pepay"`), nil}.token(),
		"no iss":                      forgery{goodHeader, with("iss", ""), nil}.token(),
		"wrong aud":                   forgery{goodHeader, with("aud", `"shop"`), nil}.token(),
		"no aud":                      forgery{goodHeader, with("aud", ""), nil}.token(),
		"aud of two":                  forgery{goodHeader, with("aud", `["pepay-gateway","shop"]`), nil}.token(),
		"aud nested":                  forgery{goodHeader, with("aud", `[["pepay-gateway"]]`), nil}.token(),
		"aud empty list":              forgery{goodHeader, with("aud", `[]`), nil}.token(),
		"no scope":                    forgery{goodHeader, with("scope", ""), nil}.token(),
		"wrong scope":                 forgery{goodHeader, with("scope", `"merchant"`), nil}.token(),
		"no exp":                      forgery{goodHeader, with("exp", ""), nil}.token(),
		"exp null":                    forgery{goodHeader, with("exp", `null`), nil}.token(),
		"exp a string":                forgery{goodHeader, with("exp", `"`+at(60)+`"`), nil}.token(),
		"exp a float":                 forgery{goodHeader, with("exp", at(60)+".5"), nil}.token(),
		"exp 1e400":                   forgery{goodHeader, with("exp", `1e400`), nil}.token(),
		"exp 1e9":                     forgery{goodHeader, with("exp", `2e9`), nil}.token(),
		"exp negative":                forgery{goodHeader, with("exp", `-1`), nil}.token(),
		"exp zero":                    forgery{goodHeader, with("exp", `0`), nil}.token(),
		"exp beyond int64":            forgery{goodHeader, with("exp", `9223372036854775808`), nil}.token(),
		"exp max int64":               forgery{goodHeader, with("exp", `9223372036854775807`), nil}.token(),
		"exp true":                    forgery{goodHeader, with("exp", `true`), nil}.token(),
		"no iat":                      forgery{goodHeader, with("iat", ""), nil}.token(),
		"iat 31 s ahead":              forgery{goodHeader, with("iat", at(31)), nil}.token(),
		"iat after exp":               forgery{goodHeader, with("iat", at(20), "exp", at(10)), nil}.token(),
		"nbf 31 s ahead":              forgery{goodHeader, with("nbf", at(31)), nil}.token(),
		"nbf a string":                forgery{goodHeader, with("nbf", `"1"`), nil}.token(),
		"TTL over 24 h":               forgery{goodHeader, with("exp", at(86401)), nil}.token(),
		"session over 24 h":           forgery{goodHeader, with("session_exp", at(86401)), nil}.token(),
		"session before exp":          forgery{goodHeader, with("session_exp", at(59)), nil}.token(),
		"session a string":            forgery{goodHeader, with("session_exp", `"`+at(600)+`"`), nil}.token(),
		"account over 1 h":            forgery{goodHeader, with("customer_id", "", "account", `true`, "exp", at(3601)), nil}.token(),
		"account for sse":             forgery{header("HS256", "main", "gw-sse+jwt"), with("customer_id", "", "account", `true`), nil}.token(),
		"account a string":            forgery{goodHeader, with("customer_id", "", "account", `"true"`), nil}.token(),
		"account a number":            forgery{goodHeader, with("customer_id", "", "account", `1`), nil}.token(),
		"account and customer":        forgery{goodHeader, with("account", `true`), nil}.token(),
		"nobody":                      forgery{goodHeader, with("customer_id", ""), nil}.token(),
		"account false, nobody":       forgery{goodHeader, with("customer_id", "", "account", `false`), nil}.token(),
		"customer empty":              forgery{goodHeader, with("customer_id", `""`), nil}.token(),
		"customer null":               forgery{goodHeader, with("customer_id", `null`, "order_id", `"o"`), nil}.token(),
		"customer a number":           forgery{goodHeader, with("customer_id", `1`), nil}.token(),
		"customer a list":             forgery{goodHeader, with("customer_id", `["cust_1"]`), nil}.token(),
		"customer with NUL":           forgery{goodHeader, with("customer_id", `"cust_1\u0000"`), nil}.token(),
		"customer too long":           forgery{goodHeader, with("customer_id", `"`+strings.Repeat("c", 129)+`"`), nil}.token(),
		"customer twice":              forgery{goodHeader, strings.Replace(with(), `{`, `{"customer_id":"cust_2",`, 1), nil}.token(),
		"customer twice, escaped":     forgery{goodHeader, strings.Replace(with(), `{`, `{"\u0063ustomer_id":"cust_2",`, 1), nil}.token(),
		"unknown name twice, deep":    forgery{goodHeader, with("x", `{"a":[{"b":1,"b":2}]}`), nil}.token(),
		"orders empty":                forgery{goodHeader, with("order_id", `[]`), nil}.token(),
		"orders null":                 forgery{goodHeader, with("order_id", `null`), nil}.token(),
		"orders with a number":        forgery{goodHeader, with("order_id", `["o",1]`), nil}.token(),
		"orders nested":               forgery{goodHeader, with("order_id", `[["o"]]`), nil}.token(),
		"orders with an empty one":    forgery{goodHeader, with("order_id", `["o",""]`), nil}.token(),
		"51 orders":                   forgery{goodHeader, with("order_id", ids(51)), nil}.token(),
		"jti a number":                forgery{goodHeader, with("jti", `1`), nil}.token(),
		"jti empty":                   forgery{goodHeader, with("jti", `""`), nil}.token(),
		"nested too deep":             forgery{goodHeader, with("x", strings.Repeat("[", 8)+strings.Repeat("]", 8)), nil}.token(),
		"1400 open brackets":          forgery{goodHeader, strings.Repeat("[", 1400), nil}.token(),
		"expired, with another scope": forgery{goodHeader, with("iat", at(-60), "exp", at(0), "scope", `"merchant"`), nil}.token(),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := r.Verify(token, now)
			if !errors.Is(err, ErrInvalidToken) || errors.Is(err, ErrExpired) {
				t.Fatalf("Verify = %+v, %v, want ErrInvalidToken", c, err)
			}
			if diff := cmp.Diff(Claims{}, c); diff != "" {
				t.Errorf("claims of a refused token (-want +got):\n%s", diff)
			}
			for _, part := range strings.Split(token, ".") {
				if len(part) > 3 && strings.Contains(err.Error(), part) {
					t.Errorf("the error %q quotes the token", err)
				}
			}
		})
	}
}

func TestVerifyTellsExpired(t *testing.T) {
	r := newKeyring(t)
	token, err := r.Mint(scopedClaims())
	if err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]error{
		time.Minute - time.Nanosecond: nil,
		time.Minute:                   ErrExpired,
		time.Hour:                     ErrExpired,
		-30 * time.Second:             nil,
	} {
		_, err := r.Verify(token, now.Add(after))
		if !errors.Is(err, want) || (want != nil && !errors.Is(err, ErrInvalidToken)) {
			t.Errorf("Verify after %v = %v, want %v", after, err, want)
		}
	}
	if _, err := r.Verify(token, now.Add(-31*time.Second)); !errors.Is(err, ErrInvalidToken) || errors.Is(err, ErrExpired) {
		t.Errorf("Verify 31 s early = %v, want ErrInvalidToken", err)
	}
	forged := forgery{goodHeader, with("iat", at(-60), "exp", at(0)), hs256(oldSecret)}.token()
	if _, err := r.Verify(forged, now); errors.Is(err, ErrExpired) {
		t.Errorf("Verify of an expired forgery = %v, want no ErrExpired", err)
	}
}

func TestVerifyRefusesEveryFlippedBit(t *testing.T) {
	r := newKeyring(t)
	for name, token := range map[string]string{
		"HS256": forgery{goodHeader, with("jti", `"x"`), nil}.token(),
		"EdDSA": forgery{`{"alg":"EdDSA","kid":"shop","typ":"gw+jwt"}`, with(), eddsa}.token(),
	} {
		if _, err := r.Verify(token, now); err != nil {
			t.Fatalf("%s: Verify = %v, want nil", name, err)
		}
		for i := range token {
			for bit := range 8 {
				b := []byte(token)
				b[i] ^= 1 << bit
				if _, err := r.Verify(string(b), now); !errors.Is(err, ErrInvalidToken) {
					t.Errorf("%s: Verify with bit %d of byte %d flipped = %v, want ErrInvalidToken", name, bit, i, err)
				}
			}
		}
	}
}

func TestVerifyNeverTakesRS256(t *testing.T) {
	key, err := rsa.GenerateKey(nil, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodRS256, payload(scopedClaims()))
	tok.Header["typ"], tok.Header["kid"] = "gw+jwt", "main"
	signed, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newKeyring(t).Verify(signed, now); !errors.Is(err, ErrInvalidToken) {
		t.Errorf("Verify = %v, want ErrInvalidToken", err)
	}
}

func TestRotationKeepsOldTokens(t *testing.T) {
	key := func(secret []byte) Key {
		k, err := SecretKey("", secret)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ring := func(signing Key, verify ...Key) *Keyring {
		r, err := NewKeyring(signing, verify...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := ring(key(oldSecret))
	announced := ring(key(oldSecret), key(secret))
	rotated := ring(key(secret), key(oldSecret))
	after := ring(key(secret))

	mint := func(r *Keyring) string {
		token, err := r.Mint(scopedClaims())
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	oldToken, newToken := mint(before), mint(rotated)
	for _, tt := range []struct {
		name  string
		ring  *Keyring
		token string
		want  error
	}{
		{"old token, announced", announced, oldToken, nil},
		{"new token, announced", announced, newToken, nil},
		{"old token, rotated", rotated, oldToken, nil},
		{"new token, rotated", rotated, newToken, nil},
		{"old token, after", after, oldToken, ErrInvalidToken},
		{"new token, before", before, newToken, ErrInvalidToken},
	} {
		if _, err := tt.ring.Verify(tt.token, now); !errors.Is(err, tt.want) {
			t.Errorf("%s: Verify = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestKeysAreChecked(t *testing.T) {
	if _, err := SecretKey("k", secret[:31]); err == nil {
		t.Error("SecretKey of 31 bytes = nil, want an error")
	}
	if _, err := SecretKey("a\nb", secret); err == nil {
		t.Error("SecretKey with a line break in its kid = nil, want an error")
	}
	if _, err := PublicKey("", base64.StdEncoding.EncodeToString(public)); err == nil {
		t.Error("PublicKey without kid = nil, want an error")
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"PEM":    string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"base64": base64.StdEncoding.EncodeToString(public),
		"url":    " " + base64.RawURLEncoding.EncodeToString(public) + "\n",
	} {
		if k, err := PublicKey("shop", text); err != nil || !k.public.Equal(public) {
			t.Errorf("PublicKey from %s = %v, %v, want the key", name, k, err)
		}
	}
	for _, text := range []string{"", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", string(secret) + "?"} {
		if _, err := PublicKey("shop", text); err == nil {
			t.Errorf("PublicKey(%q) = nil, want an error", text)
		}
	}

	main, _ := SecretKey("main", secret)
	shop, _ := PublicKey("shop", base64.StdEncoding.EncodeToString(public))
	for name, keys := range map[string][]Key{
		"sign with a public key": {shop},
		"sign with nothing":      {{}},
		"verify with nothing":    {main, {}},
		"kid twice":              {main, main},
	} {
		if _, err := NewKeyring(keys[0], keys[1:]...); err == nil {
			t.Errorf("NewKeyring: %s = nil, want an error", name)
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %s", main, main, main, main); strings.Contains(got, string(secret)) || strings.Contains(got, "0x30") {
		t.Errorf("a printed key = %q, want no secret", got)
	}
}

func TestKeyringKeepsItsOwnSecret(t *testing.T) {
	mine := slices.Clone(secret)
	k, err := SecretKey("main", mine)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewKeyring(k)
	if err != nil {
		t.Fatal(err)
	}
	clear(mine)
	if _, err := r.Verify(forgery{goodHeader, with(), nil}.token(), now); err != nil {
		t.Errorf("Verify after the caller cleared its secret = %v, want nil", err)
	}
}

func TestTokenIDIsStable(t *testing.T) {
	a := TokenID(Claims{}, "token a")
	if a != TokenID(Claims{}, "token a") || a == TokenID(Claims{}, "token b") {
		t.Error("TokenID without jti does not follow the token")
	}
	if strings.Contains(a, "token") {
		t.Errorf("TokenID = %q, want no token in it", a)
	}
	if TokenID(Claims{ID: "x"}, "token a") != TokenID(Claims{ID: "x"}, "token b") {
		t.Error("TokenID with jti does not follow the jti")
	}
	if TokenID(Claims{ID: a}, "t") == a {
		t.Error("a jti can pose as a hash")
	}
}

func TestKeyringConcurrentUse(t *testing.T) {
	r := newKeyring(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				token, err := r.Mint(scopedClaims())
				if err != nil {
					t.Errorf("Mint = %v, want nil", err)
				}
				if _, err := r.Verify(token, now); err != nil {
					t.Errorf("Verify = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzToken: whatever is sent, nothing panics and nothing is accepted that was
// not minted here.
func FuzzToken(f *testing.F) {
	r := newKeyring(f)
	account := Claims{Kind: KindStream, ID: "a", Account: true, IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
	minted := map[string]bool{}
	for _, c := range []Claims{scopedClaims(), account} {
		token, err := r.Mint(c)
		if err != nil {
			f.Fatal(err)
		}
		minted[token] = true
		f.Add(token)
		f.Add(token + ".")
		f.Add(token[:len(token)-1])
	}
	f.Add("")
	f.Add("..")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add(forgery{`{"alg":"none","kid":"main","typ":"gw+jwt"}`, with(), unsigned}.token())
	f.Add(forgery{`{"alg":"HS256","kid":"shop","typ":"gw+jwt"}`, with(), hs256(public)}.token())
	f.Fuzz(func(t *testing.T, token string) {
		_, err := r.Verify(token, now)
		if err == nil && !minted[token] {
			t.Errorf("Verify(%q) = nil, want ErrInvalidToken", token)
		}
		if err != nil && !errors.Is(err, ErrInvalidToken) {
			t.Errorf("Verify = %v, want ErrInvalidToken", err)
		}
	})
}

// FuzzClaims signs any header and payload with the right key: what Verify lets
// pass keeps every rule, and golang-jwt's own validation lets it pass too.
func FuzzClaims(f *testing.F) {
	r := newKeyring(f)
	f.Add(goodHeader, with())
	f.Add(goodHeader, with("customer_id", "", "account", `true`))
	f.Add(goodHeader, with("order_id", `["a","b"]`, "session_exp", at(600), "nbf", at(1)))
	f.Add(`{"alg":"HS256","kid":"main","typ":"gw-sse+jwt"}`, with("aud", `["pepay-gateway"]`))
	f.Add(goodHeader, `{"customer_id":"a","customer_id":"b"}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		token := forgery{header, payload, nil}.token()
		c, err := r.Verify(token, now)
		if err != nil {
			if !errors.Is(err, ErrInvalidToken) {
				t.Errorf("Verify = %v, want ErrInvalidToken", err)
			}
			return
		}
		if err := c.check(); err != nil {
			t.Errorf("Verify let pass claims that are wrong: %v", err)
		}
		_, err = jwt.Parse(token, func(*jwt.Token) (any, error) { return secret, nil },
			jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(Issuer), jwt.WithAudience(Issuer),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
			jwt.WithTimeFunc(func() time.Time { return now }))
		if err != nil {
			t.Errorf("golang-jwt refuses what Verify lets pass: %v", err)
		}
	})
}
