package upstream

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/tidwall/gjson"
)

func TestClassify(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	tests := []struct {
		name   string
		status int
		header http.Header
		body   string
		cursor bool
		want   class
		after  time.Duration // -1: none
	}{
		{"400", 400, nil, `{"error":"bad","code":"VALIDATION_ERROR"}`, true, rejected, -1},
		{"400 names since", 400, nil, `{"error":{"message":"Invalid since"}}`, true, gap, -1},
		{"400 names since which we did not send", 400, nil, `bad since`, false, rejected, -1},
		{"401", 401, nil, ``, true, auth, -1},
		{"403", 403, nil, `<html>`, true, forbidden, -1},
		{"404", 404, nil, ``, true, down, -1},
		{"410", 410, nil, ``, true, gap, -1},
		{"410 without cursor", 410, nil, ``, false, down, -1},
		{"302", 302, nil, ``, true, down, -1},
		{"500", 500, nil, ``, true, down, -1},
		{"503 with Retry-After", 503, http.Header{"Retry-After": {"9"}}, ``, true, down, -1},
		{"429", 429, nil, `{"retry_after":"15 minutes"}`, true, limited, -1},
		{"429 seconds", 429, http.Header{"Retry-After": {"7"}}, ``, true, limited, 7 * time.Second},
		{"429 date", 429, http.Header{"Retry-After": {date(9 * time.Second)}}, ``, true, limited, 9 * time.Second},
		{"429 date by its own clock", 429, http.Header{"Retry-After": {date(time.Hour)}, "Date": {date(time.Hour - 5*time.Second)}}, ``, true, limited, 5 * time.Second},
		{"429 past date", 429, http.Header{"Retry-After": {date(-time.Hour)}}, ``, true, limited, 0},
		{"429 for ever", 429, http.Header{"Retry-After": {"4000000000"}}, ``, true, limited, maxRetryAfter},
		{"429 negative", 429, http.Header{"Retry-After": {"-3"}}, ``, true, limited, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := classify("test", tt.status, tt.header, []byte(tt.body), tt.cursor, now)
			if f.class != tt.want {
				t.Errorf("class = %d, want %d", f.class, tt.want)
			}
			if f.hasAfter != (tt.after >= 0) || f.hasAfter && f.after != tt.after {
				t.Errorf("after = %v (%t), want %v", f.after, f.hasAfter, tt.after)
			}
		})
	}
}

func TestClassifyFrame(t *testing.T) {
	tests := []struct {
		frame string
		want  class
	}{
		{`{"code":"TOKEN_EXPIRED"}`, auth},
		{`{"error":{"code":"API_KEY_INVALID"}}`, auth},
		{`{"error_code":"UNAUTHORIZED"}`, auth},
		{`{"code":401}`, auth},
		{`{"code":"FORBIDDEN"}`, forbidden},
		{`{"code":"SCOPE_MISMATCH"}`, forbidden},
		{`{"error_code":"RATE_LIMIT_EXCEEDED"}`, limited},
		{`{"code":"INVALID_SINCE"}`, gap},
		{`{"code":"400"}`, rejected},
		{`{"code":"SOMETHING_NEW"}`, down},
		{`{"code":{"deep":1}}`, down},
		{`{}`, down},
	}
	for _, tt := range tests {
		if f := classifyFrame(gjson.Parse(tt.frame), true); f.class != tt.want {
			t.Errorf("classifyFrame(%s) = %d, want %d", tt.frame, f.class, tt.want)
		}
	}
}

func TestClassifyRead(t *testing.T) {
	tests := []struct {
		err      error
		want     class
		oversize bool
	}{
		{&websocket.CloseError{Code: 1000}, closed, false},
		{&websocket.CloseError{Code: 1001}, closed, false},
		{&websocket.CloseError{Code: 1012}, closed, false},
		{&websocket.CloseError{Code: 1006}, down, false},
		{&websocket.CloseError{Code: 4401, Text: "secret"}, down, false},
		{websocket.ErrReadLimit, down, true},
		{errors.New("reset"), down, false},
	}
	for _, tt := range tests {
		f := classifyRead(tt.err)
		if f.class != tt.want || f.oversize != tt.oversize {
			t.Errorf("classifyRead(%v) = %d, %t, want %d, %t", tt.err, f.class, f.oversize, tt.want, tt.oversize)
		}
	}
}

func TestErrorCodePrintsOnlyCodes(t *testing.T) {
	for body, want := range map[string]string{
		`{"code":"VALIDATION_ERROR"}`:            "VALIDATION_ERROR",
		`{"code":"ck_live_secret"}`:              "",
		`{"code":"A\nB"}`:                        "",
		`{"error":"text","error_code":"X1"}`:     "X1",
		`not json`:                               "",
		`{"error":{"code":"a","message":"b c"}}`: "",
	} {
		if got := errorCode(gjson.Parse(body)); got != want {
			t.Errorf("errorCode(%s) = %q, want %q", body, got, want)
		}
	}
}
