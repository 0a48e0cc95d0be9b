package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// peerTimeout bounds the question to one other node.
const peerTimeout = 2 * time.Second

// OthersHaveLog asks the other nodes, as they were last known, whether the log
// is within their reach. True means that one has it: the fault is this node's.
// When none has it, or none answers, nothing is gained by moving clients.
func (c *Cluster) OthersHaveLog(ctx context.Context) bool {
	client := &http.Client{Timeout: peerTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	defer client.CloseIdleConnections()
	for _, url := range c.peers() {
		if hasLog(ctx, client, url) {
			return true
		}
	}
	return false
}

func (c *Cluster) peers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var urls []string
	for name, raw := range c.last {
		var r Report
		if err := json.Unmarshal(raw, &r); err == nil && name != c.node && r.Admin != "" {
			urls = append(urls, r.Admin)
		}
	}
	return urls
}

func hasLog(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }() // read as far as it matters
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	return err == nil && resp.StatusCode == http.StatusOK && string(body) == readyWithLog
}
