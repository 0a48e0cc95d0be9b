package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The names of targets.
const (
	targetBare    = "bare"
	targetKept    = "kept" // bare, with a Redis
	targetGateway = "gateway"
	targetNchan   = "nchan"
)

// A target is a server under load: how its streams are opened, and how events
// are given to it.
type target interface {
	addr(c *client) string // host:port that c connects to
	// prepare gets c what request needs. It may be called by several goroutines,
	// for different clients.
	prepare(ctx context.Context, c *client) error
	// request is what opens c's stream, from where c stopped if it has a cursor.
	request(c *client, cursor string) []byte
	// silent says that the server does not tell when a stream is live.
	silent() bool
	publishAddr() string
	// post is the HTTP request that publishes event n, of key's subject.
	post(n int64, key int, event []byte) []byte
	// server and store are what it uses; store is nil when there is none.
	server() meter
	store() meter
}

// browserHeaders are what a browser sends besides.
const browserHeaders = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
	"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Cache-Control: no-cache\r\nPragma: no-cache\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-site\r\n"

// streamRequest is the request that opens a stream at path.
func streamRequest(t Transport, host, path, more string) []byte {
	own := "Accept: text/event-stream\r\n"
	if t == WS {
		own = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + own + browserHeaders + more + "\r\n")
}

func postRequest(host, path string, body []byte) []byte {
	b := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, host, len(body))
	return append(b, body...)
}

// sessionSeconds outlives every run but the longest soaks.
const sessionSeconds = 24 * 3600

// A gatewayTarget is a running gateway whose upstream is a devnet.
type gatewayTarget struct {
	streams []string // host:port of each node that serves clients
	devnet  string   // host:port
	apiKey  string
	script  *script
	shared  bool  // all keys are followed by their order, else by their customer
	process meter // nil of one that was started here
	redis   meter
	client  *http.Client

	// Of one that was started here.
	nodes     []*gatewayNode // the first leads
	redisAddr string
}

// A gatewayNode is one that was started here.
type gatewayNode struct {
	*process             // nil before it begins
	public, admin string // host:port
	start         func() (*process, error)
}

// begin starts the node, also again after its end.
func (n *gatewayNode) begin() (err error) {
	n.process, err = n.start()
	return err
}

func newGatewayTarget(streams []string, devnet, apiKey string, s *script, shared bool, process, redis meter) *gatewayTarget {
	return &gatewayTarget{
		streams: streams, devnet: devnet, apiKey: apiKey, script: s, shared: shared, process: process, redis: redis,
		client: &http.Client{Timeout: connectTimeout, Transport: &http.Transport{
			MaxIdleConnsPerHost: dialers, IdleConnTimeout: time.Second, // the gateway's memory is measured
		}},
	}
}

func (g *gatewayTarget) addr(c *client) string { return g.streams[c.index%len(g.streams)] }
func (g *gatewayTarget) silent() bool          { return false }
func (g *gatewayTarget) publishAddr() string   { return g.devnet }
func (g *gatewayTarget) store() meter          { return g.redis }

// server is the node that leads, where there are several.
func (g *gatewayTarget) server() meter {
	if len(g.nodes) > 0 {
		return pids{g.nodes[0].pid()}
	}
	return g.process
}

// prepare mints a token, as the merchant's backend does.
func (g *gatewayTarget) prepare(ctx context.Context, c *client) error {
	claims := map[string]any{"ttl_seconds": sessionSeconds, "session_seconds": sessionSeconds}
	if g.shared {
		claims["order_id"] = g.script.subject(c.key) // a customer's streams are limited
	} else {
		claims["customer_id"] = g.script.subject(c.key)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.addr(c)+"/api/v1/ws/token", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("x-api-key", g.apiKey)
	resp, err := g.client.Do(req)
	if err != nil {
		return fmt.Errorf("mint: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	var answer struct {
		Data struct {
			Token  string `json:"token"`
			SSEURL string `json:"sse_url"`
		} `json:"data"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("mint: %s: %s", resp.Status, text)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("mint: %w", err)
	}
	c.token = answer.Data.Token
	if c.transport == SSE {
		_, c.token, _ = strings.Cut(answer.Data.SSEURL, "token=")
	}
	return nil
}

// request asks for no snapshot: it belongs to the first visit of a page, not to
// the stream.
func (g *gatewayTarget) request(c *client, cursor string) []byte {
	if c.transport == SSE {
		more := ""
		if cursor != "" {
			more = "Last-Event-ID: " + cursor + "\r\n"
		}
		return streamRequest(SSE, g.addr(c), "/sse/commerce/events?snapshot=0&token="+c.token, more)
	}
	path := "/ws/commerce/events?snapshot=0"
	if cursor != "" {
		path += "&since=" + cursor
	}
	return streamRequest(WS, g.addr(c), path, "Sec-WebSocket-Protocol: pepay.v1, bearer."+c.token+"\r\n")
}

func (g *gatewayTarget) post(_ int64, key int, event []byte) []byte {
	subject := g.script.subject(key)
	body := append([]byte(`{"listed":true,"order_id":"`+subject+`","customer_id":"`+subject+`","frame":`), strconv.Quote(string(event))...)
	return postRequest(g.devnet, "/_devnet/emit", append(body, '}'))
}

// awaitLive tells whether the gateway at the admin address follows its upstream.
func awaitLive(ctx context.Context, admin string) func() bool {
	return func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/api/v1/stats", nil)
		if err != nil {
			return false
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }() // read as far as needed
		var stats struct {
			Status struct {
				State string `json:"state"`
			} `json:"status"`
		}
		return json.NewDecoder(resp.Body).Decode(&stats) == nil && stats.Status.State == "live"
	}
}
