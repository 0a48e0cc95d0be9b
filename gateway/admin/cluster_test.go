package admin

import (
	"testing"
	"testing/synctest"
	"time"

	"pepay-gateway/gateway"
)

func TestNodeThatIsSilentGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fakeLog{others: map[string][]byte{"b": []byte(`{"node":"b","at_ms":1}`)}}
		c := NewCluster(log, "shop", "a", localReport, discard)
		for range 4 {
			c.beat(t.Context())
			time.Sleep(beatEvery) // of the bubble
		}
		s := c.sumLocked()
		if got, want := s.Nodes[0].AgeMS, int64(1000); got != want {
			t.Errorf("age of this node's report = %d, want %d", got, want)
		}
		if got, want := s.Nodes[1].AgeMS, int64(4000); got != want {
			t.Errorf("age of the silent node's report = %d, want %d", got, want)
		}
		log.others["b"] = []byte(`{"node":"b","at_ms":2}`)
		c.beat(t.Context())
		if got, want := c.sumLocked().Nodes[1].AgeMS, int64(0); got != want {
			t.Errorf("age once it is heard of again = %d, want %d", got, want)
		}
	})
}

func TestLeaderIsTheOneHeardOfLast(t *testing.T) {
	led := func(name string, age, frames int64) nodeStats {
		return nodeStats{Report{Node: name, Leader: true, Upstream: &Upstream{Frames: frames}}, age}
	}
	waiting := func(name string, since int64) nodeStats {
		return nodeStats{Report{Node: name, Status: Status{Reason: "no_leader", SinceMS: since}}, 0}
	}
	for _, tt := range []struct {
		name   string
		nodes  []nodeStats
		leader string
		up     Upstream
	}{
		{"none", nil, "", Upstream{Status: Status{State: "stale", Reason: "no_leader"}}},
		{"one", []nodeStats{waiting("a", 7), led("b", 500, 3)}, "b", Upstream{Frames: 3}},
		{"dead one first", []nodeStats{led("a", 8000, 3), led("b", 500, 4)}, "b", Upstream{Frames: 4}},
		{"dead one last", []nodeStats{led("a", 500, 3), led("b", 8000, 4)}, "a", Upstream{Frames: 3}},
		{
			"since when there is none",
			[]nodeStats{waiting("a", 9), waiting("b", 7), {}},
			"",
			Upstream{Status: Status{"stale", "no_leader", 7}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name, up := leader(tt.nodes)
			if name != tt.leader || up != tt.up {
				t.Errorf("leader() = %q, %+v, want %q, %+v", name, up, tt.leader, tt.up)
			}
		})
	}
}

func TestLagIsOfTheLastMinute(t *testing.T) {
	var hub gateway.Histogram
	var lag recentLag
	hops := map[string]*gateway.Histogram{"hub": &hub}
	hub.Observe(20 * time.Second) // old events of a backfill
	for i := range 2 * lagBeats {
		want := Lag{P50: 2, P99: 2}
		if i < lagBeats {
			want.P99 = 30_000
		}
		if i == 0 {
			want.P50 = 30_000
		}
		if got := lag.beat(hops)["hub"]; got != want {
			t.Errorf("lag at beat %d = %v, want %v", i, got, want)
		}
		hub.Observe(2 * time.Millisecond)
	}
}
