package downstream

import (
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

// A mintRequest is what the body of a mint asks for.
type mintRequest struct {
	ttl, session time.Duration // 0 = the default
	customer     string
	orders       []string
}

func (r mintRequest) account() bool { return r.customer == "" && len(r.orders) == 0 }

// mint answers a merchant's server with a token for one of its customers, in
// the form of Pepay's own mint. It is not for browsers, so it has no CORS.
func (s *Server) mint(c *fiber.Ctx) error {
	now := time.Now()
	ip := s.clientIP(c)
	if s.limiter.exhausted(ip, now) {
		return errHandshakes
	}
	keys := apiKeyHeaders(c)
	if len(keys) > 1 {
		return errTwoCredentials
	}
	var key auth.APIKey
	if len(keys) == 1 {
		key, _ = s.apiKeys.Lookup(keys[0])
	}
	if key.Permissions == 0 {
		s.limiter.punish(ip, now)
		return errAPIKey
	}
	req, p := parseMint(c.Body())
	if p == nil {
		p = mayMint(key, req)
	}
	if p != nil {
		return p
	}
	claims, p := s.claims(req, now)
	if p != nil {
		return p
	}
	return s.answerMint(c, key, claims)
}

func mayMint(key auth.APIKey, req mintRequest) *problem {
	switch {
	case req.account() && !key.May(auth.MayOps):
		return errPermission
	case !req.account() && !key.May(auth.MayMint):
		return errPermission
	case key.CustomerRequired && req.customer == "":
		return errCustomer
	}
	return nil
}

// claims turns a request into what the token will say.
func (s *Server) claims(req mintRequest, now time.Time) (auth.Claims, *problem) {
	now = now.Truncate(time.Second)
	most := s.cfg.ScopedMaxTTL
	if req.account() {
		most = s.cfg.AccountMaxTTL
	}
	ttl, session := req.ttl, req.session
	if ttl == 0 {
		if ttl = s.cfg.TokenTTL; session > 0 {
			ttl = min(ttl, session)
		}
	}
	if ttl > most {
		return auth.Claims{}, badParameter("ttl_seconds")
	}
	if session == 0 {
		session = max(s.cfg.Session, ttl)
	}
	if session < ttl || session > s.cfg.MaxSession {
		return auth.Claims{}, badParameter("session_seconds")
	}
	return auth.Claims{
		Kind: auth.KindStream, Account: req.account(), Customer: req.customer, Orders: req.orders,
		IssuedAt: now, ExpiresAt: now.Add(ttl), SessionExpiresAt: now.Add(session),
	}, nil
}

type mintAnswer struct {
	Token            string  `json:"token"`
	Scope            string  `json:"scope"`
	MerchantID       *int64  `json:"merchant_id"`
	Environment      *string `json:"network_environment"`
	ExpiresAt        int64   `json:"expires_at"` // unix seconds
	SessionExpiresAt int64   `json:"session_expires_at"`
	WSURL            string  `json:"ws_url"`
	SSEURL           string  `json:"sse_url,omitempty"`
}

func (s *Server) answerMint(c *fiber.Ctx, key auth.APIKey, claims auth.Claims) error {
	token, err := s.mintToken(claims)
	if err != nil {
		return err
	}
	answer := mintAnswer{
		Token: token, Scope: auth.ScopeCommerce, ExpiresAt: claims.ExpiresAt.Unix(),
		SessionExpiresAt: claims.SessionExpiresAt.Unix(), WSURL: s.wsURL(),
	}
	if s.cfg.MerchantID != 0 {
		answer.MerchantID = &s.cfg.MerchantID
	}
	if s.cfg.Environment != "" {
		answer.Environment = &s.cfg.Environment
	}
	if !claims.Account {
		sse := claims
		sse.Kind, sse.ExpiresAt = auth.KindSSE, claims.SessionExpiresAt
		if token, err = s.mintToken(sse); err != nil {
			return err
		}
		answer.SSEURL = strings.TrimSuffix(s.cfg.PublicURL, "/") + ssePath + "?token=" + url.QueryEscape(token)
	}
	s.counts.minted.Add(1)
	scope := gateway.Scope{Account: claims.Account, Customer: claims.Customer, Orders: claims.Orders}
	s.log.Info("token minted", "key", key.Name, "scope", s.scopeID(scope), "account", claims.Account,
		"ttl", claims.ExpiresAt.Sub(claims.IssuedAt).String(), "session", claims.SessionExpiresAt.Sub(claims.IssuedAt).String())
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return answerData(c, data)
}

func (s *Server) mintToken(claims auth.Claims) (string, error) {
	token, err := s.keys.Mint(claims)
	if errors.Is(err, auth.ErrInvalidClaims) {
		return "", badParameter("order_id") // the rest has been checked: too long in all
	}
	return token, err
}

// wsURL is the public URL of the WebSocket endpoint, never taken from Host.
func (s *Server) wsURL() string {
	base := strings.TrimSuffix(s.cfg.PublicURL, "/")
	if rest, ok := strings.CutPrefix(base, "http"); ok {
		base = "ws" + rest
	}
	return base + wsPath
}

// parseMint reads the body. Types are strict; members of other names are ignored.
func parseMint(body []byte) (mintRequest, *problem) {
	var req mintRequest
	if len(strings.TrimSpace(string(body))) == 0 {
		return req, nil
	}
	o, ok := parseObject(body)
	if !ok {
		return req, badParameter("body")
	}
	if raw, present := o["scope"]; present {
		if scope, ok := parseString(raw); !ok || scope != auth.ScopeCommerce {
			return req, badParameter("scope")
		}
	}
	if req.ttl, ok = seconds(o, "ttl_seconds"); !ok {
		return req, badParameter("ttl_seconds")
	}
	if req.session, ok = seconds(o, "session_seconds"); !ok {
		return req, badParameter("session_seconds")
	}
	if raw, present := o["customer_id"]; present {
		if req.customer, ok = parseString(raw); !ok || !gateway.ValidID(req.customer) {
			return req, badParameter("customer_id")
		}
	}
	if raw, present := o["order_id"]; present {
		if req.orders, ok = parseIDs(raw); !ok {
			return req, badParameter("order_id")
		}
	}
	return req, nil
}

// seconds reads whole seconds, at least 1; 0 when absent.
func seconds(o map[string]json.RawMessage, name string) (time.Duration, bool) {
	raw, present := o[name]
	if !present {
		return 0, true
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	return time.Duration(n) * time.Second, err == nil && n > 0
}

// parseIDs reads an id or a list of 1 to auth.MaxOrders ids.
func parseIDs(raw json.RawMessage) ([]string, bool) {
	if id, ok := parseString(raw); ok {
		return []string{id}, gateway.ValidID(id)
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || len(list) > auth.MaxOrders {
		return nil, false
	}
	ids := make([]string, len(list))
	for i, item := range list {
		id, ok := parseString(item)
		if !ok || !gateway.ValidID(id) {
			return nil, false
		}
		ids[i] = id
	}
	return ids, true
}

// answerData answers with Pepay's envelope around data, which is JSON.
func answerData(c *fiber.Ctx, data []byte) error {
	if len(c.Response().Header.Peek(fiber.HeaderCacheControl)) == 0 {
		setPrivate(c)
	}
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	body := append([]byte(`{"success":true,"data":`), data...)
	return c.Send(append(body, '}'))
}
