package downstream

import (
	"github.com/gofiber/fiber/v2"
)

const (
	allowedHeaders = "Authorization, Last-Event-ID, If-None-Match, Content-Type, X-Api-Key, X-Commerce-Api-Key"
	streamStatus   = "Stream-Status"
	streamSince    = "Stream-Since"
	streamScope    = "Stream-Scope"
	exposedHeaders = "ETag, Retry-After, " + streamStatus + ", " + streamSince + ", " + streamScope
	preflightAge   = "7200" // seconds; browsers cap it there
)

// origin returns the request's Origin, "" when it has none. A page that is not
// allowed is errOrigin, whatever else it presents: this is what keeps other
// sites from using a visitor's browser (CSWSH).
func (s *Server) origin(c *fiber.Ctx) (string, error) {
	values := c.Context().Request.Header.PeekAll(fiber.HeaderOrigin)
	if len(values) == 0 {
		return "", nil
	}
	origin := string(values[0])
	if len(values) > 1 || !s.origins[origin] {
		return "", errOrigin
	}
	return origin, nil
}

// cors lets pages of the allowed origins read the answer, errors included.
func (s *Server) cors(c *fiber.Ctx) error {
	c.Set(fiber.HeaderVary, fiber.HeaderOrigin)
	origin, err := s.origin(c)
	if err != nil {
		return err
	}
	if origin != "" {
		c.Set(fiber.HeaderAccessControlAllowOrigin, origin)
		c.Set(fiber.HeaderAccessControlExposeHeaders, exposedHeaders)
	}
	return c.Next()
}

// preflight answers what browsers ask before they send a token.
func (s *Server) preflight(c *fiber.Ctx) error {
	c.Set(fiber.HeaderVary, fiber.HeaderOrigin)
	origin, err := s.origin(c)
	if err != nil {
		return err
	}
	if origin != "" {
		c.Set(fiber.HeaderAccessControlAllowOrigin, origin)
		c.Set(fiber.HeaderAccessControlAllowMethods, "GET")
		c.Set(fiber.HeaderAccessControlAllowHeaders, allowedHeaders)
		c.Set(fiber.HeaderAccessControlMaxAge, preflightAge)
		c.Set(fiber.HeaderAccessControlExposeHeaders, exposedHeaders)
	}
	return c.SendStatus(fiber.StatusNoContent)
}
