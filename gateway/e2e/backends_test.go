package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A backend is a shop's /token in one language, as docs/browser.md prints it, and
// what a shop has around it: in here, who is signed in stands in a header, and
// one order is Alice's.
type backend struct {
	language string
	words    string            // which only its block has
	files    map[string]string // %s stands for the block
	build    []string
	run      []string
}

var backends = []backend{
	{
		language: "js", words: "app.post('/token'",
		files: map[string]string{"shop.mjs": `
import { createRequire } from 'node:module';
const express = createRequire(process.env.WEB)('express');
const app = express();
const signedInShopper = async (req) => req.get('x-shopper');
const orderIsOf = async (shopper, order) => shopper === 'alice' && order === process.env.ORDER;
%s
app.listen(process.env.PORT, '127.0.0.1');
`},
		run: []string{"node", "shop.mjs"},
	},
	{
		language: "python", words: "def token",
		files: map[string]string{"shop.py": `
%s
import http.server

def order_is_of(shopper, order):
    return shopper == "alice" and order == os.environ["ORDER"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            status, data = token(self.headers.get("X-Shopper"), body.get("order_id"))
        except Exception:
            status, data = 500, None
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(data).encode())

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`},
		run: []string{"python3", "shop.py"},
	},
	{
		language: "php", words: "signed_in_shopper",
		files: map[string]string{"token.php": "%s", "shop.php": `<?php
function signed_in_shopper() { return $_SERVER['HTTP_X_SHOPPER'] ?? ''; }
function order_is_of($shopper, $order) { return $shopper === 'alice' && $order === getenv('ORDER'); }
require __DIR__ . '/token.php';
`},
		run: []string{"php", "-S", "127.0.0.1:$PORT", "shop.php"},
	},
	{
		language: "go", words: "func token(",
		files: map[string]string{"go.mod": "module shop\n\ngo 1.22\n", "main.go": `package main

import (
	"bytes"
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func signedInShopper(r *http.Request) string { return r.Header.Get("X-Shopper") }

func orderIsOf(shopper, order string) bool { return shopper == "alice" && order == os.Getenv("ORDER") }

%s
func main() {
	http.HandleFunc("POST /token", token)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
`},
		build: []string{"sh", "-c", "go vet . && go build -o shop ."},
		run:   []string{"./shop"},
	},
}

// Each of them gives Alice a token for her own order, and nobody any other.
func TestPrintedBackendsGiveTokensForOnesOwnOrdersOnly(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	alices, bobs := p.order("cust_1").OrderID, p.order("cust_2").OrderID
	text, err := os.ReadFile("../../docs/browser.md")
	if err != nil {
		t.Fatal(err)
	}
	urls := make(map[string]string)
	for _, b := range backends {
		urls[b.language] = b.start(t, b.block(t, string(text)), g, alices)
	}
	for language, url := range urls {
		for _, tt := range []struct {
			shopper string
			order   any
			want    int
		}{
			{"", alices, http.StatusUnauthorized},
			{"alice", bobs, http.StatusNotFound},
			{"alice", "", http.StatusNotFound},
			{"bob", alices, http.StatusNotFound},
		} {
			if status, body := askForToken(t, url, tt.shopper, tt.order); status != tt.want || strings.Contains(body, "sse_url") {
				t.Errorf("%s: %q asks for %v: %d %s, want %d and no token", language, tt.shopper, tt.order, status, body, tt.want)
			}
		}
		// A list of orders is not an order.
		if status, body := askForToken(t, url, "alice", []string{alices, bobs}); status < 400 || strings.Contains(body, "sse_url") {
			t.Errorf("%s: alice asks for two orders: %d %s, want no token", language, status, body)
		}
		status, body := askForToken(t, url, "alice", alices)
		var m minted
		if err := json.Unmarshal([]byte(body), &m); status != http.StatusOK || err != nil {
			t.Errorf("%s: alice asks for her order: %d %s, want the data of a mint", language, status, body)
			continue
		}
		openSSE(t, m.SSEURL, "").waitControl("replay_complete")
		openWS(t, m.WSURL, m.Token, "").waitControl("replay_complete")
		for order, want := range map[string]int{alices: http.StatusOK, bobs: http.StatusNotFound} {
			if got, _ := get(t, g.url+"/api/v1/orders/"+order+"/state", m.Token); got != want {
				t.Errorf("%s: state of %s with alice's token: %d, want %d", language, order, got, want)
			}
		}
	}
	g.kill()
	for language, url := range urls {
		if status, body := askForToken(t, url, "alice", alices); status < 500 {
			t.Errorf("%s: without a gateway: %d %s, want 500 or more, which is tried again", language, status, body)
		}
	}
}

// block returns the backend's lines, exactly as they are printed.
func (b backend) block(t testing.TB, text string) string {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```"+b.language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], b.words) {
			return m[1]
		}
	}
	t.Fatalf("docs/browser.md has no %s with %s", b.language, b.words)
	return ""
}

// start starts the backend and returns the address of its /token.
func (b backend) start(t testing.TB, block string, g *gatewayProcess, order string) string {
	t.Helper()
	if _, err := exec.LookPath(b.run[0]); err != nil && !strings.HasPrefix(b.run[0], "./") {
		t.Fatalf("%s is missing: make setup installs what the tests need", b.run[0])
	}
	web, err := filepath.Abs(webDir)
	if err != nil {
		t.Fatal(err)
	}
	dir, addr := t.TempDir(), freeAddr(t)
	for name, text := range b.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Replace(text, "%s", block, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b.build != nil {
		build := exec.Command(b.build[0], b.build[1:]...)
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", b.language, err, out)
		}
	}
	_, port, _ := strings.Cut(addr, ":")
	start(t, "/bin/sh", []string{"-c", `cd "$0" && exec ` + strings.Join(b.run, " "), dir}, []string{
		"PORT=" + port, "ORDER=" + order, "WEB=" + web + "/", "EVENTS_URL=" + g.url, "EVENTS_API_KEY=" + testKey,
	})
	eventually(t, 30*time.Second, b.language+" answers", func() bool { return getStatus("http://"+addr+"/token") != 0 })
	return "http://" + addr + "/token"
}

func askForToken(t testing.TB, url, shopper string, order any) (int, string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"order_id": order})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if shopper != "" {
		req.Header.Set("X-Shopper", shopper)
	}
	res, err := testClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}
