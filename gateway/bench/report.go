package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is everything a run has measured.
type Report struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	CPUs    int       `json:"cpus"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Load    string    `json:"load_average"` // when it began
	Quick   bool      `json:"quick,omitempty"`
	Results []Result  `json:"results"`
}

// A Result is one workload on one target.
type Result struct {
	Run             int                `json:"run"`
	Workload        string             `json:"workload"`
	Point           int                `json:"point,omitempty"` // of a curve
	Target          string             `json:"target"`
	Transport       Transport          `json:"transport"`
	Connections     int                `json:"connections"`
	EventsPerSecond float64            `json:"events_per_second,omitempty"`
	Seconds         float64            `json:"seconds,omitempty"`
	Events          int64              `json:"events"`
	Deliveries      int64              `json:"deliveries"`
	Values          map[string]float64 `json:"values"`
	tally
}

func (r Result) summary() string {
	names := make([]string, 0, len(r.Values))
	for name := range r.Values {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s %s, ", name, figure(r.Values[name]))
	}
	fmt.Fprintf(&b, "%d deliveries", r.Deliveries)
	if !r.clean() {
		fmt.Fprintf(&b, "; %v", r.tally)
	}
	return b.String()
}

func (r Result) named() string { return pointName(r.Workload, r.Point) }

// pointName names a point of a curve, or a workload that is none.
func pointName(workload string, point int) string {
	if point == 0 {
		return workload
	}
	return fmt.Sprintf("%s %d", workload, point)
}

func (r Report) clean() bool {
	return !slices.ContainsFunc(r.Results, func(r Result) bool { return !r.tally.clean() })
}

// A row is one line of the table: a figure of one workload, and what it should be.
type row struct {
	what      string
	workload  string
	transport Transport // "" for any
	value     string    // of the result
	unit      string
	relative  bool // must and aim are ratios to the floor
	more      bool // more is better
	must, aim float64
}

var rows = []row{
	{"idle, memory per connection", "idle", WS, "kib_per_connection", "KiB", false, false, 11, 6},
	{"idle, memory per connection", "idle", SSE, "kib_per_connection", "KiB", false, false, 10, 6},
	{"idle, processor", "idle", "", "cpu_percent", "% of a core", false, false, 1.5, 0.9},
	{"selective, server and Redis per event", "selective", "", "us_per_event", "µs", false, false, 200, 130},
	{"  of that, the server", "selective", "", "server_us_per_event", "µs", false, false, 0, 0},
	{"selective, p99", "selective", "", "p99_ms", "ms", false, false, 2.5, 1.5},
	{"broadcast, server per delivery", "broadcast", "", "server_us_per_delivery", "µs", true, false, 1.35, 1.1},
	{"broadcast, p99", "broadcast", "", "p99_ms", "ms", true, false, 5, 0},
	{"max, deliveries", "max", "", "deliveries_per_s", "/s", true, true, 1, 1.4},
	{"storm, server and Redis per reconnect", "storm", "", "us_per_reconnect", "µs", false, false, 160, 100},
	{"slow, the others' p99, ratio", "slow", "", "p99_ratio", "×", false, false, 1.2, 1.1},
	{"slow, memory per slow client", "slow", "", "kib_per_slow_client", "KiB", false, false, 256, 128},
	{"churn, server and Redis per event", "churn", "", "us_per_event", "µs", false, false, 0, 0},
	{"soak, growth per minute", "soak", "", "growth_kib_per_minute", "KiB", false, false, 0, 0},
}

// write writes the tables of medians, then the report as one line of JSON.
func (r Report) write(out io.Writer) error {
	fmt.Fprintf(out, "\npepay-gateway %s, %d processors, Linux %s, load %s\n", r.Version, r.CPUs, r.Kernel, r.Load)
	lines := []string{"work\tbare floor\tand Redis\tgateway\t× bare\tmust\taim\tNchan"}
	for _, w := range rows {
		transports := []Transport{WS, SSE}
		if w.transport != "" {
			transports = []Transport{w.transport}
		}
		for _, t := range transports {
			if line, ok := r.line(w, t); ok {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) > 1 {
		if err := writeTable(out, "", lines); err != nil {
			return err
		}
	}
	for _, w := range curves {
		for _, t := range []Transport{WS, SSE} {
			if lines := r.curve(w, t); len(lines) > 1 {
				if err := writeTable(out, fmt.Sprintf("%s, %s: %s\n", w.name, t, w.about), lines); err != nil {
					return err
				}
			}
		}
	}
	if lines := r.paper(); lines != nil {
		if err := writeTable(out, "", lines); err != nil {
			return err
		}
	}
	for _, res := range r.Results {
		if !res.clean() {
			fmt.Fprintf(out, "\nDOES NOT COUNT: %s over %s on %s, run %d: %v\n", res.named(), res.Transport, res.Target, res.Run, res.tally)
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s\n", line)
	return err
}

// writeTable writes lines whose cells are parted by tabs.
func writeTable(out io.Writer, title string, lines []string) error {
	fmt.Fprintf(out, "\n%s", title)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		fmt.Fprintln(tw, line)
	}
	return tw.Flush()
}

// line is one line of the table; false when the workload was not run.
func (r Report) line(w row, t Transport) (string, bool) {
	ours := r.values(w, targetGateway, t)
	if len(ours) == 0 {
		return "", false
	}
	bare, ratio := r.values(w, targetBare, t), ""
	value := median(ours)
	if len(bare) > 0 && median(bare) > 0 {
		value /= median(bare)
		ratio = strconv.FormatFloat(value, 'f', 2, 64)
		if !w.relative {
			value = median(ours)
		}
	}
	judged := len(bare) > 0 || !w.relative
	return strings.Join([]string{
		fmt.Sprintf("%s, %s", w.what, t), spread(bare, w.unit),
		spread(r.values(w, targetKept, t), w.unit), spread(ours, w.unit), ratio,
		w.demand(w.must, value, judged), w.demand(w.aim, value, judged), spread(r.values(w, targetNchan, t), w.unit),
	}, "\t"), true
}

// demand is what a row asks for, and whether it is met.
func (w row) demand(limit, value float64, judged bool) string {
	if limit == 0 {
		return ""
	}
	sign, met := "≤", value <= limit
	if w.more {
		sign, met = "≥", value >= limit
	}
	text := fmt.Sprintf("%s %v", sign, limit)
	if w.relative {
		text += " ×"
	}
	switch {
	case !judged:
		return text
	case met:
		return text + " yes"
	}
	return text + " NO"
}

func (r Report) values(w row, target string, t Transport) []float64 {
	var all []float64
	for _, res := range r.Results {
		if v, ok := res.Values[w.value]; ok && res.Workload == w.workload && res.Target == target && res.Transport == t {
			all = append(all, v)
		}
	}
	return all
}

// spread is the median, and the range when there is one.
func spread(values []float64, unit string) string {
	if len(values) == 0 {
		return "–"
	}
	text := strings.TrimSuffix(figure(median(values))+" "+unit, " ")
	if len(values) > 1 {
		text += fmt.Sprintf(" (%s–%s)", figure(slices.Min(values)), figure(slices.Max(values)))
	}
	return text
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// figure prints three significant digits.
func figure(v float64) string {
	if v >= 1000 || v <= -1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
