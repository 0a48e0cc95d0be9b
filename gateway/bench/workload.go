package bench

import (
	"context"
	"fmt"
	"time"
)

// sizes are how large a trial is.
type sizes struct {
	connections int
	rate        float64       // events per second
	d           time.Duration // of the measurement
	settle      time.Duration // before it
	pairs       int           // of runs, where a workload compares two

	// Of curves.
	point   int           // on its axis
	nodes   int           // of the gateway; 0 is 1
	orders  int           // that events are about
	entries int           // of the log before the measurement
	span    time.Duration // in which they are said to have happened
}

// A workload is one kind of load.
type workload struct {
	name       string
	about      string
	transports []Transport
	full       sizes // as in the published table
	quick      sizes // to see that it works
	shared     bool  // every event is for every connection
	bare       bool  // the floor can do it too
	kept       bool  // so is a floor that keeps events in a Redis
	nchan      bool  // so can Nchan
	long       bool  // only when asked for
	run        func(*trial, context.Context) error

	// A curve measures at several points, on a gateway that was started here.
	points  []int
	few     []int // to see that it works
	at      func(s *sizes, point int)
	columns []column
	whose   func(sizes) func(n int64) int // whose each event is, where they are not each connection's in turn
}

// workloads are the kinds of load, and the curves after them.
var workloads = append([]workload{
	{
		name: "idle", about: "connections that only hear heartbeats: memory and processor time",
		transports: []Transport{WS, SSE}, bare: true, nchan: true, run: (*trial).idle,
		full:  sizes{connections: 10_000, d: 30 * time.Second, settle: 15 * time.Second},
		quick: sizes{connections: 200, d: 500 * time.Millisecond, settle: 200 * time.Millisecond},
	},
	{
		name: "selective", about: "every event is for one connection",
		transports: []Transport{WS}, bare: true, kept: true, nchan: true, run: (*trial).selective,
		full:  sizes{connections: 5_000, rate: 1_000, d: 20 * time.Second, settle: time.Second},
		quick: sizes{connections: 200, rate: 500, d: 500 * time.Millisecond},
	},
	{
		name: "broadcast", about: "every event is for all connections",
		transports: []Transport{WS, SSE}, bare: true, nchan: true, shared: true, run: (*trial).broadcast,
		full:  sizes{connections: 1_000, rate: 40, d: 20 * time.Second, settle: time.Second},
		quick: sizes{connections: 100, rate: 40, d: 500 * time.Millisecond},
	},
	{
		name: "max", about: "as many deliveries as there can be",
		transports: []Transport{WS}, bare: true, nchan: true, shared: true, run: (*trial).max,
		full:  sizes{connections: 1_000, d: 10 * time.Second, settle: 3 * time.Second},
		quick: sizes{connections: 100, d: 300 * time.Millisecond, settle: 100 * time.Millisecond},
	},
	{
		name: "storm", about: "all connections are cut, and come back with their cursors",
		transports: []Transport{WS}, bare: true, run: (*trial).storm,
		full:  sizes{connections: 5_000, rate: 4_000, settle: 2 * time.Second},
		quick: sizes{connections: 200, rate: 4_000, settle: 200 * time.Millisecond},
	},
	{
		name: "slow", about: "one connection in twenty stops reading: what the others notice",
		transports: []Transport{WS}, shared: true, run: (*trial).slow,
		full:  sizes{connections: 1_000, rate: 40, d: 12 * time.Second, pairs: 5},
		quick: sizes{connections: 100, rate: 100, d: 400 * time.Millisecond, pairs: 1},
	},
	{
		name: "churn", about: "connections leave and come back all the time",
		transports: []Transport{WS, SSE}, run: (*trial).churn,
		full:  sizes{connections: 2_500, rate: 200, d: 30 * time.Second, settle: time.Second},
		quick: sizes{connections: 1000, rate: 200, d: 500 * time.Millisecond},
	},
	{
		name: "soak", about: "churn for long: does memory grow?",
		transports: []Transport{WS, SSE}, long: true, run: (*trial).soak,
		full:  sizes{connections: 5_000, rate: 200, d: 10 * time.Minute, settle: time.Second},
		quick: sizes{connections: 1000, rate: 200, d: time.Second},
	},
}, curves...)

// Growth is the name of all curves.
const Growth = "growth"

// Names returns the names of the workloads and curves, and Growth.
func Names() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return append(names, Growth)
}

// Describe returns a line about each workload.
func Describe() string {
	s := ""
	for _, w := range workloads {
		if w.name == curves[0].name {
			s += fmt.Sprintf("  %-12s these curves, or one of them, with --self:\n", Growth)
		}
		s += fmt.Sprintf("  %-12s %s\n", w.name, w.about)
	}
	return s
}

// sizes returns the size of each trial: of a curve's points, or of the one that
// there is.
func (w workload) sizes(cfg Config) []sizes {
	s, points := w.full, w.points
	if cfg.Quick {
		s, points = w.quick, w.few
	}
	if cfg.Connections > 0 {
		s.connections = cfg.Connections
	}
	if cfg.Events > 0 && s.rate > 0 {
		s.rate = cfg.Events
	}
	if cfg.Seconds > 0 && s.d > 0 {
		s.d = time.Duration(cfg.Seconds * float64(time.Second))
	}
	if len(points) == 0 {
		return []sizes{s}
	}
	var all []sizes
	for _, p := range points {
		at := s
		at.point = p
		w.at(&at, p)
		all = append(all, at)
	}
	return all
}

func (w workload) over(only Transport) []Transport {
	if only == "" {
		return w.transports
	}
	return []Transport{only}
}

// keys returns whose each event is.
func (w workload) keys(s sizes) func(n int64) int {
	if w.whose != nil {
		return w.whose(s)
	}
	if w.shared {
		return func(int64) int { return 0 }
	}
	return func(n int64) int { return int((n - 1) % int64(s.connections)) }
}
