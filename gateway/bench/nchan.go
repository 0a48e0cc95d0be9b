package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// nchanConfig is an nginx with one worker that serves Nchan's channels, kept in
// a Redis, as a shop would run it.
const nchanConfig = `load_module %[1]s;
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
user root;
pid %[2]s/nginx.pid;
error_log %[2]s/nginx-error.log warn;
events { worker_connections 19000; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	keepalive_requests 100000000;
	keepalive_timeout 600s;
	nchan_shared_memory_size 256M;
	nchan_redis_url redis://%[4]s;
	server {
		listen %[3]s backlog=4096;
		location ~ /sub/(.+)$ {
			nchan_subscriber websocket eventsource;
			nchan_channel_id $1;
			nchan_use_redis on;
			nchan_websocket_ping_interval 15;
			nchan_eventsource_ping_interval 15;
			nchan_subscriber_first_message newest;
		}
		location ~ /pub/(.+)$ {
			nchan_publisher http;
			nchan_channel_id $1;
			nchan_use_redis on;
			nchan_message_buffer_length 100;
			nchan_message_timeout 5m;
		}
	}
}
`

// nchanModule is where Debian puts it.
const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

// nchanSettle is how long Nchan may take to subscribe at its Redis.
const nchanSettle = 2 * time.Second

func (l *lab) bringNchan(ctx context.Context, run runner) (target, error) {
	program, err := exec.LookPath("nginx")
	if err == nil {
		_, err = os.Stat(nchanModule)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %w; install nginx and libnginx-mod-nchan (Debian)", err)
	}
	redis, redisAddr, err := l.bringRedis(ctx, run)
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "nchan")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nchanConfig, nchanModule, dir, addr, redisAddr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	p, err := run("nginx", program, []string{"-c", config, "-p", dir}, nil)
	if err != nil {
		return nil, err
	}
	var workers pids
	if err := p.ready(ctx, func() bool {
		workers, err = childrenOf(p.pid())
		return accepting(addr)() && err == nil && len(workers) > 0
	}); err != nil {
		return nil, err
	}
	return &nchanTarget{address: addr, processes: append(workers, p.pid()), redis: pids{redis.pid()}}, sleep(ctx, nchanSettle)
}

// childrenOf returns the processes that pid has started.
func childrenOf(pid int) (pids, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, fmt.Errorf("bench: nginx: %w", err)
	}
	var all pids
	for _, field := range strings.Fields(string(b)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("bench: nginx: %w", err)
		}
		all = append(all, child)
	}
	return all, nil
}

// An nchanTarget is an nginx with Nchan. Its streams have no scopes: whoever
// knows a channel's name reads it.
type nchanTarget struct {
	address   string
	processes pids
	redis     meter
}

func (n *nchanTarget) addr(*client) string                    { return n.address }
func (n *nchanTarget) silent() bool                           { return true }
func (n *nchanTarget) publishAddr() string                    { return n.address }
func (n *nchanTarget) server() meter                          { return n.processes }
func (n *nchanTarget) store() meter                           { return n.redis }
func (n *nchanTarget) prepare(context.Context, *client) error { return nil }

func (n *nchanTarget) request(c *client, _ string) []byte {
	return streamRequest(c.transport, n.address, "/sub/k"+strconv.Itoa(c.key), "")
}

func (n *nchanTarget) post(_ int64, key int, event []byte) []byte {
	return postRequest(n.address, "/pub/k"+strconv.Itoa(key), event)
}
