package bench

import (
	"strconv"
	"strings"
	"time"
)

// A column is a figure of a curve, named as in Result.Values.
type column struct {
	value string
	title string
}

// fillRate is how fast the log is filled before a measurement.
const fillRate = 4_000

// curves show how what is used grows. Their name is what is varied.
var curves = []workload{
	{
		name: "connections", about: "memory and processor time of idle connections, by their number",
		transports: []Transport{WS, SSE}, long: true, run: (*trial).idle,
		full:   sizes{d: 15 * time.Second, settle: 5 * time.Second}, // heartbeats are 15 s apart
		quick:  sizes{d: 300 * time.Millisecond},
		points: []int{1_000, 5_000, 10_000, 18_000}, few: []int{200},
		at: func(s *sizes, n int) { s.connections = n },
		columns: []column{
			{"server_mib", "MiB"}, {"kib_per_connection", "KiB each"}, {"cpu_percent", "% of a core"},
		},
	},
	{
		name: "receivers", about: "cost of an event, by how many connections get it",
		transports: []Transport{WS}, long: true, shared: true, run: (*trial).broadcast,
		full:   sizes{rate: 500, d: 8 * time.Second, settle: time.Second},
		quick:  sizes{rate: 200, d: 300 * time.Millisecond},
		points: []int{1, 10, 100, 1_000, 5_000}, few: []int{50},
		at: func(s *sizes, n int) {
			s.connections = n
			s.rate = min(s.rate, float64(receiverDeliveries/n))
		},
		columns: []column{
			{"server_us_per_event", "server µs/event"}, {"server_us_per_delivery", "µs/delivery"}, {"store_us_per_event", "Redis µs/event"}, {"p99_ms", "p99 ms"},
		},
	},
	{
		name: "rates", about: "cost of an event for one connection, by events per second",
		transports: []Transport{WS}, long: true, run: (*trial).selective,
		full:   sizes{connections: 500, d: 8 * time.Second, settle: time.Second},
		quick:  sizes{connections: 50, d: 300 * time.Millisecond},
		points: []int{100, 1_000, 4_000}, few: []int{500},
		at: func(s *sizes, n int) { s.rate = float64(n) },
		columns: []column{
			{"server_us_per_event", "server µs/event"}, {"store_us_per_event", "Redis µs/event"}, {"p99_ms", "p99 ms"},
		},
	},
	{
		name: "orders", about: "cost of an event and memory of Redis, by how many orders are known",
		transports: []Transport{WS}, long: true, run: (*trial).knownOrders, whose: orderKeys,
		full:   sizes{connections: 500, rate: 500, d: 8 * time.Second, entries: 100_000, span: longAgo},
		quick:  sizes{connections: 50, rate: 500, d: 300 * time.Millisecond, entries: 2_000, span: longAgo},
		points: []int{1_000, 10_000, 100_000}, few: []int{500},
		at: func(s *sizes, n int) {
			s.orders, s.connections = n, min(s.connections, n/2)
		},
		columns: []column{
			{"server_us_per_event", "server µs/event"},
			{"store_us_per_event", "Redis µs/event"},
			{"store_mib", "Redis MiB"},
			{"log_bytes_per_entry", "log B/entry"},
			{"seen_bytes_per_entry", "ids B/entry"},
			{"bytes_per_order", "B/order"},
		},
	},
	{
		name: "nodes", about: "what nodes cost Redis, and an event a node where nobody wants it",
		transports: []Transport{WS}, long: true, run: (*trial).severalNodes,
		full:   sizes{connections: 1_000, rate: 1_000, d: 10 * time.Second, settle: time.Second},
		quick:  sizes{connections: 50, rate: 500, d: 300 * time.Millisecond},
		points: []int{1, 2, 4}, few: []int{3},
		at: func(s *sizes, n int) { s.nodes = n },
		columns: []column{
			{"store_us_per_event", "Redis µs/event"},
			{"in_bytes_per_event", "B in"},
			{"out_bytes_per_event", "B out"},
			{"store_idle_percent", "idle: % of a core"},
			{"idle_in_bytes_per_s", "B/s in"},
			{"idle_out_bytes_per_s", "B/s out"},
			{"server_us_per_event", "leader µs/event"},
			{"unwanted_us_per_event", "unwanted µs/event"},
		},
	},
	{
		name: "start", about: "a cold start of the only node, by entries of the log, which are of an hour",
		transports: []Transport{WS}, long: true, run: (*trial).coldStart, whose: startKeys,
		full:   sizes{pairs: 3, span: time.Hour},
		quick:  sizes{pairs: 1, span: time.Hour},
		points: []int{1_000, 10_000, 100_000}, few: []int{1_000},
		at: startAt,
		columns: []column{
			{"ready_ms", "ready ms"}, {"live_ms", "stream live ms"}, {"replay_ms", "replay of all ms"}, {"server_mib", "MiB"}, {"cpu_ms", "processor ms"},
		},
	},
	{
		name: "takeover", about: "the same, by events that the upstream had in the last minute",
		transports: []Transport{WS}, long: true, run: (*trial).coldStart, whose: startKeys,
		full:   sizes{pairs: 1},
		quick:  sizes{pairs: 1},
		points: []int{6_000, 60_000}, few: []int{600},
		at: startAt,
		columns: []column{
			{"ready_ms", "ready ms"}, {"live_ms", "stream live ms"}, {"cpu_ms", "processor ms"},
		},
	},
}

func startAt(s *sizes, n int) { s.entries, s.orders, s.connections = n, n/10, 2*s.pairs+1 }

// longAgo is well before what a leader that has just connected lists once more,
// half a minute later: that is no cost of the orders.
const longAgo = 365 * 24 * time.Hour

// receiverDeliveries is how many deliveries per second there are at most in
// receivers: more than a small machine can do would measure its limit.
const receiverDeliveries = 20_000

// curve returns the lines of a curve's table, the head first.
func (r Report) curve(w workload, t Transport) []string {
	head := []string{w.name}
	for _, c := range w.columns {
		head = append(head, c.title)
	}
	lines, done := []string{strings.Join(head, "\t")}, map[int]bool{}
	for _, res := range r.Results {
		if res.Workload != w.name || res.Transport != t || done[res.Point] {
			continue
		}
		done[res.Point] = true
		line := []string{strconv.Itoa(res.Point)}
		for _, c := range w.columns {
			line = append(line, spread(r.at(w.name, res.Point, t, c.value), ""))
		}
		lines = append(lines, strings.Join(line, "\t"))
	}
	return lines
}

// at returns what runs have measured at a point of a curve.
func (r Report) at(curve string, point int, t Transport, value string) []float64 {
	var all []float64
	for _, res := range r.Results {
		if v, ok := res.Values[value]; ok && res.Workload == curve && res.Point == point && res.Transport == t {
			all = append(all, v)
		}
	}
	return all
}
