package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// programVariable names a built program to test instead of one built afresh.
	programVariable = "PEPAY_GATEWAY_PROGRAM"
	// logsVariable names a folder that gets what every process printed.
	logsVariable = "PEPAY_GATEWAY_TEST_LOGS"
)

// program is the built pepay-gateway.
var program string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if program = os.Getenv(programVariable); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "pepay-gateway")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is in the system's folder for such
	program = filepath.Join(dir, "pepay-gateway")
	build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", program, "../..")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	testKey    = "gwk_e2e_0123456789abcdef0123456789"
	testSecret = "MARKER-0123456789abcdef0123456789abcdef"
)

// A process is one program under test.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done

	mu   sync.Mutex
	out  bytes.Buffer
	file *os.File // a copy, where logsVariable says
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		_, _ = p.file.Write(b) // the buffer has it too
	}
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start runs a program until the test ends. What it printed is shown if the
// test fails.
func start(t testing.TB, name string, args, env []string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	if dir := os.Getenv(logsVariable); dir != "" {
		var err error
		if p.file, err = os.CreateTemp(dir, filepath.Base(name)+"-*.log"); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if out := p.output(); strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
			t.Errorf("%s %v:\n%s", filepath.Base(name), args, out)
		} else if t.Failed() {
			t.Logf("%s %v:\n%s", filepath.Base(name), args, lastLines(out, 60))
		}
	})
	return p
}

func lastLines(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // gone already is fine
	<-p.done
}

// terminate sends SIGTERM and returns the exit code.
func (p *process) terminate(within time.Duration) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("still running %v after SIGTERM", within)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func startSelf(t testing.TB, args []string, env ...string) *process {
	t.Helper()
	return start(t, program, args, env)
}

var ports atomic.Uint32

// freeAddr returns a loopback address that nobody listens on, below the range
// of ports that the system hands out to others.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+int(uint32(os.Getpid())*997+ports.Add(1))%6000)
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			_ = ln.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// eventually waits until ok holds.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-tick.C
	}
}

// A redisServer is a real redis-server of the test's own.
type redisServer struct {
	*process
	addr string
	args []string
}

func startRedis(t testing.TB, extra ...string) *redisServer {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	r := &redisServer{addr: addr, args: append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "no",
	}, extra...)}
	r.restart(t)
	return r
}

func (r *redisServer) url() string { return "redis://" + r.addr + "/0" }

func (r *redisServer) restart(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("%v: install it (Debian: apt-get install redis-server)", err)
	}
	r.process = start(t, "redis-server", r.args, nil)
	eventually(t, 10*time.Second, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("PING\r\n")); err != nil {
			return false
		}
		var b [5]byte
		_, err = io.ReadFull(c, b[:])
		return err == nil && string(b[:]) == "+PONG"
	})
}

// A pepay is a devnet in a process of its own.
type pepay struct {
	*process
	url string
}

func startPepay(t testing.TB, args ...string) *pepay {
	t.Helper()
	addr := freeAddr(t)
	p := &pepay{url: "http://" + addr}
	p.process = startSelf(t, append([]string{"devnet", "--listen", addr}, args...))
	eventually(t, 20*time.Second, "devnet answers", func() bool { return getStatus(p.url+"/_devnet/state") == 200 })
	return p
}

type devnetState struct {
	Connections      int `json:"connections"`
	MaxConnections   int `json:"max_connections"`
	TotalConnections int `json:"total_connections"`
	Events           int `json:"events"`
}

func (p *pepay) state() devnetState {
	var s devnetState
	getJSON(p.t, p.url+"/_devnet/state", &s)
	return s
}

type recorded struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	OrderID    string `json:"order_id"`
	InvoiceID  string `json:"invoice_id"`
	CustomerID string `json:"customer_id"`
	Raw        string `json:"raw"`
}

// record is the truth: every event ever emitted, with its real owner.
func (p *pepay) record() []recorded {
	var all struct {
		Events []recorded `json:"events"`
	}
	getJSON(p.t, p.url+"/_devnet/events", &all)
	return all.Events
}

type devnetOrder struct {
	OrderID   string `json:"order_id"`
	InvoiceID string `json:"invoice_id"`
}

func (p *pepay) order(customer string, more ...any) devnetOrder {
	p.t.Helper()
	body := map[string]any{"customer_id": customer}
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	var o devnetOrder
	if status := postJSON(p.t, p.url+"/_devnet/orders", "", body, &o); status >= 300 || o.OrderID == "" {
		p.t.Fatalf("create order: status %d, %+v", status, o)
	}
	return o
}

func (p *pepay) simulate(order, transition string) {
	p.t.Helper()
	status := postJSON(p.t, p.url+"/api/commerce/devnet/orders/"+order+"/simulate", "ck_devnet_demo",
		map[string]any{"transitionTo": transition}, nil)
	if status != 200 {
		p.t.Fatalf("simulate %s: status %d", transition, status)
	}
}

func (p *pepay) control(path string, body any) {
	p.t.Helper()
	if status := postJSON(p.t, p.url+"/_devnet/"+path, "", body, nil); status >= 300 {
		p.t.Fatalf("devnet %s: status %d", path, status)
	}
}

// A gatewayProcess is one node in a process of its own.
type gatewayProcess struct {
	*process
	url, admin string
}

func startGateway(t testing.TB, name string, redis *redisServer, p *pepay, env ...string) *gatewayProcess {
	t.Helper()
	g := launchGateway(t, name, redis, p, env...)
	g.waitReady()
	return g
}

func launchGateway(t testing.TB, name string, redis *redisServer, p *pepay, env ...string) *gatewayProcess {
	t.Helper()
	return launchGatewayAs(t, []string{program, "serve"}, name, redis, p, env...)
}

// launchGatewayAs starts a node by a command of its own.
func launchGatewayAs(t testing.TB, command []string, name string, redis *redisServer, p *pepay, env ...string) *gatewayProcess {
	t.Helper()
	addr, adminAddr := freeAddr(t), freeAddr(t)
	g := &gatewayProcess{url: "http://" + addr, admin: "http://" + adminAddr}
	env = append([]string{
		"GATEWAY_LISTEN=" + addr, "GATEWAY_ADMIN_LISTEN=" + adminAddr, "GATEWAY_PUBLIC_URL=http://" + addr,
		"GATEWAY_NODE=" + name, "GATEWAY_REDIS_URL=" + redis.url(),
		"GATEWAY_UPSTREAM_API_URL=" + p.url, "GATEWAY_UPSTREAM_API_KEY=ck_devnet_demo",
		"GATEWAY_AUTH_API_KEY=" + testKey, "GATEWAY_AUTH_TOKEN_SECRET=" + testSecret,
		"GATEWAY_CORS_ORIGINS=https://shop.test", "GATEWAY_LEADER_LEASE=2s",
		"GATEWAY_DRAIN_DELAY=0s", "GATEWAY_DRAIN_DURATION=1s", "GATEWAY_LOG_LEVEL=debug",
		"GATEWAY_LIMITS_HANDSHAKES_PER_IP=0", "GATEWAY_LIMITS_CONNECTIONS_PER_IP=0",
	}, env...)
	g.process = start(t, command[0], command[1:], env)
	return g
}

func (g *gatewayProcess) waitReady() {
	g.t.Helper()
	eventually(g.t, 20*time.Second, "gateway is ready", func() bool { return getStatus(g.admin+"/readyz") == 200 })
}

type nodeStats struct {
	Leader string `json:"leader"`
	Status struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"status"`
	Log struct {
		Seq uint64 `json:"seq"`
	} `json:"log"`
	Nodes []struct {
		Node     string           `json:"node"`
		Leader   bool             `json:"leader"`
		Counters map[string]int64 `json:"counters"`
	} `json:"nodes"`
}

func (g *gatewayProcess) stats() nodeStats {
	var s nodeStats
	getJSON(g.t, g.admin+"/api/v1/stats", &s)
	return s
}

func (g *gatewayProcess) waitLive() {
	g.t.Helper()
	eventually(g.t, 20*time.Second, "stream is live", func() bool { return g.stats().Status.State == "live" })
}

// leaderOf returns which of the nodes leads, and which do not.
func leaderOf(t testing.TB, nodes ...*gatewayProcess) (leader *gatewayProcess, others []*gatewayProcess) {
	t.Helper()
	eventually(t, 20*time.Second, "somebody leads", func() bool {
		leader, others = nil, nil
		for _, g := range nodes {
			if strings.Contains(metrics(g), `pepay_gateway_leader{stream="commerce"} 1`) {
				leader = g
			} else {
				others = append(others, g)
			}
		}
		return leader != nil && len(others) == len(nodes)-1
	})
	return leader, others
}

func metrics(g *gatewayProcess) string {
	_, body := get(g.t, g.admin+"/metrics", "")
	return body
}

type minted struct {
	Token            string `json:"token"`
	WSURL            string `json:"ws_url"`
	SSEURL           string `json:"sse_url"`
	ExpiresAt        int64  `json:"expires_at"`
	SessionExpiresAt int64  `json:"session_expires_at"`
}

// mint asks the gateway for a token, as a merchant's backend does.
func (g *gatewayProcess) mint(claims map[string]any) minted {
	g.t.Helper()
	var answer struct {
		Data minted `json:"data"`
	}
	if status := postJSON(g.t, g.url+"/api/v1/ws/token", testKey, claims, &answer); status != 200 {
		g.t.Fatalf("mint: status %d", status)
	}
	return answer.Data
}

var testClient = &http.Client{Timeout: 10 * time.Second}

func getStatus(url string) int {
	resp, err := testClient.Get(url)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func get(t testing.TB, url, key string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("x-api-key", key)
	}
	resp, err := testClient.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", req.URL.Path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func getJSON(t testing.TB, url string, v any) {
	t.Helper()
	status, body := get(t, url, "")
	if status != 200 {
		t.Fatalf("GET %s: status %d: %s", url, status, body)
	}
	if err := json.Unmarshal([]byte(body), v); err != nil {
		t.Fatalf("GET %s: %v in %s", url, err, body)
	}
}

func postJSON(t testing.TB, url, key string, in, out any) int {
	t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("x-api-key", key)
	}
	resp, err := testClient.Do(req)
	if err != nil {
		t.Fatalf("POST %s: %v", req.URL.Path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(body, out); err != nil {
			t.Fatalf("POST %s: %v in %s", req.URL.Path, err, body)
		}
	}
	return resp.StatusCode
}
