package bench

import (
	"encoding/json"
	"strings"
	"testing"
)

func result(target string, v float64) Result {
	return Result{
		Run: 1, Workload: "broadcast", Target: target, Transport: WS,
		Values: map[string]float64{"server_us_per_delivery": v},
	}
}

func TestTableHasMediansAndTheRatioToTheFloor(t *testing.T) {
	r := Report{Version: "v1", Results: []Result{
		result(targetBare, 10), result(targetKept, 17), result(targetGateway, 11), result(targetGateway, 13), result(targetGateway, 40),
	}}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"broadcast, server per delivery, ws", "10 µs", "17 µs", "13 µs (11–40)", "1.30", "≤ 1.35 × yes", "≤ 1.1 × NO"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var back Report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &back); err != nil || len(back.Results) != 5 {
		t.Errorf("the last line has %d results, %v, want 5", len(back.Results), err)
	}
}

func TestTableSaysWhatDoesNotCount(t *testing.T) {
	bad := result(targetGateway, 1)
	bad.Lost = 3
	r := Report{Results: []Result{result(targetGateway, 1), bad}}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	if r.clean() || !strings.Contains(out.String(), "DOES NOT COUNT") || !strings.Contains(out.String(), `"lost":3`) {
		t.Errorf("clean = %t, and the table:\n%s", r.clean(), out.String())
	}
}
