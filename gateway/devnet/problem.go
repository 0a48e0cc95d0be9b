package devnet

import (
	"errors"
	"fmt"

	"github.com/gofiber/fiber/v2"
)

// Errors of the Go methods.
var (
	// ErrUnknownOrder says that no such order is kept.
	ErrUnknownOrder = errors.New("devnet: unknown order")
	// ErrInvalid says that the input is malformed, or that the order's state
	// does not allow the transition.
	ErrInvalid = errors.New("devnet: invalid")
)

// A problem is a refusal as the API words it.
type problem struct {
	status        int
	code, message string
}

func (p *problem) Error() string { return fmt.Sprintf("devnet: %s: %s", p.code, p.message) }

// Is makes problems match the package's sentinels.
func (p *problem) Is(target error) bool {
	switch target {
	case ErrUnknownOrder:
		return p.status == fiber.StatusNotFound
	case ErrInvalid:
		return p.status == fiber.StatusBadRequest
	}
	return false
}

func invalid(format string, args ...any) error {
	return &problem{fiber.StatusBadRequest, "VALIDATION_ERROR", fmt.Sprintf(format, args...)}
}

func unknown(what string) error {
	return &problem{fiber.StatusNotFound, "NOT_FOUND", what + " not found"}
}

func unauthorized() error {
	return &problem{fiber.StatusUnauthorized, "API_KEY_INVALID", "Invalid or missing credential"}
}

func forbidden(message string) error {
	return &problem{fiber.StatusForbidden, "FORBIDDEN", message}
}

// answerError is the one place that turns an error into a response.
func answerError(c *fiber.Ctx, err error) error {
	if p, ok := errors.AsType[*problem](err); ok {
		return answerProblem(c, p, "")
	}
	if f, ok := errors.AsType[*fiber.Error](err); ok {
		return answerProblem(c, &problem{f.Code, "REQUEST_REFUSED", f.Message}, "")
	}
	return answerProblem(c, &problem{fiber.StatusInternalServerError, "INTERNAL_SERVER_ERROR", "Internal error"}, "")
}

// answerProblem writes p in one of the documented error bodies, see
// Refusal.Body.
func answerProblem(c *fiber.Ctx, p *problem, body string) error {
	c.Status(p.status)
	switch body {
	case BodyEmpty:
		return nil
	case BodyText:
		c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
		return c.SendString(p.message)
	case BodyFlat:
		return c.JSON(fiber.Map{"error": p.message, "code": p.code})
	case BodyLegacy:
		return c.JSON(fiber.Map{"success": false, "message": p.message, "error_code": p.code, "retry_after": "15 minutes"})
	}
	return c.JSON(fiber.Map{"success": false, "error": fiber.Map{"code": p.code, "message": p.message}})
}

// answer writes the success envelope.
func answer(c *fiber.Ctx, data any) error {
	return c.JSON(fiber.Map{"success": true, "data": data})
}
