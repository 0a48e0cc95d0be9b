package downstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

const (
	subprotocol  = "pepay.v1"
	bearerPrefix = "bearer."
)

// A credential is what a request presents, and nothing that it proves.
type credential struct{ token, apiKey string }

// A grant is what a credential proved.
type grant struct {
	scope    gateway.Scope
	kind     auth.Kind // of the token; "" for an API key
	id       string    // of the token or key, for caps; not for logs
	sessions time.Time // when a stream opened with it ends
}

// streamCredential finds the credential of a stream: a token in the query, in
// Authorization or among the subprotocols, or an API key in its header.
func streamCredential(c *fiber.Ctx, values url.Values, offered []string, origin string) (credential, *problem) {
	tokens, ok := bearerTokens(c)
	if !ok {
		return credential{}, errTokenInvalid
	}
	tokens = append(tokens, values["token"]...)
	for _, p := range offered {
		if token, ok := strings.CutPrefix(p, bearerPrefix); ok {
			tokens = append(tokens, token)
		}
	}
	keys := apiKeyHeaders(c)
	if len(keys) > 0 && origin != "" {
		return credential{}, errKeyInBrowser
	}
	return oneOf(tokens, keys)
}

// restCredential finds the credential of a REST request. There a token may
// also stand where Pepay's clients put their API key.
func restCredential(c *fiber.Ctx, origin string) (credential, *problem) {
	tokens, ok := bearerTokens(c)
	if !ok {
		return credential{}, errTokenInvalid
	}
	var keys []string
	for _, v := range apiKeyHeaders(c) {
		if strings.Count(v, ".") == 2 {
			tokens = append(tokens, v)
		} else {
			keys = append(keys, v)
		}
	}
	if len(keys) > 0 && origin != "" {
		return credential{}, errKeyInBrowser
	}
	return oneOf(tokens, keys)
}

func oneOf(tokens, keys []string) (credential, *problem) {
	switch {
	case len(tokens)+len(keys) > 1:
		return credential{}, errTwoCredentials
	case len(tokens) == 1:
		return credential{token: tokens[0]}, nil
	case len(keys) == 1:
		return credential{apiKey: keys[0]}, nil
	}
	return credential{}, errTokenInvalid
}

// bearerTokens returns copies; false when Authorization holds something else.
func bearerTokens(c *fiber.Ctx) ([]string, bool) {
	var tokens []string
	for _, line := range c.Context().Request.Header.PeekAll(fiber.HeaderAuthorization) {
		scheme, token, _ := strings.Cut(string(line), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, false
		}
		tokens = append(tokens, strings.TrimSpace(token))
	}
	return tokens, true
}

func apiKeyHeaders(c *fiber.Ctx) []string {
	var keys []string
	for _, name := range []string{"X-Api-Key", "X-Commerce-Api-Key"} {
		for _, line := range c.Context().Request.Header.PeekAll(name) {
			keys = append(keys, string(line))
		}
	}
	return keys
}

// offeredSubprotocols returns copies of what a WebSocket client offers.
func offeredSubprotocols(c *fiber.Ctx) []string {
	var offered []string
	for _, line := range c.Context().Request.Header.PeekAll("Sec-Websocket-Protocol") {
		for _, p := range strings.Split(string(line), ",") {
			offered = append(offered, strings.TrimSpace(p))
		}
	}
	return offered
}

func isBearer(offered string) bool { return strings.HasPrefix(offered, bearerPrefix) }

// prove turns a credential into what it may do. A failure costs the client's
// address some of its handshakes.
func (s *Server) prove(cred credential, ip netip.Addr, now time.Time) (grant, *problem) {
	g, p := s.check(cred, now)
	if p == errTokenInvalid || p == errAPIKey {
		s.limiter.punish(ip, now)
	}
	return g, p
}

func (s *Server) check(cred credential, now time.Time) (grant, *problem) {
	if cred.apiKey != "" {
		key, ok := s.apiKeys.Lookup(cred.apiKey)
		switch {
		case !ok:
			return grant{}, errAPIKey
		case !key.May(auth.MayEvents):
			return grant{}, errPermission
		}
		return grant{
			scope: gateway.Scope{Account: true}, id: "key:" + key.Name, sessions: now.Add(s.cfg.MaxSession),
		}, nil
	}
	claims, err := s.keys.Verify(cred.token, now)
	if err != nil {
		if !errors.Is(err, auth.ErrExpired) {
			s.log.Debug("token refused", "reason", err)
		}
		return grant{}, errTokenInvalid
	}
	return grant{
		scope: gateway.Scope{
			Account: claims.Account, Customer: claims.Customer, Orders: claims.Orders,
		},
		kind: claims.Kind, id: auth.TokenID(claims, cred.token), sessions: claims.SessionExpiresAt,
	}, nil
}

// extends says whether a token with the claims may prolong a stream of scope
// that another token, of kind old, opened: the same subject, not wider, and no
// narrower than what the stream shows.
func extends(claims auth.Claims, old auth.Kind, scope gateway.Scope) bool {
	if claims.Kind != auth.KindStream || old == "" || claims.Account != scope.Account || claims.Customer != scope.Customer {
		return false
	}
	if len(claims.Orders) == 0 {
		return len(scope.Orders) == 0
	}
	if len(scope.Orders) > 0 && !subset(claims.Orders, scope.Orders) {
		return false
	}
	shown := scope.SelectedOrders()
	return len(shown) > 0 && subset(shown, claims.Orders)
}

func subset(some, all []string) bool {
	for _, s := range some {
		if !slices.Contains(all, s) {
			return false
		}
	}
	return true
}

// scopeID is a keyed hash of what a credential allows. It tells a client that
// keeps cursors and state whether they are of the same scope, and names the
// scope in logs without naming the customer.
func (s *Server) scopeID(scope gateway.Scope) string {
	mac := hmac.New(sha256.New, s.cfg.ScopeKey)
	write := func(text string) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(text)))
		mac.Write(n[:])
		mac.Write([]byte(text))
	}
	if scope.Account {
		write("account")
	}
	write(scope.Customer)
	orders := slices.Clone(scope.Orders)
	slices.Sort(orders)
	for _, o := range slices.Compact(orders) {
		write(o)
	}
	return "scp_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}
