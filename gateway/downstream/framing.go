package downstream

import (
	"bytes"

	"github.com/gofiber/fiber/v2"
)

// unambiguous refuses a request of which a proxy in front of us may see another
// end than the library does: with a folded header line, which some take for a
// header, and with a length beside chunks. The connection is closed: what
// follows on it may have been meant as a part of this request.
func (s *Server) unambiguous(c *fiber.Ctx) error {
	h := &c.Context().Request.Header
	raw := h.RawHeaders()
	folded := bytes.Contains(raw, []byte("\n ")) || bytes.Contains(raw, []byte("\n\t"))
	chunked := len(h.Peek(fiber.HeaderTransferEncoding)) > 0
	if folded || chunked && bytes.Contains(bytes.ToLower(raw), []byte("content-length:")) {
		c.Context().SetConnectionClose()
		return badParameter("request")
	}
	return c.Next()
}
