package bench

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGrowthIsAllCurvesAndOnlyWhenAskedFor(t *testing.T) {
	asked, unasked := Config{Self: true, Workloads: []string{Growth}}, Config{Self: true}
	if err := errors.Join(asked.check(), unasked.check()); err != nil {
		t.Fatal(err)
	}
	for _, w := range curves {
		if !slices.Contains(asked.Workloads, w.name) {
			t.Errorf("growth lacks %s", w.name)
		}
		if slices.Contains(unasked.Workloads, w.name) {
			t.Errorf("%s is measured without being asked for", w.name)
		}
		if !strings.Contains(Describe(), "  "+w.name+" ") {
			t.Errorf("%s is not described", w.name)
		}
	}
}

func TestPointsCanBeMeasuredWhateverSizesAreAskedFor(t *testing.T) {
	for _, cfg := range []Config{{}, {Quick: true}, {Connections: 1}, {Connections: 1_000_000}, {Events: 1, Seconds: 0.001}} {
		for _, w := range curves {
			points := w.sizes(cfg)
			if len(points) == 0 {
				t.Errorf("%s has no points with %+v", w.name, cfg)
			}
			for _, s := range points {
				if s.point == 0 || s.connections < 1 {
					t.Errorf("%s with %+v: %+v, want a point and connections", w.name, cfg, s)
				}
				key := w.keys(s)
				for n := int64(1); n <= 100; n++ {
					if k := key(int64(s.entries) + n); k < 0 || k >= max(s.orders, s.connections) {
						t.Errorf("%s with %+v: event %d is of key %d, want below %d", w.name, cfg, n, k, max(s.orders, s.connections))
					}
				}
			}
		}
	}
}

func TestEventsOfManyOrdersAreAsOftenForAConnectionAsOfFew(t *testing.T) {
	for _, orders := range []int{1_000, 100_000} {
		s := sizes{connections: 500, orders: orders, entries: 100_000}
		key := orderKeys(s)
		seen := map[int]bool{}
		for n := 1; n <= s.entries; n++ {
			seen[key(int64(n))] = true
		}
		if got := len(seen); got != orders {
			t.Errorf("%d of %d orders are known", got, orders)
		}
		followed, others := 0, map[int]bool{}
		for n := s.entries + 1; n <= s.entries+1_000; n++ {
			if k := key(int64(n)); k%(orders/s.connections) == 0 {
				followed++
			} else {
				others[k] = true
			}
		}
		if followed != 500 || len(others) != 500 {
			t.Errorf("%d orders: %d of 1,000 events are for connections, the others of %d orders, want 500 and 500", orders, followed, len(others))
		}
	}
}

func TestCurveIsTabledPointByPoint(t *testing.T) {
	point := func(run, n int, mib float64) Result {
		return Result{
			Run: run, Workload: "connections", Point: n, Target: targetGateway, Transport: SSE,
			Values: map[string]float64{"server_mib": mib, "cpu_percent": 1},
		}
	}
	r := Report{Results: []Result{
		point(1, 1000, 20), point(1, 5000, 60), point(2, 1000, 24), point(2, 5000, 60), point(3, 1000, 30), point(3, 5000, 66),
	}}
	got := r.curve(curves[0], SSE)
	want := []string{
		"connections\tMiB\tKiB each\t% of a core",
		"1000\t24 (20–30)\t–\t1 (1–1)",
		"5000\t60 (60–66)\t–\t1 (1–1)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("curve = %q, want %q", got, want)
	}
	if got := r.curve(curves[0], WS); len(got) != 1 {
		t.Errorf("curve of what was not measured = %q, want its head alone", got)
	}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "connections, sse:") || strings.Contains(out.String(), "bare floor") {
		t.Errorf("want the curve's table alone in\n%s", out.String())
	}
}

func TestFewFilesAreSaidBeforeAnythingStarts(t *testing.T) {
	for _, tt := range []struct {
		files int
		cfg   Config
		want  string // in the error
	}{
		{20_000, Config{Workloads: []string{"idle"}, Connections: 18_000}, ""},
		{20_000, Config{Workloads: []string{"idle"}, Connections: 18_001}, "18000"},
		{4_096, Config{Workloads: []string{"idle"}}, "ulimit -n"},
		{4_096, Config{Workloads: []string{"broadcast"}}, ""},
		{100, Config{Workloads: []string{"idle"}, Quick: true}, "enough for 0"},
		{4_096, Config{Workloads: []string{"connections"}}, ""}, // what is too large is left out
		{0, Config{Workloads: []string{"idle"}}, ""},            // not limited
	} {
		err := tt.cfg.checkFiles(tt.files)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%d files, %+v: %v, want %q", tt.files, tt.cfg, err, tt.want)
		}
	}
}

func TestMillionConnectionsAreWorkedOutOnPaper(t *testing.T) {
	point := func(curve string, n int, values map[string]float64) Result {
		return Result{Run: 1, Workload: curve, Point: n, Target: targetGateway, Transport: WS, Values: values}
	}
	r := Report{Results: []Result{
		point("connections", 18_000, map[string]float64{"kib_per_connection": 10, "cpu_percent": 1.8}),
		point("receivers", 1_000, map[string]float64{"server_us_per_delivery": 10}),
		point("rates", 4_000, map[string]float64{"server_us_per_event": 60, "store_us_per_event": 40}),
		point("nodes", 1, map[string]float64{"store_us_per_event": 100}),
		point("nodes", 4, map[string]float64{
			"store_us_per_event": 130, "unwanted_us_per_event": 30, "in_bytes_per_event": 1200, "out_bytes_per_event": 3200,
		}),
		point("orders", 100_000, map[string]float64{"log_bytes_per_entry": 1000, "seen_bytes_per_entry": 100, "bytes_per_order": 1000}),
		point("takeover", 6_000, map[string]float64{"live_ms": 100}),
		point("takeover", 60_000, map[string]float64{"live_ms": 2_800}),
	}}
	want := []string{
		"1000000 WebSockets, 10000 events/s, 10 nodes\ton paper\t",
		"node, memory\t100000 × 10 KiB + 40 MiB\t0.993 GiB",
		"node, processor\t100 × 0.1 % + 10000 × 30 µs + 1000 × 10 µs\t0.41 cores",
		"leader, besides\t10000 × (60 − 30) µs\t0.3 cores",
		"Redis, of its one core\t10000 × (40 + 9 × 10) µs\t130 %",
		"Redis, at most\t1 / (40 + 9 × 10) µs\t7692 events/s",
		"Redis, network in\t10000 × 1200 bytes\t12 MB/s",
		"Redis, network out\t10000 × 10 × 800 bytes\t80 MB/s",
		"Redis, memory to replay 5 minutes\t3000000 × (1000 + 4 × 100) + 1000000 × 1000 bytes\t4.84 GiB",
		"new leader, lists the last minute\t600000 × 50 µs\t30 s",
		"new leader, keeps up with\t√(50000 / (60 × 50 µs))\t4082 events/s",
	}
	if got := r.paper(); !slices.Equal(got, want) {
		t.Errorf("paper =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.Results = r.Results[1:]
	if got := r.paper(); got != nil {
		t.Errorf("paper without what a connection takes = %q, want nothing", got)
	}
}

func TestWhatIsSpentWithoutEventsIsTakenOff(t *testing.T) {
	at := time.Now()
	see := func(after, cpu time.Duration, bytes int64) sight {
		return sight{at.Add(after), cpu, 2 * cpu, 3 * cpu, traffic{bytes, 4 * bytes}}
	}
	tr := &trial{sizes: sizes{nodes: 2}, result: Result{Values: map[string]float64{}}}
	// A second of nothing, then two with 1,000 events: a tenth of a core all the time.
	tr.noteNodes(see(0, 0, 0), see(time.Second, 100*time.Millisecond, 500), see(3*time.Second, 350*time.Millisecond, 501_500), 1_000)
	want := map[string]float64{
		"server_us_per_event": 50, "unwanted_us_per_event": 100, "store_us_per_event": 150,
		"in_bytes_per_event": 500, "out_bytes_per_event": 2_000,
		"idle_in_bytes_per_s": 500, "idle_out_bytes_per_s": 2_000, "store_idle_percent": 30,
	}
	for name, w := range want {
		if got := tr.result.Values[name]; math.Abs(got-w) > 1e-6 {
			t.Errorf("%s = %v, want %v", name, got, w)
		}
	}
	if got := len(tr.result.Values); got != len(want) {
		t.Errorf("%d figures, want %d", got, len(want))
	}
}
