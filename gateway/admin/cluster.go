package admin

import (
	"bytes"
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
	AtMS         int64                         `json:"at_ms"` // when, by the node's own clock; set by the cluster
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
	Memory       int64                         `json:"memory_bytes"`      // that it cannot do without; 0 without a limit
	MemoryLimit  int64                         `json:"memory_limit_bytes"`
	Subscribers  int                           `json:"subscribers"`
	Waiting      int64                         `json:"lookups_waiting"`
	TailSilentMS int64                         `json:"tail_silent_ms"`
	Seq          uint64                        `json:"seq"`
	Epoch        string                        `json:"epoch"`
	Lag          map[string]Lag                `json:"lag_ms"` // by hop, of the last minute; set by the cluster
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
	Stream   string      `json:"stream"`
	NowMS    int64       `json:"now_ms"`
	Status   Status      `json:"status"`
	Leader   string      `json:"leader"`
	Upstream Upstream    `json:"upstream"`
	Log      logStats    `json:"log"`
	Nodes    []nodeStats `json:"nodes"`
	Totals   totals      `json:"totals"`
}

type nodeStats struct {
	Report
	AgeMS int64 `json:"age_ms"` // since the node was last heard of, by the clock of the one that answers
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
	lag    recentLag // of Run

	mu    sync.Mutex // guards the fields below
	body  []byte
	etag  string
	at    time.Time
	seen  map[string][]byte
	heard map[string]time.Time // when the reports in seen last changed
	last  map[string][]byte    // seen, as of when the log last answered
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
	r := c.local()
	r.AtMS, r.Lag = time.Now().UnixMilli(), c.lag.beat(r.Histograms)
	report, err := json.Marshal(r)
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
	c.hearLocked(all)
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

// hearLocked notes whose report is a new one. Clocks of different machines
// differ, so a report's own time does not say how old it is.
func (c *Cluster) hearLocked(all map[string][]byte) {
	heard := make(map[string]time.Time, len(all))
	for name, raw := range all {
		heard[name] = time.Now()
		if at, known := c.heard[name]; known && bytes.Equal(raw, c.seen[name]) {
			heard[name] = at
		}
	}
	c.heard = heard
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
	s := stats{Stream: c.stream, NowMS: time.Now().UnixMilli(), Nodes: []nodeStats{}}
	for name, raw := range c.seen {
		var r Report
		if err := json.Unmarshal(raw, &r); err == nil {
			s.Nodes = append(s.Nodes, nodeStats{r, time.Since(c.heard[name]).Milliseconds()})
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
	}
	s.Leader, s.Upstream = leader(s.Nodes)
	return s
}

// leader returns who leads, and how it does. A leader that was killed stays in
// the list for a while: of two, the one heard of last is believed.
func leader(nodes []nodeStats) (name string, up Upstream) {
	up.Status = Status{State: string(gateway.Stale), Reason: "no_leader"}
	age := int64(-1)
	for _, r := range nodes {
		switch {
		case r.Leader && r.Upstream != nil:
			if age < 0 || r.AgeMS < age {
				name, up, age = r.Node, *r.Upstream, r.AgeMS
			}
		case name == "" && r.Status.Reason == "no_leader":
			if up.SinceMS == 0 || r.Status.SinceMS < up.SinceMS {
				up.SinceMS = r.Status.SinceMS
			}
		}
	}
	return name, up
}
