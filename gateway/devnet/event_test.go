package devnet

import (
	"testing"
	"time"
)

func TestEventIDsIncreaseWhenClockStepsBack(t *testing.T) {
	l := newEventLog(10)
	now := time.UnixMilli(1_767_225_600_123)
	prev := eventID{}
	for i, at := range []time.Time{now, now, now.Add(-time.Hour), now.Add(time.Millisecond), now} {
		id := l.nextID(at)
		if id.compare(prev) <= 0 {
			t.Errorf("id %d = %v, want more than %v", i, id, prev)
		}
		prev = id
	}
}

func TestParseEventID(t *testing.T) {
	for in, want := range map[string]bool{
		"evt_1767225600123-7": true, "evt_1-0": true,
		"": false, "evt_": false, "evt_1": false, "evt_-1": false, "evt_1-": false, "evt_+1-1": false,
		"evt_1-1-1": false, "evt_example": false, "evt_99999999999999999999-1": false,
	} {
		if id, got := parseEventID(in); got != want || got && id.String() != in {
			t.Errorf("parseEventID(%q) = %v, %v, want %v", in, id, got, want)
		}
	}
}

func FuzzParseEventID(f *testing.F) {
	for _, s := range []string{"evt_1767225600123-7", "evt_0-0", "evt_x-1", "evt_9223372036854775807-9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := parseEventID(s)
		if !ok {
			return
		}
		if again, ok := parseEventID(id.String()); !ok || again != id {
			t.Errorf("parseEventID(%q) = %v, want %v again", id.String(), again, id)
		}
	})
}

func FuzzParseTypes(f *testing.F) {
	for _, s := range []string{"", "invoice.*", "commerce.order.*,invoice.created", "*", ",", "commerce.*", "inv*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		types, err := parseTypes(s)
		if err == nil && s != "" && len(types) == 0 {
			t.Errorf("parseTypes(%q) selects everything", s)
		}
	})
}

func TestTypeFilterKeepsDot(t *testing.T) {
	types, err := parseTypes("invoice.*")
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]bool{typeInvoiceUpdated: true, typePaymentUpdated: false, typeOrderUpdated: false} {
		if got := types.match(typ); got != want {
			t.Errorf("invoice.* matches %s = %v, want %v", typ, got, want)
		}
	}
}

func TestEventLogTrimsAndStaysSorted(t *testing.T) {
	l := newEventLog(16)
	for i := range 100 {
		at := eventID{ms: int64(1000 + i ^ 1), seq: 1} // every second one comes late
		l.insert(&event{id: at.String(), at: at})
	}
	if len(l.events) > 18 || len(l.byID) != len(l.events) || l.total != 100 {
		t.Errorf("kept %d, by id %d, total %d, want at most 18, the same, 100", len(l.events), len(l.byID), l.total)
	}
	for i := 1; i < len(l.events); i++ {
		if l.events[i-1].at.compare(l.events[i].at) >= 0 {
			t.Fatalf("event %d is not newer than the one before", i)
		}
	}
	if !l.lost(eventID{ms: 1000, seq: 1}, 0) || l.lost(l.trimmed, 0) {
		t.Error("lost() = false, true, want true for the oldest and false for the newest trimmed")
	}
}
