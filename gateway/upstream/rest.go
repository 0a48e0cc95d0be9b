package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

const (
	requestTimeout = 15 * time.Second
	maxAnswerBytes = 64 << 10 // of a mint or an error
	// maxPageDepth is over maxDepth, so that one deep event does not spoil its page.
	maxPageDepth = 4 * maxDepth
)

// errUnwieldy says that an answer is too large or too deep to be parsed.
var errUnwieldy = errors.New("answer too large or too deep")

// An answer is a successful REST answer.
type answer struct {
	body []byte // on errUnwieldy the beginning of it
	date time.Time
}

// request does one REST request with the API key. The path is escaped. The error is a *failure, or
// errUnwieldy together with what was read.
func (s *Source) request(ctx context.Context, what, method, path string, query url.Values, body string, limit int64) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	u := *s.api
	u.RawQuery = query.Encode()
	u.RawPath = s.api.EscapedPath() + path
	var err error
	u.Path, err = url.PathUnescape(u.RawPath)
	if err != nil {
		return answer{}, &failure{class: rejected, text: what + ": path cannot be made"}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(body))
	if err != nil {
		return answer{}, &failure{class: rejected, text: what + ": request cannot be made"}
	}
	req.Header.Set("x-api-key", s.key.reveal())
	req.Header.Set("Accept", "application/json")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, s.requestError(what, err)
	}
	defer func() { _ = resp.Body.Close() }() // read only
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes)) // the status says enough
		f := classify(what, resp.StatusCode, resp.Header, text, false, time.Now())
		f.text = redact(f.text, s.key)
		return answer{}, f
	}
	a := answer{}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		a.date = date
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return answer{}, s.requestError(what, err)
	}
	if int64(len(a.body)) > limit || depth(a.body) > maxPageDepth {
		return a, errUnwieldy
	}
	return a, nil
}

// requestError keeps the URL out of the text, and what a peer may have echoed.
func (s *Source) requestError(what string, err error) *failure {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &failure{class: down, text: what + ": " + redact(err.Error(), s.key)}
}

// dataOf returns what is in the {success, data} envelope, or the whole of an
// answer without one.
func dataOf(what string, body []byte) (gjson.Result, error) {
	if !gjson.ValidBytes(body) {
		return gjson.Result{}, &failure{class: down, text: what + ": answer is not JSON"}
	}
	root := gjson.ParseBytes(body)
	top := members(root, "success", "data", "object")
	if !root.IsObject() || top.again != 0 || top.value[0].Type == gjson.False {
		return gjson.Result{}, &failure{class: down, text: what + ": answer is not a success"}
	}
	if top.value[1].IsObject() || top.value[1].IsArray() && top.value[2].Str != "list" {
		return top.value[1], nil
	}
	return root, nil
}

// mint gets a token for one dial. When it expires does not matter: it is never
// used a second time.
func (s *Source) mint(ctx context.Context) (secret, time.Time, error) {
	const what = "mint"
	a, err := s.request(ctx, what, http.MethodPost, "/api/v1/ws/token", nil, `{"scope":"commerce","ttl_seconds":60}`, maxAnswerBytes)
	if err != nil {
		return secret{}, time.Time{}, asFailure(what, err)
	}
	data, err := dataOf(what, a.body)
	if err != nil {
		return secret{}, time.Time{}, err
	}
	m := members(data, "token", "network_environment")
	token := m.value[0]
	if token.Type != gjson.String || token.Str == "" || len(token.Str) > 8<<10 {
		return secret{}, time.Time{}, &failure{class: down, text: "mint: answer has no token"}
	}
	if env := m.value[1]; s.environment != "" && env.Type == gjson.String && env.Str != s.environment {
		return secret{}, time.Time{}, &failure{class: rejected, text: fmt.Sprintf("mint: the key is for %.20q, not %q", env.Str, s.environment)}
	}
	return newSecret(token.Str), a.date, nil
}

func asFailure(what string, err error) error {
	if errors.Is(err, errUnwieldy) {
		return &failure{class: down, text: what + ": " + err.Error()}
	}
	return err
}
