package upstream

import (
	"net"
	"testing"

	"github.com/valyala/fasthttp"
)

func TestReachableWhateverTheAnswerBut5xx(t *testing.T) {
	for status, want := range map[int]bool{200: true, 401: true, 404: true, 429: true, 301: true, 500: false, 503: false} {
		f := newFake(t)
		f.onList = func(_ int, c *fasthttp.RequestCtx) bool {
			if key := c.Request.Header.Peek("x-api-key"); len(key) != 0 {
				t.Errorf("asked with a key, want none")
			}
			c.SetStatusCode(status)
			return true
		}
		s := newSource(t, f)
		if got := s.Reachable(t.Context()); got != want {
			t.Errorf("Reachable() with status %d = %v, want %v", status, got, want)
		}
	}
}

func TestNotReachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	f := newFake(t)
	for what, cfg := range map[string]Config{
		"no API":    {APIURL: "http://" + addr, WSURL: "http://" + f.addr, APIKey: markerKey},
		"no stream": {APIURL: "http://" + f.addr, WSURL: "http://" + addr, APIKey: markerKey},
	} {
		s, err := New(cfg, discard())
		if err != nil {
			t.Fatal(err)
		}
		if s.Reachable(t.Context()) {
			t.Errorf("%s: Reachable() = true, want false", what)
		}
	}
}
