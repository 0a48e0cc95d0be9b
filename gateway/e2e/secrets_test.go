package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// A gossip stands between a gateway and its upstream, and notes every token that
// the upstream mints. Requests of some methods it answers as a server does that
// quotes what it was sent.
type gossip struct {
	*httptest.Server
	quotes map[string]int // by method, with which status

	mu     sync.Mutex // guards the fields below
	tokens []string
	quoted int
}

func startGossip(t testing.TB, upstream string, quotes map[string]int) *gossip {
	t.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	g := &gossip{quotes: quotes}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Request.Method != http.MethodPost {
			return nil
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		var minted struct{ Data struct{ Token string } }
		if err == nil && json.Unmarshal(body, &minted) == nil && minted.Data.Token != "" {
			g.mu.Lock()
			g.tokens = append(g.tokens, minted.Data.Token)
			g.mu.Unlock()
		}
		return err
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := g.quotes[r.Method]
		if status == 0 {
			proxy.ServeHTTP(w, r)
			return
		}
		g.mu.Lock()
		g.quoted++
		g.mu.Unlock()
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"success":false,"error":{"code":%q,"message":%q}}`,
			r.Header.Get("X-Api-Key")+r.URL.Query().Get("token"), fmt.Sprint("no to ", r.URL, r.Header))
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gossip) said() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.quoted
}

func (g *gossip) minted() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.tokens...)
}

// tell sends Redis one command.
func (r *redisServer) tell(t testing.TB, command string) {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		t.Fatal(err)
	}
	var b [5]byte
	if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:3]) != "+OK" {
		t.Fatalf("%s: %q, %v, want OK", command, b, err)
	}
}

// A secrecy is everything that came out of a gateway, by where.
type secrecy map[string]string

// fetch asks for a path in a way, and keeps the whole of the answer.
func (s secrecy) fetch(t testing.TB, method, rawURL string, header map[string]string, body string) int {
	t.Helper()
	req, err := http.NewRequest(method, rawURL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	// A stream ends with its first bytes; what is in streams is looked at by other means.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", req.URL.Path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer bytes.Buffer
	_ = resp.Header.Write(&answer) // to memory
	if !strings.Contains(resp.Header.Get("Content-Type"), "event-stream") {
		if _, err := io.Copy(&answer, resp.Body); err != nil {
			t.Fatalf("%s: %v", req.URL.Path, err)
		}
	}
	s[fmt.Sprintf("answer %d to %s %s %d", len(s), method, req.URL.Path, resp.StatusCode)] = answer.String()
	return resp.StatusCode
}

func TestNoSecretIsEverPrinted(t *testing.T) {
	t.Parallel()
	const redisPassword, adminToken = "MARKER-redis-0123456789abcdef", "MARKER-admin-0123456789abcdef0123456789"
	redis, p := startRedis(t), startPepay(t)
	redis.tell(t, "CONFIG SET requirepass "+redisPassword)
	upstreams := []*gossip{
		startGossip(t, p.url, nil),
		startGossip(t, p.url, map[string]int{"POST": http.StatusUnauthorized, "GET": http.StatusUnauthorized}),
		startGossip(t, p.url, map[string]int{"GET": http.StatusForbidden}), // mints, and refuses the stream
	}
	var nodes []*gatewayProcess
	for i, u := range upstreams {
		nodes = append(nodes, startGateway(t, fmt.Sprintf("node-%d", i), redis, p,
			"GATEWAY_REDIS_URL=redis://:"+redisPassword+"@"+redis.addr+"/0", "GATEWAY_UPSTREAM_API_URL="+u.URL, fmt.Sprintf("GATEWAY_STREAM=stream%d", i),
			"GATEWAY_ADMIN_TOKEN="+adminToken, "GATEWAY_ADMIN_PPROF=true", "GATEWAY_LIMITS_CONNECTIONS_PER_TOKEN=2"))
	}
	g := nodes[0]
	out := secrecy{}
	admin := map[string]string{"Authorization": "Bearer " + adminToken}
	live := func() bool {
		req, _ := http.NewRequest(http.MethodGet, g.admin+"/api/v1/stats", nil)
		req.Header.Set("Authorization", "Bearer "+adminToken)
		resp, err := testClient.Do(req)
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		var s nodeStats
		return json.NewDecoder(resp.Body).Decode(&s) == nil && s.Status.State == "live"
	}
	eventually(t, 20*time.Second, "stream is live", live)

	// Streams of both transports, one of them replaced, one with a bad frame.
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	var streams []*stream
	for range 2 {
		streams = append(streams, openWS(t, m.WSURL, m.Token, ""), openSSE(t, m.SSEURL, ""))
	}
	sseByToken := strings.Replace(strings.Replace(m.WSURL, "ws://", "http://", 1), "/ws/", "/sse/", 1) + "?token=" + m.Token
	streams = append(streams, openSSE(t, sseByToken, ""))
	lifecycle(p, "cust_1")
	streams[len(streams)-1].waitIDs(3)

	// Refusals, with secrets wherever one can be put.
	for _, token := range []string{m.Token, m.Token + "x", testKey, testKey + "x"} {
		for _, path := range []string{
			"/sse/commerce/events?customer_id=cust_2&token=" + token, "/ws/commerce/events?token=" + token, "/sse/commerce/events%3Ftoken=" + token,
			"/nothing/" + token, "/api/v1/events/" + token, "/api/v1/orders/" + token + "/state", "/api/v1/invoices?token=" + token,
			"/api/v1/events?limit=x&token=" + token, "/api/v1/events?starting_after=" + token, "/sse/commerce/events?since=" + token + "&token=" + m.Token,
		} {
			for _, header := range []map[string]string{
				nil,
				{"Authorization": "Bearer " + token},
				{"Authorization": "Basic " + token},
				{"x-api-key": token},
				{"Origin": token},
				{"X-Forwarded-For": token},
				{"Last-Event-ID": token},
				{"User-Agent": token, "Referer": "https://shop.test/?token=" + token},
				{"Pad": token + strings.Repeat("x", 17<<10)},
			} {
				out.fetch(t, http.MethodGet, g.url+path, header, "")
			}
		}
		out.fetch(t, http.MethodPost, g.url+"/api/v1/ws/token", map[string]string{"x-api-key": token + "y"}, `{"customer_id":"`+token+`"}`)
		out.fetch(t, http.MethodPost, g.url+"/api/v1/ws/token", map[string]string{"x-api-key": testKey}, `{"ttl_seconds":"`+token+`"}`)
		ws := dialWS(t, m.WSURL, []string{"pepay.v1", "bearer." + token + "x"}, nil)
		_ = ws.waitEnd()
		streams = append(streams, ws)
		answers(t, g.url, "GET /"+token+" HTTP/1.1\r\nBroken "+token+"\r\n\r\n")
	}

	// A fault of the upstream, and two upstreams that never work.
	before := p.state().TotalConnections
	p.control("cut", map[string]any{})
	eventually(t, 30*time.Second, "live again", func() bool { return p.state().TotalConnections > before && live() })
	for _, u := range upstreams[1:] {
		eventually(t, 30*time.Second, "requests are quoted", func() bool { return u.said() > 0 })
	}

	// Whatever the operators can see.
	for _, path := range []string{
		"/metrics", "/api/v1/stats", "/ops/", "/readyz", "/healthz", "/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1",
		"/debug/pprof/cmdline", "/debug/pprof/allocs?debug=1", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1", "/debug/vars", "/nothing",
	} {
		out.fetch(t, http.MethodGet, g.admin+path, admin, "")
		out.fetch(t, http.MethodGet, g.admin+path+"?token="+adminToken, map[string]string{"Authorization": "Bearer " + adminToken + "x"}, "")
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	out["the command line"] = string(cmdline)
	print := exec.Command(program, "config", "print")
	print.Env = g.cmd.Env
	printed, err := print.CombinedOutput()
	if err != nil || !strings.Contains(string(printed), "upstream") {
		t.Errorf("config print: %v, %s", err, printed)
	}
	out["config print"] = string(printed)

	// Faults of Redis: gone, without the password, with another.
	logged := func(text string) func() bool { return func() bool { return strings.Contains(g.output(), text) } }
	redis.kill()
	eventually(t, 20*time.Second, "Redis is missed", logged("connection refused"))
	redis.restart(t)
	redis.tell(t, "CONFIG SET requirepass another")
	eventually(t, 20*time.Second, "Redis refuses the password", logged("WRONGPASS"))
	out.fetch(t, http.MethodGet, g.url+"/api/v1/events", map[string]string{"x-api-key": testKey}, "")
	for i, n := range nodes {
		n.terminate(20 * time.Second)
		out[fmt.Sprintf("log %d", i)] = n.output()
	}
	for i, s := range streams {
		s.close()
		out[fmt.Sprintf("stream %d", i)] = fmt.Sprint(s.all(), s.end)
	}
	// A token's secret is its signature; the rest says what its owner knows.
	signature := func(token string) string { return token[strings.LastIndexByte(token, '.')+1:] }
	sseToken, err := url.Parse(m.SSEURL)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{
		"token secret": testSecret, "API key": testKey, "upstream key": "ck_devnet_demo", "Redis password": redisPassword,
		"admin token": adminToken, "token": signature(m.Token), "sse token": signature(sseToken.Query().Get("token")),
	}
	for i, u := range upstreams {
		minted := u.minted()
		if want := []int{2, 0, 1}[i]; len(minted) < want {
			t.Errorf("upstream %d minted %d tokens, want %d at least", i, len(minted), want)
		}
		for _, token := range minted {
			secrets["ws_token …"+token[len(token)-4:]] = signature(token)
		}
	}
	for where, text := range out {
		for name, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s contains the %s: %.300s", where, name, text[max(0, at-100):])
			}
		}
	}
	for text, log := range map[string]string{
		`"level":"DEBUG"`: "log 0", "stream ended": "log 0", "stream refused": "log 0", "token minted": "log 0",
		`"class":`: "log 1", "upstream connection ended": "log 2",
	} {
		if !strings.Contains(out[log], text) {
			t.Errorf("%s lacks %s: this test would see nothing", log, text)
		}
	}
}
