package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An nginxProxy is a real nginx of the test's own, in front of gateways.
type nginxProxy struct {
	*process
	url string
}

// What is in http can be overridden in server, where the caller's directives
// go: nginx refuses a directive that stands twice in one block. One process and
// no master, because workers outlive a master that is killed.
const nginxConfig = `
daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 16384; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;

	map $http_upgrade $connection_upgrade {
		default upgrade;
		"" "";
	}
	upstream gateways {
%[2]s
		keepalive 32;
	}
	proxy_http_version 1.1;
	proxy_set_header Host $http_host;
	proxy_set_header Upgrade $http_upgrade;
	proxy_set_header Connection $connection_upgrade;
	proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
	proxy_buffering off;
	proxy_connect_timeout 2s;
	proxy_read_timeout 60s;
	proxy_next_upstream error timeout;
	proxy_next_upstream_tries %[3]d;

	server {
		listen %[4]s backlog=4096;
%[5]s
		location / { proxy_pass http://gateways; }
	}
}
`

// startNginx runs an nginx in front of these gateways until the test ends. It
// passes WebSockets and unbuffered SSE, takes turns among the gateways, and goes
// on to the next where one refuses. The directives of extra, such as
// "proxy_read_timeout 30s;", win over what nginxConfig has in its http block.
func startNginx(t testing.TB, upstreams []string, extra string) *nginxProxy {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // not in everybody's PATH
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: install it (Debian: apt-get install nginx-light)", err)
	}
	var servers []string
	for _, u := range upstreams {
		// nginx learns that a server is well again when a request to it has ended,
		// and a stream does not end: it must not hold failures against one.
		servers = append(servers, fmt.Sprintf("\t\tserver %s max_fails=0;", strings.TrimPrefix(u, "http://")))
	}
	dir, addr := t.TempDir(), freeAddr(t)
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, dir, strings.Join(servers, "\n"), len(servers), addr, extra)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &nginxProxy{url: "http://" + addr}
	// Each client costs nginx two file descriptors.
	n.process = start(t, "/bin/sh", []string{
		"-c", `ulimit -n "$(ulimit -Hn)" && exec "$0" "$@"`,
		path, "-p", dir, "-c", config, "-e", "stderr",
	}, nil)
	eventually(t, 10*time.Second, "nginx answers", func() bool { return getStatus(n.url+"/") != 0 })
	return n
}

func TestStreamsThroughNginx(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	proxy := startNginx(t, []string{g.url}, "proxy_read_timeout 30s;")
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	through := func(url string) string {
		return strings.Replace(url, strings.TrimPrefix(g.url, "http"), strings.TrimPrefix(proxy.url, "http"), 1)
	}
	ws := openWS(t, through(m.WSURL), m.Token, "")
	sse := openSSE(t, through(m.SSEURL), "")
	ws.waitControl("replay_complete")
	sse.waitControl("replay_complete")
	lifecycle(p, "cust_1")
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		all := recordedIDs(p) // a look-up may have found one more
		eventually(t, 20*time.Second, name+" has every event", func() bool { return len(within(s.ids(), all)) == len(all) })
	}
	if got, want := getStatus(proxy.url+"/api/v1/events"), http.StatusUnauthorized; got != want {
		t.Errorf("REST without a token = %d, want %d", got, want)
	}
}
