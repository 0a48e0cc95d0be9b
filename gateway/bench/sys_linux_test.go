package bench

import (
	"testing"
	"time"
)

func TestAlarmSleepsAsLongAsAsked(t *testing.T) {
	a, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{1, 100 * time.Microsecond, 5 * time.Millisecond} {
		began := time.Now()
		if err := a.sleep(d); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(began); got < d {
			t.Errorf("slept %v, want at least %v", got, d)
		}
	}
	a.close()
	if err := a.sleep(time.Millisecond); err == nil {
		t.Error("sleep of a closed one = nil, want an error")
	}
}
