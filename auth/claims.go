package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

const (
	// Issuer is the iss and the aud of every gateway token.
	Issuer = "pepay-gateway"
	// ScopeCommerce is the only scope there is.
	ScopeCommerce = "commerce"

	// MaxOrders bounds the orders of one token. MaxTokenBytes bounds them too.
	MaxOrders = 50
	// MaxIDBytes bounds each id in a token.
	MaxIDBytes = 128

	// MaxAccountTTL bounds exp - iat of a token for the whole account.
	MaxAccountTTL = time.Hour
	// MaxScopedTTL bounds exp - iat of a token for a customer or orders.
	MaxScopedTTL = 24 * time.Hour
	// MaxSession bounds session_exp - iat.
	MaxSession = 24 * time.Hour

	leeway   = 30 * time.Second // of iat and nbf, for clocks that differ; never of exp
	maxDepth = 8                // of the JSON in a token: ours needs 2
	// fewMembers of an object are looked through faster than a map is made.
	fewMembers = 24
	maxTime    = 1 << 40 // unix seconds, far beyond any date and far below overflow
)

// A Kind is what a token is made for.
type Kind string

// The kinds of token. The JWT header carries them as typ, with "+jwt" appended.
const (
	KindStream Kind = "gw"     // opens WebSocket, fetch-SSE and REST until it expires
	KindSSE    Kind = "gw-sse" // for native EventSource: SSE only, never the whole account
)

// Claims are what a token proved, or what one is minted with. The zero Claims
// are invalid.
type Claims struct {
	Kind     Kind
	ID       string   // jti; Mint makes one when it is empty
	Scope    string   // always ScopeCommerce; Mint fills it in
	Account  bool     // the whole account; then neither customer nor orders
	Customer string   // only this customer's, when not empty
	Orders   []string // only these orders', when not empty

	IssuedAt         time.Time // whole seconds; Mint drops fractions
	ExpiresAt        time.Time // the token opens nothing from this moment on
	SessionExpiresAt time.Time // a stream it opened ends here; Mint: zero means ExpiresAt
}

// TokenID returns a stable identity of a token that carried c, for caps per
// token: its jti, else its SHA-256. It is safe to keep, but the jti is the
// issuer's text and not for logs.
func TokenID(c Claims, token string) string {
	if c.ID != "" {
		return "jti:" + c.ID
	}
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// check returns what is wrong with claims, whoever made them, or nil. It does
// not look at the clock.
func (c Claims) check() error {
	scoped := c.Customer != "" || len(c.Orders) > 0
	ttl, session := c.ExpiresAt.Sub(c.IssuedAt), c.SessionExpiresAt.Sub(c.IssuedAt)
	switch {
	case c.Kind != KindStream && c.Kind != KindSSE:
		return errors.New("unknown kind")
	case c.Scope != ScopeCommerce:
		return errors.New("scope is not commerce")
	case c.ID != "" && !validID(c.ID):
		return errors.New("malformed jti")
	case c.Customer != "" && !validID(c.Customer):
		return errors.New("malformed customer_id")
	case len(c.Orders) > MaxOrders:
		return errors.New("too many order ids")
	case !validIDs(c.Orders):
		return errors.New("malformed order_id")
	case !c.Account && !scoped:
		return errors.New("neither account, customer_id nor order_id")
	case c.Account && scoped:
		return errors.New("account together with customer_id or order_id")
	case c.Account && c.Kind == KindSSE:
		return errors.New("an account token cannot be of kind gw-sse")
	case ttl <= 0:
		return errors.New("exp is not after iat")
	case c.Account && ttl > MaxAccountTTL:
		return errors.New("exp is more than an hour after iat")
	case ttl > MaxScopedTTL:
		return errors.New("exp is more than 24 hours after iat")
	case session < ttl:
		return errors.New("session_exp is before exp")
	case session > MaxSession:
		return errors.New("session_exp is more than 24 hours after iat")
	}
	return nil
}

func validIDs(ids []string) bool {
	for _, id := range ids {
		if !validID(id) {
			return false
		}
	}
	return true
}

// validID is the rule for every id the gateway keys anything by: 1 to 128 bytes
// of UTF-8 without control characters.
func validID(s string) bool {
	if s == "" || len(s) > MaxIDBytes || !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// parseClaims reads the payload of a token whose signature is good. It checks
// form and bounds; expiry and nbf are the caller's.
func parseClaims(kind Kind, payload []byte) (c Claims, notBefore time.Time, err error) {
	o, err := parseObject(payload)
	if err != nil {
		return Claims{}, time.Time{}, err
	}
	if iss, _ := o.member("iss"); text(iss) != Issuer {
		return Claims{}, time.Time{}, errors.New("wrong iss")
	}
	if aud, _ := o.member("aud"); !forUs(aud) {
		return Claims{}, time.Time{}, errors.New("wrong aud")
	}
	r := reader{object: o}
	c = Claims{
		Kind:             kind,
		ID:               r.id("jti"),
		Scope:            r.id("scope"),
		Account:          r.bool("account"),
		Customer:         r.id("customer_id"),
		Orders:           r.ids("order_id"),
		IssuedAt:         r.time("iat"),
		ExpiresAt:        r.time("exp"),
		SessionExpiresAt: r.time("session_exp"),
	}
	notBefore = r.time("nbf")
	if r.err != nil {
		return Claims{}, time.Time{}, r.err
	}
	if c.IssuedAt.IsZero() || c.ExpiresAt.IsZero() {
		return Claims{}, time.Time{}, errors.New("no iat or exp")
	}
	if c.SessionExpiresAt.IsZero() {
		c.SessionExpiresAt = c.ExpiresAt
	}
	return c, notBefore, c.check()
}

// forUs says whether an aud claim names the gateway and nobody else: a token
// that is good elsewhere too could be replayed here.
func forUs(aud gjson.Result) bool {
	if aud.IsArray() {
		list := aud.Array()
		if len(list) != 1 {
			return false
		}
		aud = list[0]
	}
	return text(aud) == Issuer
}

// text returns a string's text, "" for what is no string.
func text(v gjson.Result) string {
	if v.Type != gjson.String {
		return ""
	}
	return v.Str
}

// A reader takes typed claims from an object. A claim that is absent is the
// zero value; one of the wrong type, null included, is an error, the first of
// which is kept.
type reader struct {
	object object
	err    error
}

func (r *reader) fail(name string) {
	if r.err == nil {
		r.err = errors.New("malformed " + name)
	}
}

func (r *reader) id(name string) string {
	v, present := r.object.member(name)
	if present && !validID(text(v)) {
		r.fail(name)
	}
	return strings.Clone(text(v)) // what is kept must not keep the token
}

func (r *reader) bool(name string) bool {
	v, present := r.object.member(name)
	if present && !v.IsBool() {
		r.fail(name)
	}
	return v.Type == gjson.True
}

// ids reads a string or a list of strings. An empty list is an error: somebody
// meant to limit the token.
func (r *reader) ids(name string) []string {
	v, present := r.object.member(name)
	if !present {
		return nil
	}
	if !v.IsArray() {
		return []string{r.id(name)}
	}
	list := v.Array()
	if len(list) == 0 || len(list) > MaxOrders {
		r.fail(name)
		return nil
	}
	ids := make([]string, len(list))
	for i, v := range list {
		if ids[i] = strings.Clone(text(v)); !validID(ids[i]) {
			r.fail(name)
			return nil
		}
	}
	return ids
}

// time reads whole unix seconds. Fractions and exponents are refused: parsers
// disagree about them.
func (r *reader) time(name string) time.Time {
	v, present := r.object.member(name)
	if !present {
		return time.Time{}
	}
	sec, err := strconv.ParseInt(v.Raw, 10, 64)
	if v.Type != gjson.Number || err != nil || sec <= 0 || sec > maxTime {
		r.fail(name)
		return time.Time{}
	}
	return time.Unix(sec, 0)
}

// An object is a JSON object, whose names are all different.
type object []member

type member struct {
	name  string
	value gjson.Result
}

func (o object) member(name string) (value gjson.Result, ok bool) {
	for i := range o {
		if o[i].name == name {
			return o[i].value, true
		}
	}
	return gjson.Result{}, false
}

// parseObject reads one JSON object and refuses what parsers disagree about:
// a name that occurs twice at any depth, invalid UTF-8, and deep nesting.
func parseObject(raw []byte) (object, error) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, errors.New("malformed JSON")
	}
	v := gjson.ParseBytes(raw)
	if !v.IsObject() {
		return nil, errors.New("not a JSON object")
	}
	return members(v, maxDepth)
}

// members returns those of an object, and none of a list. It looks into both for
// names that occur twice and for what is nested too deep.
func members(v gjson.Result, depth int) (o object, err error) {
	if depth == 0 {
		return nil, errors.New("JSON nested too deep")
	}
	var many map[string]bool // the names, once there are so many that looking through o is slow
	v.ForEach(func(key, value gjson.Result) bool {
		if value.IsObject() || value.IsArray() {
			if _, err = members(value, depth-1); err != nil {
				return false
			}
		}
		if !v.IsObject() {
			return true
		}
		twice := many[key.Str]
		if many == nil {
			_, twice = o.member(key.Str)
		}
		if twice {
			err = errors.New("a name occurs twice")
			return false
		}
		o = append(o, member{key.Str, value})
		if many == nil && len(o) == fewMembers {
			many = make(map[string]bool)
			for i := range o {
				many[o[i].name] = true
			}
		} else if many != nil {
			many[key.Str] = true
		}
		return true
	})
	return o, err
}
