package configs

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const redacted = "[redacted]"

// A Secret shows itself to nobody but Reveal: however it is printed, logged or
// encoded, it is "[redacted]".
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb; without it, fmt would show the
// bytes under a verb that does not fit.
func (Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// MarshalText returns "[redacted]", in YAML too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue is what slog writes: "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// A RedisURL says where Redis is, and may hold a password. It shows everything
// but that; Reveal returns the whole. Its forms, rediss for TLS:
//
//	redis[s]://[user:pass@]host:6379/0
//	redis[s]+sentinel://[user:pass@]host:26379,host2:26379/mymaster[/0]
//	redis[s]+cluster://[user:pass@]host:7000,host:7001
//
// each with an optional ?ca_file=/path/to/ca.pem. A user or password with one of
// the bytes @ : / ? # % is percent-encoded.
type RedisURL string

// Reveal returns the URL with its password.
func (u RedisURL) Reveal() string { return string(u) }

// String returns the URL without its password.
func (u RedisURL) String() string {
	scheme, rest, ok := strings.Cut(string(u), "://")
	if !ok {
		return redacted // a password alone, perhaps
	}
	// Cut at the last @, and any query but ours, so that an unencoded password
	// is hidden too.
	rest, query, _ := strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, _, hasPassword := strings.Cut(rest[:i], ":")
		if !hasPassword {
			user = "" // some put the password there
		} else {
			user += ":"
		}
		rest = user + redacted + rest[i:]
	}
	if query == "" {
		return scheme + "://" + rest
	}
	if !strings.HasPrefix(query, "ca_file=") || strings.ContainsAny(query, "&@") {
		return redacted
	}
	return scheme + "://" + rest + "?" + query
}

// GoString is String.
func (u RedisURL) GoString() string { return u.String() }

// Format writes String for every verb.
func (u RedisURL) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, u.String()) }

// MarshalText is String, in JSON and YAML too.
func (u RedisURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// LogValue is String.
func (u RedisURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// password returns what String hides, or nothing.
func (u RedisURL) password() string {
	_, rest, _ := strings.Cut(string(u), "://")
	i := strings.LastIndexByte(rest, '@')
	if i < 0 {
		return ""
	}
	user, password, ok := strings.Cut(rest[:i], ":")
	if !ok {
		return user
	}
	return password
}
