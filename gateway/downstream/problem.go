package downstream

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/gofiber/fiber/v2"
)

// A problem is everything a client may be told of why it is refused or ended.
// No other text about errors leaves the process.
type problem struct {
	code   string // in the envelope and in ws_error
	status int    // of HTTP
	close  int    // of WebSocket
	text   string
	final  bool // the client must not come back by itself
}

func (p *problem) Error() string { return p.code }

// The problems. A client may come back unless final is set.
var (
	errTokenInvalid   = &problem{"TOKEN_INVALID", 401, 4401, "the token is missing, invalid or expired; get a new one", true}
	errAPIKey         = &problem{"API_KEY_INVALID", 401, 4401, "the API key is missing or invalid", true}
	errTwoCredentials = &problem{"TWO_CREDENTIALS", 400, 4400, "send one token or one API key, in one place", true}
	errSubprotocol    = &problem{"SUBPROTOCOL_REQUIRED", 400, 4400, "offer the subprotocol pepay.v1 beside bearer.<token>", true}
	errOrigin         = &problem{"ORIGIN_FORBIDDEN", 403, 4403, "this page's origin may not read here", true}
	errKeyInBrowser   = &problem{"API_KEY_IN_BROWSER", 403, 4403, "API keys are for servers; a page needs a token", true}
	errOutOfScope     = &problem{"OUT_OF_SCOPE", 403, 4403, "the filter asks for more than the token allows", true}
	errSSEOnly        = &problem{"TOKEN_SSE_ONLY", 403, 4403, "this token opens Server-Sent Events only", true}
	errPermission     = &problem{"PERMISSION_DENIED", 403, 4403, "the API key lacks the permission for this", true}
	errCustomer       = &problem{"CUSTOMER_REQUIRED", 403, 4403, "this API key mints only tokens that name a customer_id", true}
	errNotFound       = &problem{"NOT_FOUND", 404, 4400, "there is no such thing", true}
	errMethod         = &problem{"METHOD_NOT_ALLOWED", 405, 4400, "the method is not allowed here", true}
	errTimeout        = &problem{"REQUEST_TIMEOUT", 408, 4400, "the request took too long to arrive", false}
	errBody           = &problem{"PAYLOAD_TOO_LARGE", 413, 1009, "the body may have 4096 bytes", true}
	errUpgrade        = &problem{"UPGRADE_REQUIRED", 426, 4400, "this is a WebSocket endpoint", true}
	errHeaders        = &problem{"HEADERS_TOO_LARGE", 431, 4400, "the request line and headers may have 16384 bytes", true}
	errRateLimit      = &problem{"RATE_LIMIT_EXCEEDED", 429, 4429, "too many connections from this address", false}
	errHandshakes     = &problem{"RATE_LIMIT_EXCEEDED", 429, 4429, "too many connection attempts from this address", false}
	errOverloaded     = &problem{"OVERLOADED", 503, 1013, "this node has no room; try again", false}
	errDraining       = &problem{"DRAINING", 503, 1012, "this node is restarting; connect again", false}
	errLogAway        = &problem{"LOG_UNAVAILABLE", 503, 1013, "events cannot be read just now; try again", false}
	errInternal       = &problem{"INTERNAL_SERVER_ERROR", 500, 1011, "something went wrong here", false}

	errBadMessage      = &problem{"BAD_MESSAGE", 400, 4400, "clients may send a ping or a token", true}
	errTooManyMessages = &problem{"TOO_MANY_MESSAGES", 400, 1008, "too many messages", true}
	errSessionEnded    = &problem{"SESSION_EXPIRED", 401, 4401, "the session has ended; get a new token", true}
	errWiderToken      = &problem{"TOKEN_MISMATCH", 403, 4403, "the new token is for another scope than this stream", true}
	errTooSlow         = &problem{"TOO_SLOW", 400, 4408, "the client reads too slowly; connect again with the cursor", false}
	errReplaced        = &problem{"REPLACED", 409, 4409, "a newer stream took the place of this one", true}
)

// badParameter refuses a parameter of ours by its name.
func badParameter(name string) *problem {
	return &problem{"VALIDATION_ERROR", 400, 4400, "the parameter " + name + " is malformed or out of bounds", true}
}

// notProxied answers for those parts of Pepay's API that the gateway has not.
func (s *Server) notProxied(*fiber.Ctx) error {
	text := "the gateway does not serve this; ask Pepay's API"
	if u, err := url.Parse(s.cfg.PepayURL); err == nil && u.Host != "" {
		text += " at " + u.Host
	}
	return &problem{"NOT_PROXIED", 404, 4400, text, true}
}

// problemOf maps any error to what its client is told.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var fe *fiber.Error
	if !errors.As(err, &fe) {
		return errInternal
	}
	switch fe.Code {
	case http.StatusNotFound:
		return errNotFound
	case http.StatusMethodNotAllowed:
		return errMethod
	case http.StatusRequestTimeout:
		return errTimeout
	case http.StatusRequestEntityTooLarge:
		return errBody
	case http.StatusUpgradeRequired:
		return errUpgrade
	case http.StatusRequestHeaderFieldsTooLarge:
		return errHeaders
	case http.StatusBadRequest:
		return badParameter("request")
	}
	return errInternal
}

// handleError answers with the envelope of Pepay's API.
func (s *Server) handleError(c *fiber.Ctx, err error) error {
	p := problemOf(err)
	if p == errInternal {
		s.log.Error("request failed", "err", err)
	}
	s.counts.refused(p)
	setPrivate(c)
	if p.status == http.StatusTooManyRequests || p.status == http.StatusServiceUnavailable {
		c.Set(fiber.HeaderRetryAfter, "2")
	}
	if conn, ok := c.Context().Conn().(*clientConn); ok && (p == errBody || p == errHeaders) {
		conn.amid.Store(true)
	}
	if p == errUpgrade {
		c.Set(fiber.HeaderUpgrade, "websocket")
	}
	c.Status(p.status)
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Send(p.envelope())
}

func (p *problem) envelope() []byte {
	type body struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	out, _ := json.Marshal(struct { // strings always marshal
		Success bool `json:"success"`
		Error   body `json:"error"`
	}{Error: body{p.code, p.text}})
	return out
}

// frame is what a stream is told before it ends.
func (p *problem) frame() []byte {
	out, _ := json.Marshal(struct { // strings always marshal
		Object  string `json:"object"`
		Code    string `json:"code"`
		Message string `json:"message"`
	}{"ws_error", p.code, p.text})
	return out
}

// setPrivate sets the headers of every answer of ours.
func setPrivate(c *fiber.Ctx) {
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set(fiber.HeaderReferrerPolicy, "no-referrer")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
}
