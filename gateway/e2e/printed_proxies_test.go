package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// idleTimeout is what stands for the 60 s of the printed configurations: hardly
// more than the 15 s in which every stream says something.
const idleTimeout = 17 * time.Second

// A printedProxy is a proxy with the configuration that docs/browser.md prints.
// Only names and addresses are changed, and the timeouts shortened.
type printedProxy struct {
	language string
	program  string
	file     string
	around   string // what the file has around the block: %[1]s, in the folder %[2]s, with a free address %[3]s
	replace  func(dir, addr string) []string
	args     []string // DIR stands for the folder, ADMIN for the address
	reload   []string // a command; none: SIGHUP
	signal   syscall.Signal
}

var printedProxies = []printedProxy{
	{
		language: "nginx", program: "nginx", file: "nginx.conf",
		around: `
daemon off;
pid %[2]s/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {}
http {
access_log off;
client_body_temp_path %[2]s/body;
proxy_temp_path %[2]s/proxy;
fastcgi_temp_path %[2]s/fastcgi;
uwsgi_temp_path %[2]s/uwsgi;
scgi_temp_path %[2]s/scgi;
%[1]s
}
`,
		replace: func(dir, addr string) []string {
			return []string{"443", addr, "/etc/ssl/", dir + "/"}
		},
		args:   []string{"-p", "DIR", "-c", "DIR/nginx.conf", "-e", "stderr"},
		signal: syscall.SIGHUP,
	},
	{
		language: "haproxy", program: "haproxy", file: "haproxy.cfg",
		around: "%[1]s",
		replace: func(dir, addr string) []string {
			return []string{":443", addr, "/etc/ssl/events.pem", dir + "/both.pem"}
		},
		args:   []string{"-W", "-db", "-f", "DIR/haproxy.cfg"},
		signal: syscall.SIGUSR2,
	},
	{
		language: "caddyfile", program: "caddy", file: "Caddyfile",
		around: `{
	admin %[3]s
	auto_https disable_redirects
	default_sni 127.0.0.1
}
%[1]s`,
		replace: func(dir, addr string) []string {
			return []string{"events.shop.com {", "https://" + addr + " {\n tls " + dir + "/events.pem " + dir + "/events.key"}
		},
		args:   []string{"run", "--config", "DIR/Caddyfile", "--adapter", "caddyfile"},
		reload: []string{"reload", "--force", "--config", "DIR/Caddyfile", "--adapter", "caddyfile", "--address", "ADMIN"},
	},
}

// A proxied is a client behind a proxy, which comes back when its stream ends.
type proxied struct {
	name    string // of the proxy and the transport
	open    func(cursor string) *stream
	streams []*stream
}

// follow opens a stream where the last one ended, if it did.
func (c *proxied) follow(t *testing.T) {
	t.Helper()
	last := c.streams[len(c.streams)-1]
	select {
	case <-last.done:
		c.streams = append(c.streams, c.resume(t, last.cursor()))
	default:
	}
}

func (c *proxied) resume(t *testing.T, cursor string) *stream {
	t.Helper()
	s := c.open(cursor)
	if hello := s.waitControl("hello"); hello["resumed"] != true {
		t.Errorf("%s: told %v, want that it resumes", c.name, hello)
	}
	return s
}

// told counts the events of all its streams, each once.
func (c *proxied) told() int {
	have := make(map[string]bool)
	for _, s := range c.streams {
		for _, id := range s.ids() {
			have[id] = true
		}
	}
	return len(have)
}

// Through each of them streams begin and bring events at once, live while
// nothing happens, and miss nothing when the proxy reads its configuration anew.
func TestStreamsThroughThePrintedProxies(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/browser.md")
	if err != nil {
		t.Fatal(err)
	}
	redis, p := startRedis(t), startPepay(t)
	nodes := []*gatewayProcess{startGateway(t, "node-a", redis, p), startGateway(t, "node-b", redis, p)}
	for _, g := range nodes {
		g.waitLive()
	}
	var clients []*proxied
	var reloads []func()
	for _, px := range printedProxies {
		url, reload := px.start(t, string(text), nodes)
		reloads = append(reloads, reload)
		through := func(target string) string {
			return strings.Replace(target, strings.TrimPrefix(nodes[0].url, "http"), strings.TrimPrefix(url, "http"), 1)
		}
		m := nodes[0].mint(map[string]any{"customer_id": "cust_1", "ttl_seconds": 600})
		sse := &proxied{name: px.language + " sse", open: func(cursor string) *stream { return openSSE(t, through(m.SSEURL), cursor) }}
		ws := &proxied{name: px.language + " ws", open: func(cursor string) *stream {
			url := through(m.WSURL)
			if cursor != "" {
				url = withQuery(url, "since", cursor)
			}
			return dialWS(t, url, []string{"pepay.v1", "bearer." + m.Token}, nil)
		}}
		clients = append(clients, sse, ws)
	}
	for _, c := range clients {
		s := c.open("")
		s.waitControl("replay_complete")
		if want := "HTTP/2.0"; s.sse && s.proto != want {
			t.Errorf("%s: came over %s, want %s", c.name, s.proto, want)
		}
		c.streams = []*stream{s}
	}
	waitTold := func(when string, follow bool) {
		t.Helper()
		want := len((&world{pepay: p}).owned("cust_1"))
		for _, c := range clients {
			eventually(t, 30*time.Second, c.name+" has its events "+when, func() bool {
				if follow {
					c.follow(t)
				}
				return c.told() >= want
			})
		}
	}
	happen := func(when string) {
		t.Helper()
		began := time.Now()
		p.order("cust_1")
		waitTold(when, false)
		took := time.Since(began)
		t.Logf("%s: events after %v", when, took.Round(time.Millisecond))
		if limit := 2 * time.Second; took > limit {
			t.Errorf("%s: events after %v, want them within %v", when, took, limit)
		}
	}
	happen("at first")

	idle := time.Now()
	eventually(t, 2*idleTimeout, "past the timeout", func() bool { return time.Since(idle) > idleTimeout+2*time.Second })
	for _, c := range clients {
		select {
		case <-c.streams[0].done:
			t.Errorf("%s: ended by %v while nothing happened, want it to live", c.name, c.streams[0].waitEnd())
		default:
		}
	}
	happen("after a while of nothing")

	before := make(map[*proxied]string)
	for _, c := range clients {
		before[c] = c.streams[0].cursor()
	}
	for _, reload := range reloads {
		reload()
	}
	lifecycle(p, "cust_1")
	waitTold("after a reload", true)
	for _, c := range clients {
		t.Logf("%s: %d streams", c.name, len(c.streams))
		c.resume(t, before[c]) // by the proxy as it is now
	}
}

// start starts the proxy in front of two nodes. It returns its address, and what
// makes it read its configuration anew.
func (px printedProxy) start(t *testing.T, docs string, nodes []*gatewayProcess) (url string, reload func()) {
	t.Helper()
	path, err := exec.LookPath(px.program)
	if err != nil {
		path = "/usr/sbin/" + px.program // not in everybody's PATH
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: make setup installs what the tests need", px.program)
	}
	dir, addr, admin := t.TempDir(), freeAddr(t), freeAddr(t)
	writeCertificate(t, dir)
	_, block, found := strings.Cut(docs, "```"+px.language+"\n")
	if !found {
		t.Fatalf("docs/browser.md has no %s", px.language)
	}
	block, _, _ = strings.Cut(block, "```")
	names := append(px.replace(dir, addr), "60s", idleTimeout.String())
	for i, g := range nodes {
		printed := fmt.Sprintf("10.0.0.%d:8080", i+1)
		if !strings.Contains(block, printed) {
			t.Fatalf("%s: no server %s", px.language, printed)
		}
		_, adminPort, _ := net.SplitHostPort(strings.TrimPrefix(g.admin, "http://"))
		names = append(names, printed+" check port 9090", strings.TrimPrefix(g.url, "http://")+" check port "+adminPort,
			printed, strings.TrimPrefix(g.url, "http://"))
	}
	config := fmt.Sprintf(px.around, strings.NewReplacer(names...).Replace(block), dir, admin)
	if err := os.WriteFile(filepath.Join(dir, px.file), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := func(args []string) []string {
		var out []string
		for _, arg := range args {
			out = append(out, strings.NewReplacer("DIR", dir, "ADMIN", admin).Replace(arg))
		}
		return out
	}
	proc := start(t, path, fill(px.args), []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir})
	// Killed, it would leave its workers behind.
	t.Cleanup(func() {
		if proc.cmd.Process.Signal(syscall.SIGTERM) == nil {
			<-proc.done
		}
	})
	eventually(t, 20*time.Second, px.program+" passes requests on", func() bool {
		out, err := exec.Command("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "https://"+addr+"/api/v1/events").Output()
		return err == nil && string(out) == "401"
	})
	return "https://" + addr, func() {
		t.Helper()
		if px.reload == nil {
			proc.signal(t, px.signal)
			return
		}
		if out, err := exec.Command(path, fill(px.reload)...).CombinedOutput(); err != nil {
			t.Fatalf("%s reload: %v\n%s", px.program, err, out)
		}
	}
}

// writeCertificate writes events.pem, events.key, and both in one.
func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "events.shop.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	for name, content := range map[string][]byte{"events.pem": cert, "events.key": secret, "both.pem": append(cert[:len(cert):len(cert)], secret...)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
