package downstream

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
)

// accessLog writes one line per request, and turns a panic into an answer. A
// stream's line is written when it ends. Lines name the route, not the path: a
// path may contain a token when somebody encoded the question mark before it.
func (s *Server) accessLog(c *fiber.Ctx) (err error) {
	start := time.Now()
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
			err = errInternal
		}
		if c.Context().Hijacked() {
			return
		}
		s.counts.requests.Add(1)
		status := c.Response().StatusCode()
		if err != nil {
			status = problemOf(err).status
		}
		level := s.log.Info
		if status == http.StatusNotFound {
			level = s.log.Debug // scanners
		}
		level("request", "method", methodOf(c), "route", routeOf(c), "status", status,
			"ip", s.clientIP(c).String(), "ms", time.Since(start).Milliseconds())
	}()
	return c.Next()
}

// panicked records a panic: what the runtime says of its own, the type alone of
// any other, whose text may quote anything.
func (s *Server) panicked(v any) {
	s.counts.panics.Add(1)
	text := fmt.Sprintf("%T", v)
	if err, ok := v.(runtime.Error); ok {
		text = err.Error()
	}
	s.log.Error("panic", "value", text, "stack", string(debug.Stack()))
}

func methodOf(c *fiber.Ctx) string {
	switch m := c.Method(); m {
	case fiber.MethodGet, fiber.MethodPost, fiber.MethodOptions, fiber.MethodHead:
		return m
	}
	return "other"
}

func routeOf(c *fiber.Ctx) string {
	if path := c.Route().Path; path != "/" {
		return path
	}
	return "other"
}
