package admin

import (
	"sort"

	"github.com/prometheus/client_golang/prometheus"

	"pepay-gateway/gateway"
)

const namespace = "pepay_gateway"

// A collector turns this node's report into Prometheus metrics. No label comes
// from a client.
type collector struct {
	cluster *Cluster
	labels  prometheus.Labels
}

func newCollector(c *Cluster) *collector {
	return &collector{cluster: c, labels: prometheus.Labels{"stream": c.stream}}
}

// Describe implements prometheus.Collector: the set of counters is only known
// when collecting, which makes this an unchecked collector.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	r := c.cluster.local()
	gauge := func(name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(c.desc(name, help), prometheus.GaugeValue, v)
	}
	gauge("leader", "1 while this node holds the lease.", flag(r.Leader))
	gauge("ready", "1 while this node may get traffic.", flag(r.Ready))
	gauge("live", "1 while clients are told that the stream is live.", flag(r.Status.State == string(gateway.Live)))
	gauge("log_seq", "This node's place in the log.", float64(r.Seq))
	gauge("lookups_waiting", "Questions about orders that the upstream has not answered yet.", float64(r.Waiting))
	gauge("tail_silent_seconds", "How long the leader has rung without being heard here.", float64(r.TailSilentMS)/1000)
	gauge("subscribers", "Streams attached to the hub.", float64(r.Subscribers))

	gauge("accepted", "Open connections of clients, streams or not.", float64(r.Accepted))
	gauge("connections_limit", "Streams before others are refused, by limits.connections and ulimit -n; 0 is no limit.", float64(r.Limit))

	conns := c.desc("connections", "Open streams by transport.", "transport")
	ch <- prometheus.MustNewConstMetric(conns, prometheus.GaugeValue, float64(r.Connections.WS), "ws")
	ch <- prometheus.MustNewConstMetric(conns, prometheus.GaugeValue, float64(r.Connections.SSE), "sse")

	names := make([]string, 0, len(r.Counters))
	for name := range r.Counters {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		d := c.desc(name+"_total", "Count of "+name+" since the node started; see docs/operations.md.")
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(r.Counters[name]))
	}
	lag := c.desc("lag_seconds", "Delay of an event at each hop: upstream, append, hub, write.", "hop")
	for hop, h := range r.Histograms {
		ch <- histogram(lag, h, hop)
	}
}

func (c *collector) desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, c.labels)
}

func histogram(d *prometheus.Desc, h *gateway.Histogram, label string) prometheus.Metric {
	counts, sum := h.Counts()
	buckets, total := make(map[float64]uint64, len(gateway.LagBounds)), uint64(0)
	for i, bound := range gateway.LagBounds {
		total += counts[i]
		buckets[bound.Seconds()] = total
	}
	total += counts[len(counts)-1]
	return prometheus.MustNewConstHistogram(d, total, sum.Seconds(), buckets, label)
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
