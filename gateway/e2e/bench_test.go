package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type benchResult struct {
	Workload, Target, Transport string
	Point, Connections          int
	Events, Deliveries          int64
	Values                      map[string]float64
	Lost, Duplicates, Disorder  int64
	Foreign, Resets, Cut        int64
}

// bench runs the bench, and returns what it printed and its results, which must
// be clean.
func bench(t *testing.T, args ...string) (string, []benchResult) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"bench"}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench: %v\n%s%s", err, errs.String(), out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var report struct{ Results []benchResult }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &report); err != nil {
		t.Fatalf("the last line: %v in %s", err, lines[len(lines)-1])
	}
	for _, r := range report.Results {
		if r.Lost+r.Duplicates+r.Disorder+r.Foreign+r.Resets+r.Cut != 0 {
			t.Errorf("%s over %s on %s is not clean: %+v", r.Workload, r.Transport, r.Target, r)
		}
	}
	return string(out), report.Results
}

// The bench plays many browsers, and its account of what each of them got is
// one more proof that nothing is lost.
func TestBenchEndsWellAndReconciles(t *testing.T) {
	t.Parallel()
	out, results := bench(t, "--self", "--quick", "--transport", "sse", "broadcast", "storm")
	for _, want := range []string{"bare floor", "broadcast, server per delivery, sse", "storm, server and Redis per reconnect, sse"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if got, want := len(results), 4; got != want {
		t.Errorf("%d results, want %d", got, want)
	}
	for _, r := range results {
		want := r.Events * int64(r.Connections)
		if r.Workload == "storm" {
			want = r.Events + 3 // one client stays, and gets what is another's too
			if r.Target == "bare" {
				want = 0 // it is only reconnected to
			}
		}
		if r.Deliveries != want {
			t.Errorf("%s over %s on %s: %d deliveries, want %d", r.Workload, r.Transport, r.Target, r.Deliveries, want)
		}
	}
}

// The floor that keeps events is there to be compared with, and so is what its
// Redis takes.
func TestBenchComparesWithAFloorThatKeepsEvents(t *testing.T) {
	t.Parallel()
	out, results := bench(t, "--self", "--quick", "selective")
	if want := "and Redis"; !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}
	kept := 0
	for _, r := range results {
		if r.Deliveries != r.Events || r.Events == 0 {
			t.Errorf("%d deliveries of %d events on %s, want as many", r.Deliveries, r.Events, r.Target)
		}
		if _, ok := r.Values["store_us_per_event"]; ok != (r.Target != "bare") {
			t.Errorf("a figure for Redis on %s: %t", r.Target, ok)
		}
		if r.Target == "kept" {
			kept++
		}
	}
	if kept != 1 {
		t.Errorf("%d results of the floor that keeps events, want 1", kept)
	}
}

// A machine without Nchan does not cost what was measured before that was found.
func TestBenchPrintsWhatItMeasuredUntilItFailed(t *testing.T) {
	t.Parallel()
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	if err := os.Symlink(redis, filepath.Join(path, "redis-server")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "bench", "--self", "--quick", "--nchan", "--transport", "ws", "broadcast")
	cmd.Env = append(os.Environ(), "PATH="+path)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err == nil || !strings.Contains(errs.String(), "libnginx-mod-nchan") {
		t.Errorf("bench without nginx: %v, want it to say what to install:\n%s", err, errs.String())
	}
	if !strings.Contains(string(out), "broadcast, server per delivery, ws") || !strings.Contains(string(out), `"target":"gateway"`) {
		t.Errorf("bench printed %q, want what it measured before", out)
	}
}

// Clients on several nodes, and of a node that was started again, get all that
// is theirs; and what Redis and the kernel tell is there to be tabled.
func TestBenchMeasuresGrowth(t *testing.T) {
	t.Parallel()
	out, results := bench(t, "--self", "--quick", "orders", "nodes", "start")
	figures := map[string][]string{
		"orders": {"store_mib", "log_bytes_per_entry", "seen_bytes_per_entry", "bytes_per_order"},
		"nodes":  {"in_bytes_per_event", "out_bytes_per_event", "idle_out_bytes_per_s"},
		"start":  {"ready_ms", "live_ms", "replay_ms", "server_mib"},
	}
	for curve, names := range figures {
		if !strings.Contains(out, curve+", ws: ") {
			t.Errorf("no table of %s in\n%s", curve, out)
		}
		found := false
		for _, r := range results {
			if r.Workload != curve {
				continue
			}
			found = true
			for _, name := range names {
				if r.Values[name] <= 0 {
					t.Errorf("%s %d: %s = %v, want more than 0", curve, r.Point, name, r.Values[name])
				}
			}
			if r.Deliveries == 0 || curve == "start" && r.Deliveries != 10*int64(r.Connections) {
				t.Errorf("%s %d: %d deliveries to %d connections", curve, r.Point, r.Deliveries, r.Connections)
			}
		}
		if !found {
			t.Errorf("%s was not measured", curve)
		}
	}
}
