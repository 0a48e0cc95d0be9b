package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/tidwall/gjson"

	"pepay-gateway/gateway"
)

// A class of failure has one way to be waited out; see backoff.
type class int

const (
	down      class = iota // the network, a 5xx, or anything we do not know
	closed                 // the upstream closed the stream in an orderly way
	auth                   // 401: mint again, once at once
	forbidden              // 403: somebody has to change something there
	rejected               // 400, or a key of the wrong environment: somebody has to change something here
	limited                // 429
	gap                    // the upstream cannot resume from our cursor
	classes
)

// reason is the class as pages and metrics are told of it.
func (c class) reason() string {
	switch c {
	case auth:
		return "upstream_auth"
	case forbidden:
		return "upstream_forbidden"
	case rejected:
		return "upstream_rejected"
	case limited:
		return "upstream_rate_limited"
	}
	return gateway.ReasonUpstreamDown
}

// A failure ends a request or a connection, and is retried. Its text holds no
// secret and nothing the upstream wrote but an error code.
type failure struct {
	class    class
	after    time.Duration // what Retry-After asked for
	hasAfter bool
	oversize bool // a frame beyond the read limit
	status   int  // of an HTTP answer, or 0
	text     string
}

func (f *failure) Error() string { return f.text }

// RetryAfter is how long the upstream asked to be left alone, if it did.
func (f *failure) RetryAfter() time.Duration { return f.after }

// maxRetryAfter bounds what a server can make us wait.
const maxRetryAfter = 10 * time.Minute

// classify judges an HTTP answer that is not a success. cursor says whether the
// request carried one that the answer may refuse.
func classify(what string, status int, header http.Header, body []byte, cursor bool, now time.Time) *failure {
	f := &failure{status: status, text: fmt.Sprintf("%s: status %d", what, status)}
	if code := errorCode(gjson.ParseBytes(body)); code != "" {
		f.text += " " + code
	}
	switch status {
	case http.StatusBadRequest:
		f.class = rejected
		if cursor && namesCursor(body) {
			f.class = gap
		}
	case http.StatusGone:
		if cursor {
			f.class = gap
		}
	case http.StatusUnauthorized:
		f.class = auth
	case http.StatusForbidden:
		f.class = forbidden
	case http.StatusTooManyRequests:
		f.class = limited
		f.after, f.hasAfter = retryAfter(header, now)
	}
	return f
}

func namesCursor(text []byte) bool {
	text = bytes.ToLower(text)
	return bytes.Contains(text, []byte("since")) || bytes.Contains(text, []byte("cursor"))
}

// retryAfter reads Retry-After as seconds or as a date. A date is compared with
// the answer's own Date, so that our clock does not matter.
func retryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter), true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter), true
}

// errorCode finds the code in any of the known shapes of an error. It returns
// "" for what does not look like one, so that it is safe to print.
func errorCode(body gjson.Result) string {
	if !body.IsObject() {
		return ""
	}
	for _, path := range []string{"code", "error.code", "error_code"} {
		code := body.Get(path)
		if code.Type != gjson.String && code.Type != gjson.Number {
			continue
		}
		text := code.String()
		if text == "" || len(text) > 64 || strings.ContainsFunc(text, unfitForCode) {
			return ""
		}
		return text
	}
	return ""
}

func unfitForCode(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
}

// classifyFrame judges a ws_error frame. Its codes are not documented; one we
// do not recognise is as good as a dropped connection.
func classifyFrame(root gjson.Result, cursor bool) *failure {
	code := errorCode(root)
	f := &failure{text: "ws_error"}
	if code != "" {
		f.text += " " + code
	}
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(code, w) {
				return true
			}
		}
		return false
	}
	switch {
	case code == "400":
		f.class = rejected
	case cursor && has("SINCE", "CURSOR"):
		f.class = gap
	case code == "429" || has("RATE_LIMIT", "TOO_MANY"):
		f.class = limited
	case code == "403" || has("FORBIDDEN", "PERMISSION", "SCOPE", "SUSPENDED", "NOT_ENABLED"):
		f.class = forbidden
	case code == "401" || has("TOKEN", "UNAUTH", "AUTHENT", "API_KEY", "JWT", "CREDENTIAL"):
		f.class = auth
	}
	return f
}

// classifyRead judges the error that ended reading a stream.
func classifyRead(err error, secrets ...secret) *failure {
	if errors.Is(err, websocket.ErrReadLimit) {
		return &failure{class: down, oversize: true, text: "frame beyond the read limit"}
	}
	var c *websocket.CloseError
	if !errors.As(err, &c) {
		return &failure{class: down, text: "stream: " + redact(err.Error(), secrets...)}
	}
	f := &failure{class: down, text: fmt.Sprintf("stream: close %d", c.Code)}
	switch c.Code {
	case websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseServiceRestart:
		f.class = closed
	}
	return f
}
