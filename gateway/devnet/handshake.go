package devnet

import (
	"time"

	"github.com/gofiber/contrib/websocket"
	"github.com/gofiber/fiber/v2"
)

// localsRequest carries the streamRequest from admit to serveStream.
const localsRequest = "devnet.request"

// A streamRequest is what a handshake asked for.
type streamRequest struct {
	filter  filter
	since   eventID
	resume  bool      // since was given
	expires time.Time // of its token; zero without one
}

// admit checks a handshake in the order faults, credential, parameters.
func (s *Server) admit(c *fiber.Ctx) error {
	if r := s.takeRefusal(func(f *Faults) **Refusal { return &f.WS }); r != nil {
		return s.answerRefusal(c, r)
	}
	expires, err := s.authorizeStream(c)
	if err != nil {
		return err
	}
	req, err := s.parseStream(c)
	if err != nil {
		return err
	}
	if !websocket.IsWebSocketUpgrade(c) {
		return fiber.ErrUpgradeRequired
	}
	req.expires = expires
	c.Locals(localsRequest, req)
	return c.Next()
}

// authorizeStream accepts the commerce key in a header, or a token of commerce
// scope, whose expiry it returns.
func (s *Server) authorizeStream(c *fiber.Ctx) (time.Time, error) {
	scope, expires := s.keyScope(c), time.Time{}
	if token := c.Query("token"); token != "" {
		claims, err := s.verifyToken(token)
		if err != nil {
			return expires, err
		}
		scope, expires = claims.Scope, claims.expires()
	}
	switch scope {
	case scopeCommerce:
		return expires, nil
	case scopeMerchant:
		return expires, forbidden("Wrong scope")
	}
	return expires, unauthorized()
}

func (s *Server) parseStream(c *fiber.Ctx) (streamRequest, error) {
	var req streamRequest
	if f := c.Query("format"); f != "" && f != "event_v1" {
		return req, invalid("unknown format")
	}
	types, err := parseTypes(c.Query("types"))
	if err != nil {
		return req, err
	}
	req.filter = filter{types, keys{
		order: c.Query("order_id"), invoice: c.Query("invoice_id"), customer: c.Query("customer_id"),
		wallet: c.Query("wallet_address"), network: c.Query("wallet_network"),
	}}
	if since := c.Query("since"); since != "" {
		s.mu.Lock()
		req.since, req.resume = s.events.resolve(since)
		s.mu.Unlock()
		if !req.resume {
			return req, invalid("malformed since")
		}
	}
	return req, nil
}
