package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"pepay-gateway/auth"
	"pepay-gateway/configs"
)

const (
	benchSecret  = "a secret of a benchmark, of more than 32 bytes"
	benchClients = 100
)

// One event from the upstream's socket to the one client it is for, through a
// whole node and a real Redis; the next follows when the client has it. The
// upstream and the clients are in this process too, but make no garbage.
func BenchmarkPath(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	stream := make(chan *websocket.Conn, 1)
	pepay := httptest.NewServer(benchUpstream(stream))
	b.Cleanup(pepay.Close)
	node := runBenchNode(b, pepay.URL)
	clients := make([]*benchClient, benchClients)
	for i := range clients {
		clients[i] = dialBench(b, node.cfg.Listen, fmt.Sprint("o", i))
	}
	up := <-stream
	for node.node.Stats().Subscribers < benchClients {
		time.Sleep(time.Millisecond)
	}
	defer func() { _ = up.Close() }() // the node reconnects in vain
	n, began := 0, time.Now().UnixMilli()
	var raw []byte
	next := func() {
		i := n % benchClients
		raw = fmt.Appendf(raw[:0], `{"id":"evt_%d-%d","object":"event","created":%d,"type":"commerce.order.updated","data":{"object":`+
			`{"object":"commerce_order","id":"o%d","invoice_id":"i%d","customerId":"c%d","note":"%s"}}}`, began, n, began/1000, i, i, i, benchNote)
		n++
		if err := up.WriteMessage(websocket.TextMessage, raw); err != nil {
			b.Fatal(err)
		}
		clients[i].await(b, raw)
	}
	for range 10 * benchClients { // the links are known, the pools are filled
		next()
	}
	b.ReportAllocs()
	before := processMicros(b)
	for b.Loop() {
		next()
	}
	b.ReportMetric((processMicros(b)-before)/float64(b.N), "cpu-µs/op")
}

var benchNote = strings.Repeat("x", 420)

// processMicros is the processor time this process has taken.
func processMicros(tb testing.TB) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

// benchUpstream has no events but those written to its stream.
func benchUpstream(stream chan<- *websocket.Conn) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/ws/token", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"success":true,"data":{"token":"t","scope":"commerce","network_environment":"devnet","expires_at":"2026-01-01T00:00:00Z"}}`)
	})
	mux.HandleFunc("GET /ws/commerce/events", func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err == nil {
			stream <- ws
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"success":true,"data":{"object":"list","data":[],"has_more":false}}`)
	})
	return mux
}

// runBenchNode runs a node until the benchmark ends, and returns it.
func runBenchNode(b *testing.B, upstream string) *node {
	b.Helper()
	redis := startBenchRedis(b)
	cfg := configs.Default()
	cfg.Upstream.APIURL, cfg.Upstream.WSURL = upstream, "ws"+strings.TrimPrefix(upstream, "http")
	cfg.Upstream.APIKey, cfg.Upstream.Environment = "ck_bench", "devnet"
	cfg.Redis.URL = configs.RedisURL("redis://" + redis + "/0")
	cfg.Auth.TokenSecret = benchSecret
	cfg.Drain = configs.Drain{}
	var lns [2]net.Listener
	for i := range lns {
		var err error
		if lns[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			b.Fatal(err)
		}
	}
	cfg.Listen, cfg.Admin.Listen = lns[0].Addr().String(), lns[1].Addr().String()
	cfg.PublicURL = "http://" + cfg.Listen
	cfg.Limits.Connections, cfg.Limits.ConnectionsPerIP, cfg.Limits.HandshakesPerIP = 2*benchClients, 2*benchClients, 2*benchClients
	n, err := newNode(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx, lns[0], lns[1]) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Errorf("node: %v", err)
		}
	})
	return n
}

// startBenchRedis starts a redis-server and returns its address.
func startBenchRedis(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close() // for redis-server
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("redis-server", "--save", "", "--appendonly", "no", "--port", port, "--bind", "127.0.0.1", "--dir", b.TempDir())
	if err := cmd.Start(); err != nil {
		b.Fatalf("redis-server (Debian: apt-get install redis-server): %v", err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return addr
		}
	}
}

// A benchClient reads one order's events.
type benchClient struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
}

func dialBench(b *testing.B, addr, order string) *benchClient {
	b.Helper()
	key, err := auth.SecretKey("", []byte(benchSecret))
	if err != nil {
		b.Fatal(err)
	}
	ring, err := auth.NewKeyring(key)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	token, err := ring.Mint(auth.Claims{
		Kind: auth.KindStream, Customer: "c" + order[1:], IssuedAt: now,
		ExpiresAt: now.Add(time.Hour), SessionExpiresAt: now.Add(time.Hour),
	})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	_, _ = fmt.Fprintf(conn, "GET /ws/commerce/events HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", addr, token)
	c := &benchClient{conn: conn, in: bufio.NewReader(conn), buf: make([]byte, 4096)}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		b.Fatalf("upgrade: %v, %v", resp, err)
	}
	return c
}

// await reads until want comes.
func (c *benchClient) await(b *testing.B, want []byte) {
	for {
		if _, err := io.ReadFull(c.in, c.buf[:2]); err != nil {
			b.Fatal(err)
		}
		size := int(c.buf[1])
		if size == 126 {
			if _, err := io.ReadFull(c.in, c.buf[:2]); err != nil {
				b.Fatal(err)
			}
			size = int(binary.BigEndian.Uint16(c.buf))
		}
		if _, err := io.ReadFull(c.in, c.buf[:size]); err != nil {
			b.Fatal(err)
		}
		if string(c.buf[:size]) == string(want) {
			return
		}
	}
}
