package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pepay-gateway/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeLog answers Beat alone; nothing else of a log is used here.
type fakeLog struct {
	gateway.Log
	others map[string][]byte
	beats  int
	err    error
}

func (l *fakeLog) Beat(_ context.Context, node string, report []byte) (map[string][]byte, error) {
	l.beats++
	if l.err != nil {
		return nil, l.err
	}
	all := map[string][]byte{node: report}
	for name, r := range l.others {
		all[name] = r
	}
	return all, nil
}

var discard = slog.New(slog.DiscardHandler)

func localReport() Report {
	var h gateway.Histogram
	h.Observe(3 * time.Millisecond)
	return Report{
		Node: "a", Leader: true, Ready: true, Status: Status{State: "live", SinceMS: 5}, Seq: 7, Epoch: "00000000002a",
		Connections: Connections{WS: 2, SSE: 1}, Counters: map[string]int64{"appended": 10, "delivered": 4},
		Upstream: &Upstream{Status: Status{State: "live"}, Frames: 11}, Histograms: map[string]*gateway.Histogram{"hub": &h},
	}
}

func newTestServer(t *testing.T, l *fakeLog, cfg Config) *httptest.Server {
	t.Helper()
	cfg.Cluster = NewCluster(l, "shop", "a", localReport, discard)
	cfg.Cluster.beat(t.Context())
	cfg.Log, cfg.Ops = discard, http.NotFoundHandler()
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	srv := httptest.NewServer(New(cfg).handler)
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, url string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestStatsAreThoseOfTheWholeCluster(t *testing.T) {
	other := `{"node":"b","ready":true,"connections":{"ws":5,"sse":6},"seq":9,"epoch":"00000000002b","counters":{"delivered":1}}`
	l := &fakeLog{others: map[string][]byte{"b": []byte(other), "c": []byte("garbage")}}
	srv := newTestServer(t, l, Config{})
	status, body, header := get(t, srv.URL+"/api/v1/stats")
	var s stats
	if err := json.Unmarshal([]byte(body), &s); status != 200 || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
	if len(s.Nodes) != 2 || s.Nodes[0].Node != "a" || s.Nodes[1].Node != "b" {
		t.Errorf("nodes = %+v, want a and b", s.Nodes)
	}
	if s.Stream != "shop" || s.Leader != "a" || s.Upstream.Frames != 11 || s.Log.Seq != 9 || s.Status.State != "live" {
		t.Errorf("stats = %+v", s)
	}
	if got, want := s.Totals, (totals{Connections{7, 7}, 5, 10}); got != want {
		t.Errorf("totals = %+v, want %+v", got, want)
	}
	if got, want := s.Nodes[0].Lag["hub"], (Lag{5, 5}); got != want {
		t.Errorf("lag of the hub = %v, want %v", got, want)
	}
	if status, _, _ := get(t, srv.URL+"/api/v1/stats", "If-None-Match", header.Get("ETag")); status != http.StatusNotModified {
		t.Errorf("same ETag: status %d, want 304", status)
	}
	for range 100 {
		get(t, srv.URL+"/api/v1/stats")
	}
	if l.beats != 1 {
		t.Errorf("dashboards caused %d reads of the log, want none", l.beats-1)
	}
}

func TestOthersReachUpstream(t *testing.T) {
	for report, want := range map[string]bool{
		`{"node":"b","reaches_upstream":true}`:                 true,
		`{"node":"b","reaches_upstream":true,"draining":true}`: false,
		`{"node":"b"}`: false,
		`garbage`:      false,
	} {
		l := &fakeLog{others: map[string][]byte{"b": []byte(report)}}
		c := NewCluster(l, "shop", "a", func() Report { return Report{Node: "a", Reaches: true} }, discard)
		if c.OthersReachUpstream() {
			t.Error("OthersReachUpstream() before any report = true, want false")
		}
		c.beat(t.Context())
		if got := c.OthersReachUpstream(); got != want {
			t.Errorf("OthersReachUpstream() with %s = %v, want %v", report, got, want)
		}
		l.err = errors.New("away")
		c.beat(t.Context())
		if c.OthersReachUpstream() {
			t.Error("OthersReachUpstream() without the log = true, want false")
		}
	}
}

func TestStatsWithoutTheLogShowThisNode(t *testing.T) {
	srv := newTestServer(t, &fakeLog{err: errors.New("away")}, Config{})
	_, body, _ := get(t, srv.URL+"/api/v1/stats")
	if !strings.Contains(body, `"node":"a"`) {
		t.Errorf("stats = %s, want this node", body)
	}
}

func TestReadinessSaysWhy(t *testing.T) {
	ready := errors.New("no position")
	srv := newTestServer(t, &fakeLog{}, Config{Token: "0123456789abcdef", Ready: func() error { return ready }})
	if status, body, _ := get(t, srv.URL+"/readyz"); status != 503 || !strings.Contains(body, "no position") {
		t.Errorf("readyz = %d %q, want 503 and why", status, body)
	}
	ready = nil
	if status, _, _ := get(t, srv.URL+"/readyz"); status != 200 {
		t.Errorf("readyz = %d, want 200", status)
	}
	if status, _, _ := get(t, srv.URL+"/healthz"); status != 200 {
		t.Errorf("healthz = %d, want 200", status)
	}
}

func TestTokenGuardsEverythingElse(t *testing.T) {
	srv := newTestServer(t, &fakeLog{}, Config{Token: "0123456789abcdef", Pprof: true})
	for _, path := range []string{"/metrics", "/api/v1/stats", "/ops/", "/debug/pprof/", "/nothing"} {
		for _, auth := range []string{"", "Bearer wrong", "Bearer ", "Basic Og=="} {
			if status, _, _ := get(t, srv.URL+path, "Authorization", auth); status != 401 {
				t.Errorf("%s with %q: status %d, want 401", path, auth, status)
			}
		}
	}
	for _, auth := range []string{"Bearer 0123456789abcdef", "Basic YW55OjAxMjM0NTY3ODlhYmNkZWY="} {
		if status, _, _ := get(t, srv.URL+"/metrics", "Authorization", auth); status != 200 {
			t.Errorf("with %q: status %d, want 200", auth, status)
		}
	}
}

func TestForeignNamesAreNotAnswered(t *testing.T) {
	srv := newTestServer(t, &fakeLog{}, Config{})
	for host, want := range map[string]int{
		"localhost:9090": 200, "127.0.0.1": 200, "[::1]:9090": 200, "evil.test:9090": 421, "localhost.evil.test": 421, "127.0.0.1.evil.test": 421,
	} {
		if status, _, _ := get(t, srv.URL+"/metrics", "Host", host); status != want {
			t.Errorf("Host %s: status %d, want %d", host, status, want)
		}
	}
}

func TestPprofIsOffByDefault(t *testing.T) {
	srv := newTestServer(t, &fakeLog{}, Config{})
	if status, _, _ := get(t, srv.URL+"/debug/pprof/"); status != 404 {
		t.Errorf("pprof: status %d, want 404", status)
	}
}

func TestMetrics(t *testing.T) {
	srv := newTestServer(t, &fakeLog{}, Config{})
	_, body, _ := get(t, srv.URL+"/metrics")
	for _, want := range []string{
		`pepay_gateway_leader{stream="shop"} 1`, `pepay_gateway_live{stream="shop"} 1`,
		`pepay_gateway_connections{stream="shop",transport="ws"} 2`, `pepay_gateway_appended_total{stream="shop"} 10`,
		`pepay_gateway_lag_seconds_bucket{hop="hub",stream="shop",le="0.002"} 0`,
		`pepay_gateway_lag_seconds_bucket{hop="hub",stream="shop",le="0.005"} 1`,
		`pepay_gateway_lag_seconds_count{hop="hub",stream="shop"} 1`, "go_goroutines",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cluster := NewCluster(&fakeLog{}, "shop", "a", localReport, discard)
	s := New(Config{Ready: func() error { return nil }, Cluster: cluster, Ops: http.NotFoundHandler(), Log: discard})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.Serve(ctx, ln) }()
	go func() { done <- cluster.Run(ctx) }()
	if status, _, _ := get(t, "http://"+ln.Addr().String()+"/healthz"); status != 200 {
		t.Errorf("healthz = %d, want 200", status)
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
}
