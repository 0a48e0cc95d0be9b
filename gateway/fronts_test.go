package gateway

import (
	"testing"
	"time"
)

func TestOrderIsSettledForAWhile(t *testing.T) {
	f := fronts{of: map[string]front{}}
	began := time.Now().UnixMilli()
	append1 := func(order string, after time.Duration) uint64 {
		ev := testEvent(1, Keys{Order: order, Customer: "c"})
		ev.Received = began + after.Milliseconds()
		r := Record{Event: &ev, Settled: f.settle(&ev, 0)}
		f.appended([]Record{r}, 0)
		return r.Settled
	}
	steps := []struct {
		name  string
		order string
		after time.Duration
		want  uint64
	}{
		{"first", "a", 0, 0},
		{"again", "a", time.Second, 1},
		{"and again, counted from the first", "a", settledFor - time.Millisecond, 2},
		{"too late", "a", settledFor, 0},
		{"counted anew", "a", settledFor + time.Second, 1},
		{"clock set back", "a", settledFor - time.Millisecond, 0},
		{"another order", "b", settledFor, 0},
		{"behind it", "a", settledFor, 0},
	}
	for _, s := range steps {
		if got := append1(s.order, s.after); got != s.want {
			t.Errorf("%s: settled = %d, want %d", s.name, got, s.want)
		}
	}
}

// Records before an event in its batch count, for they may trim its order.
func TestSettledCountsItsBatch(t *testing.T) {
	f := fronts{of: map[string]front{}}
	ev := testEvent(1, Keys{Order: "a", Customer: "c"})
	f.appended([]Record{{Event: &ev}}, 0)
	if got := f.settle(&ev, 5); got != 6 {
		t.Errorf("settled = %d after five records of its batch, want 6", got)
	}
}

func TestOrderIsSettledForSoManyRecords(t *testing.T) {
	f := fronts{of: map[string]front{}}
	ev := testEvent(1, Keys{Order: "a", Customer: "c"})
	f.appended([]Record{{Event: &ev}}, 0)
	f.count += settledRecords - 1
	if got := f.settle(&ev, 0); got != settledRecords {
		t.Errorf("settled = %d, want %d", got, settledRecords)
	}
	if got := f.settle(&ev, 1); got != 0 {
		t.Errorf("settled = %d with one more before it, want 0", got)
	}
	f.appended([]Record{{Event: &ev}}, 0)
	if got := f.settle(&ev, 0); got != 1 {
		t.Errorf("settled = %d after it was put in front again, want 1", got)
	}
}

func TestEventWithoutAnOrderPutsNothingInFront(t *testing.T) {
	f := fronts{of: map[string]front{}}
	ev, other := testEvent(1, Keys{Order: "a", Customer: "c"}), testEvent(2, Keys{Invoice: "i", Customer: "c"})
	f.appended([]Record{{Event: &ev}, {Event: &other}}, 0)
	if got := f.settle(&ev, 0); got != 2 {
		t.Errorf("settled = %d, want 2", got)
	}
	other.Keys.Customer = "d"
	f.appended([]Record{{Event: &other}}, 0)
	if len(f.of) != 1 {
		t.Errorf("%d customers with an order in front, want 1", len(f.of))
	}
}
