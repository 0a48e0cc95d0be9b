package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"sort"
	"sync"
	"time"

	"pepay-gateway/gateway"
)

// beatEvery is how often a node tells the others how it is, and so how old the
// numbers of a dashboard may be.
const beatEvery = time.Second

// A Report is what one node says of itself, once a second.
type Report struct {
	Node         string                        `json:"node"`
	Admin        string                        `json:"admin"` // base URL of its admin listener
	Version      string                        `json:"version"`
	StartedMS    int64                         `json:"started_ms"`
	Leader       bool                          `json:"leader"`
	Ready        bool                          `json:"ready"`
	Draining     bool                          `json:"draining"`
	Status       Status                        `json:"status"`
	Connections  Connections                   `json:"connections"`
	Accepted     int                           `json:"accepted"`          // connections of clients, streams or not
	Limit        int                           `json:"connections_limit"` // streams before others are refused; 0 = no limit
	Subscribers  int                           `json:"subscribers"`
	Waiting      int64                         `json:"lookups_waiting"`
	TailSilentMS int64                         `json:"tail_silent_ms"`
	Seq          uint64                        `json:"seq"`
	Epoch        string                        `json:"epoch"`
	Lag          map[string]Lag                `json:"lag_ms"`
	Counters     map[string]int64              `json:"counters"`
	Upstream     *Upstream                     `json:"upstream,omitempty"`         // of the leader
	Reaches      bool                          `json:"reaches_upstream,omitempty"` // which the leader does not; asked only then
	Histograms   map[string]*gateway.Histogram `json:"-"`                          // by hop
}

// Connections are the open streams by transport.
type Connections struct {
	WS  int `json:"ws"`
	SSE int `json:"sse"`
}

// A Lag is a distribution of delays in milliseconds, each the upper bound of
// its bucket.
type Lag struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// LagOf summarises a histogram.
func LagOf(h *gateway.Histogram) Lag {
	ms := func(q float64) float64 { return float64(h.Quantile(q)) / float64(time.Millisecond) }
	return Lag{P50: ms(0.5), P99: ms(0.99)}
}

// A Status is a gateway.Health on the wire.
type Status struct {
	State   string `json:"state"`
	Reason  string `json:"reason"`
	SinceMS int64  `json:"since_ms"`
}

// StatusOf returns h for the wire.
func StatusOf(h gateway.Health) Status {
	s := Status{State: string(h.State), Reason: h.Reason}
	if !h.Since.IsZero() {
		s.SinceMS = h.Since.UnixMilli()
	}
	return s
}

// Upstream is the leader's connection to Pepay.
type Upstream struct {
	Status
	Frames      int64 `json:"frames"`
	Quarantined int64 `json:"quarantined"`
	Reconnects  int64 `json:"reconnects"`
}

// stats is the answer of /api/v1/stats.
type stats struct {
	Stream   string   `json:"stream"`
	NowMS    int64    `json:"now_ms"`
	Status   Status   `json:"status"`
	Leader   string   `json:"leader"`
	Upstream Upstream `json:"upstream"`
	Log      logStats `json:"log"`
	Nodes    []Report `json:"nodes"`
	Totals   totals   `json:"totals"`
}

type logStats struct {
	Seq   uint64 `json:"seq"`
	Epoch string `json:"epoch"`
}

type totals struct {
	Connections Connections `json:"connections"`
	Delivered   int64       `json:"delivered"`
	Appended    int64       `json:"appended"`
}

// A Cluster exchanges reports with the other nodes through the log, and keeps
// the last answer ready, so that any number of dashboards cost nothing.
type Cluster struct {
	log    gateway.Log
	stream string
	node   string
	local  func() Report
	out    *slog.Logger

	mu   sync.Mutex // guards the fields below
	body []byte
	etag string
	at   time.Time
	seen map[string][]byte
	last map[string][]byte // seen, as of when the log last answered
}

// NewCluster returns a cluster whose own node is described by local.
func NewCluster(log gateway.Log, stream, node string, local func() Report, out *slog.Logger) *Cluster {
	return &Cluster{log: log, stream: stream, node: node, local: local, out: out.With("component", "admin")}
}

// Run reports once a second until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		c.beat(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (c *Cluster) beat(ctx context.Context) {
	report, err := json.Marshal(c.local())
	if err != nil {
		c.out.Error("report", "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	all, err := c.log.Beat(ctx, c.node, report)
	if err != nil {
		c.out.Debug("beat", "err", err)
		all = map[string][]byte{c.node: report} // alone, for all we know
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen, c.body = all, nil; err == nil {
		c.last = all
	}
}

// OthersReachUpstream says whether another node that can lead says that it
// reaches the upstream. It asks nobody: the answer is a second old.
func (c *Cluster) OthersReachUpstream() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, raw := range c.seen {
		var r Report
		if err := json.Unmarshal(raw, &r); err == nil && name != c.node && r.Reaches && !r.Draining {
			return true
		}
	}
	return false
}

// serveStats answers with the cluster's numbers, at most a second old.
func (c *Cluster) serveStats(w http.ResponseWriter, r *http.Request) {
	body, etag := c.answer()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body) // the peer may be gone
}

func (c *Cluster) answer() (body []byte, etag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.body != nil && time.Since(c.at) < beatEvery {
		return c.body, c.etag
	}
	body, err := json.Marshal(c.sumLocked())
	if err != nil {
		c.out.Error("stats", "err", err)
		body = []byte("{}")
	}
	sum := sha256.Sum256(body)
	c.body, c.etag, c.at = body, `"`+hex.EncodeToString(sum[:8])+`"`, time.Now()
	return c.body, c.etag
}

func (c *Cluster) sumLocked() stats {
	s := stats{Stream: c.stream, NowMS: time.Now().UnixMilli(), Nodes: []Report{}}
	s.Upstream.State, s.Upstream.Reason = string(gateway.Stale), "no_leader"
	for _, raw := range c.seen {
		var r Report
		if err := json.Unmarshal(raw, &r); err == nil {
			s.Nodes = append(s.Nodes, r)
		}
	}
	sort.Slice(s.Nodes, func(i, j int) bool { return s.Nodes[i].Node < s.Nodes[j].Node })
	for _, r := range s.Nodes {
		s.Totals.Connections.WS += r.Connections.WS
		s.Totals.Connections.SSE += r.Connections.SSE
		s.Totals.Delivered += r.Counters["delivered"]
		s.Totals.Appended += r.Counters["appended"]
		if r.Seq >= s.Log.Seq {
			s.Log = logStats{Seq: r.Seq, Epoch: r.Epoch}
		}
		if r.Node == c.node {
			s.Status = r.Status
		}
		if r.Leader && r.Upstream != nil {
			s.Leader, s.Upstream = r.Node, *r.Upstream
		}
	}
	return s
}
