package upstream

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"pepay-gateway/gateway"
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

// Nobody waits a minute for an upstream that has come back.
func TestUpstreamThatComesBackIsDialledAtOnce(t *testing.T) {
	f := newFake(t)
	var down atomic.Bool
	down.Store(true)
	refuse := func(_ int, c *fasthttp.RequestCtx) bool {
		if down.Load() {
			c.SetStatusCode(503)
		}
		return down.Load()
	}
	f.onMint, f.onList = refuse, refuse
	s := newSource(t, f)
	s.tune.backoff.base, s.tune.backoff.limit = time.Hour, time.Hour
	s.tune.backoff.jitter = func(d time.Duration) time.Duration { return d }
	s.tune.look = 10 * time.Millisecond
	k := &sink{}
	start(t, s, gateway.UpstreamCursor{}, k)
	waitFor(t, "it is looked for", func() bool { _, lists, _ := f.seen(); return len(lists) > 3 })
	if mints, _, _ := f.seen(); mints != 1 {
		t.Errorf("%d dials while it is away, want one and no more", mints)
	}
	down.Store(false)
	waitFor(t, "the stream is open", func() bool { return s.Stats().Connects == 1 })
}

// One that answers, but not to us, is waited for in full.
func TestUpstreamThatAnswersAndFailsIsNotHammered(t *testing.T) {
	f := newFake(t)
	f.onMint = func(_ int, c *fasthttp.RequestCtx) bool { c.SetStatusCode(503); return true }
	s := newSource(t, f)
	s.tune.backoff.base, s.tune.backoff.limit = time.Hour, time.Hour
	s.tune.backoff.jitter = func(d time.Duration) time.Duration { return d }
	s.tune.look = 5 * time.Millisecond
	start(t, s, gateway.UpstreamCursor{}, &sink{})
	waitFor(t, "it is looked for many times", func() bool { _, lists, _ := f.seen(); return len(lists) > 50 })
	if mints, _, _ := f.seen(); mints != 1 {
		t.Errorf("%d dials, want one", mints)
	}
}
