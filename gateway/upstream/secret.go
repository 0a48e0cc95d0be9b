package upstream

import (
	"fmt"
	"io"
	"net/url"
	"strings"
)

const redacted = "[redacted]"

// A secret is a string that no verb, encoder or log handler prints. The string
// is behind a function because fmt looks into unexported fields without asking
// their methods.
type secret struct{ reveal func() string }

func newSecret(s string) secret { return secret{func() string { return s }} }

// Format implements fmt.Formatter.
func (secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// MarshalText implements encoding.TextMarshaler.
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// redact removes secrets from text that the upstream or a library wrote, such
// as a malformed answer that echoes our request.
func redact(text string, secrets ...secret) string {
	for _, s := range secrets {
		if s.reveal == nil || s.reveal() == "" {
			continue
		}
		text = strings.ReplaceAll(text, s.reveal(), redacted)
		text = strings.ReplaceAll(text, url.QueryEscape(s.reveal()), redacted)
	}
	return text
}
