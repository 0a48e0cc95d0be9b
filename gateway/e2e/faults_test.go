package e2e

import (
	"slices"
	"testing"
	"time"
)

// Whatever the upstream does to its stream, every event is in the log once.
func TestUpstreamFaultsLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name string
		set  map[string]any
		then func(*pepay)
	}{
		{"every frame three times", map[string]any{"duplicate": 2}, nil},
		{"out of order", map[string]any{"shuffle": 6}, nil},
		{"cut without goodbye", map[string]any{"close_after": 4}, nil},
		{"frames that never come, told by a control", map[string]any{"drop": 7}, func(p *pepay) {
			p.control("emit", map[string]any{"frame": `{"object":"ws_control","type":"resync"}`})
		}},
		{"frames that never come, and a cut", map[string]any{"drop": 7}, func(p *pepay) { p.control("cut", map[string]any{}) }},
		{"REST slower than the stream", map[string]any{"rest_visibility_ms": 1500}, func(p *pepay) { p.control("cut", map[string]any{}) }},
		{"REST refuses", map[string]any{"rest_status": map[string]any{"status": 503, "count": 3}}, func(p *pepay) { p.control("cut", map[string]any{"close_code": 1012}) }},
		{"mint refuses", map[string]any{"mint_status": map[string]any{"status": 401, "count": 1}}, func(p *pepay) { p.control("cut", map[string]any{"close_code": 1001}) }},
		{"handshake refused", map[string]any{"ws_status": map[string]any{"status": 429, "count": 1, "retry_after": "1"}}, func(p *pepay) { p.control("cut", map[string]any{}) }},
		{"accepted, then an error", map[string]any{"ws_error": map[string]any{"code": "TOKEN_EXPIRED", "count": 1}}, func(p *pepay) { p.control("cut", map[string]any{}) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			w := startWorld(t)
			p, g := w.pepay, w.nodes[0]
			ops, _ := follow(t, w.nodes[1], map[string]any{})
			lifecycle(p, "cust_1")
			p.control("faults", fault.set)
			lifecycle(p, "cust_1")
			if fault.then != nil {
				fault.then(p)
			}
			lifecycle(p, "cust_2")
			eventually(t, 30*time.Second, "every event arrives", func() bool { return len(ops.ids()) >= len(p.record()) })
			p.control("faults/reset", nil)
			g.waitLive()
			want := recordedIDs(p)
			slices.Sort(want)
			for name, got := range map[string][]string{"log": logged(t, g), "stream": ops.ids()} {
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("%s: %d events, want the %d there were, once each", name, len(got), len(want))
				}
			}
			if s := p.state(); s.MaxConnections != 1 {
				t.Errorf("upstream connections: %d at once, want 1", s.MaxConnections)
			}
		})
	}
}
