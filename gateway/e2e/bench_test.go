package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// The bench plays many browsers, and its account of what each of them got is
// one more proof that nothing is lost.
func TestBenchEndsWellAndReconciles(t *testing.T) {
	cmd := exec.Command(program, "bench", "--self", "--quick", "--transport", "sse", "broadcast", "storm")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench: %v\n%s%s", err, errs.String(), out)
	}
	for _, want := range []string{"bare floor", "broadcast, server per delivery, sse", "storm, server and Redis per reconnect, sse"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var report struct {
		Results []struct {
			Workload, Target, Transport string
			Connections                 int
			Events, Deliveries          int64
			Lost, Duplicates, Disorder  int64
			Foreign, Resets, Cut        int64
		}
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &report); err != nil {
		t.Fatalf("the last line: %v in %s", err, lines[len(lines)-1])
	}
	if got, want := len(report.Results), 4; got != want {
		t.Errorf("%d results, want %d", got, want)
	}
	for _, r := range report.Results {
		if r.Lost+r.Duplicates+r.Disorder+r.Foreign+r.Resets+r.Cut != 0 {
			t.Errorf("%s over %s on %s is not clean: %+v", r.Workload, r.Transport, r.Target, r)
		}
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
