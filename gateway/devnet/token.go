package devnet

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	scopeMerchant = "merchant"
	scopeCommerce = "commerce"

	// maxUsedTokens bounds the memory of single-use tokens. Beyond it expired
	// ones are forgotten, which could not be used anyway.
	maxUsedTokens = 10_000
)

// jwtHeader is {"alg":"HS256","typ":"JWT"}.
const jwtHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

type tokenClaims struct {
	Scope      string `json:"scope"`
	MerchantID int    `json:"merchant_id"`
	ID         string `json:"jti"`
	Expires    int64  `json:"exp"` // unix milliseconds; the claims are the devnet's own business
}

func (c tokenClaims) expires() time.Time { return time.UnixMilli(c.Expires) }

func (s *Server) signToken(c tokenClaims) string {
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err) // a struct of strings and numbers always encodes
	}
	signed := jwtHeader + "." + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + s.signature(signed)
}

func (s *Server) signature(signed string) string {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(signed))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Server) verifyToken(token string) (tokenClaims, error) {
	var c tokenClaims
	cut := strings.LastIndexByte(token, '.')
	if cut < 0 || !hmac.Equal([]byte(s.signature(token[:cut])), []byte(token[cut+1:])) {
		return c, unauthorized()
	}
	_, encoded, _ := strings.Cut(token[:cut], ".")
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return c, unauthorized()
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, unauthorized()
	}
	if !s.now().Before(c.expires()) || !s.useToken(c) {
		return c, &problem{fiber.StatusUnauthorized, "TOKEN_EXPIRED", "Token expired"}
	}
	return c, nil
}

// useToken says whether a token may open one more stream.
func (s *Server) useToken(c tokenClaims) bool {
	if !s.cfg.SingleUseTokens {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, used := s.used[c.ID]; used {
		return false
	}
	if len(s.used) >= maxUsedTokens {
		for id, expires := range s.used {
			if !s.now().Before(expires) {
				delete(s.used, id)
			}
		}
	}
	s.used[c.ID] = c.expires()
	return true
}

// keyScope returns the scope of the API key a request carries, or "" when it
// carries none that is valid. Merchant keys are not told apart.
func (s *Server) keyScope(c *fiber.Ctx) string {
	key := c.Get("x-api-key")
	if key == "" {
		key = c.Get("x-commerce-api-key")
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(key), []byte(s.cfg.APIKey)) == 1:
		return scopeCommerce
	case strings.HasPrefix(key, "pk_"), strings.HasPrefix(key, "sk_"):
		return scopeMerchant
	}
	return ""
}

// requireCommerce lets only the commerce key pass.
func (s *Server) requireCommerce(c *fiber.Ctx) error {
	switch s.keyScope(c) {
	case scopeCommerce:
		return c.Next()
	case scopeMerchant:
		return forbidden("This key has no commerce scope")
	}
	return unauthorized()
}

type mintRequest struct {
	Scope      string `json:"scope"`
	TTLSeconds *int   `json:"ttl_seconds"`
}

// mint is POST /api/v1/ws/token.
func (s *Server) mint(c *fiber.Ctx) error {
	if r := s.takeRefusal(func(f *Faults) **Refusal { return &f.Mint }); r != nil {
		return s.answerRefusal(c, r)
	}
	scope := s.keyScope(c)
	if scope == "" {
		return unauthorized()
	}
	var req mintRequest
	if err := decodeLoose(c.Body(), &req); err != nil {
		return err
	}
	if req.Scope != "" && req.Scope != scope {
		return invalid("scope must match the API key")
	}
	ttl, err := s.tokenTTL(req.TTLSeconds)
	if err != nil {
		return err
	}
	return answer(c, s.newToken(scope, ttl))
}

func (s *Server) tokenTTL(seconds *int) (time.Duration, error) {
	if s.faults.Load().ExpiredTokens {
		return -time.Second, nil
	}
	if seconds == nil {
		return s.cfg.TokenTTL, nil
	}
	if *seconds < 1 || *seconds > int(s.cfg.TokenTTLMax/time.Second) {
		return 0, invalid("invalid ttl_seconds")
	}
	return time.Duration(*seconds) * time.Second, nil
}

func (s *Server) newToken(scope string, ttl time.Duration) fiber.Map {
	s.mu.Lock()
	id, base := newUUID(s.rand), s.wsURL
	s.mints++
	s.mu.Unlock()
	expires := s.now().Add(ttl)
	var said any = expires.Unix()
	if s.faults.Load().ISOExpires {
		said = isoTime(expires)
	}
	return fiber.Map{
		"token":       s.signToken(tokenClaims{scope, s.cfg.MerchantID, id, expires.UnixMilli()}),
		"scope":       scope,
		"merchant_id": s.cfg.MerchantID, "network_environment": s.cfg.Environment,
		"expires_at": said, "ws_url": base + "/ws/" + scope + "/events",
	}
}

// decodeLoose reads a JSON body of the public API, which tolerates unknown
// fields and a missing body.
func decodeLoose(body []byte, v any) error {
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return invalid("body is not the expected JSON")
	}
	return nil
}
