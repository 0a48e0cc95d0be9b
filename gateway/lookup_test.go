package gateway

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever happens in whatever order: a question is with one worker at a time,
// is answered in the end, and the lists and the schedule come to an end.
func TestAsksInAnyOrder(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			a := newAsks()
			held := map[*question]bool{}
			take := func() {
				q, _ := a.pop(time.Now())
				if q == nil {
					return
				}
				if held[q] {
					t.Fatalf("seed %d: a question is with two workers", seed)
				}
				held[q] = true
			}
			finish := func(success bool) {
				for q := range held {
					delete(held, q)
					switch n := r.IntN(3); {
					case success || n == 0:
						a.answered(q, false)
					case n == 1:
						a.absent(q)
					default:
						a.failed(q, r.IntN(2) == 0, rand.N(time.Minute))
					}
					return
				}
			}
			for range 2000 {
				switch r.IntN(4) {
				case 0:
					a.add(lookup{ask: Ask{Order: fmt.Sprint(r.IntN(12))}, asked: r.IntN(2) == 0})
				case 1:
					take()
				case 2:
					finish(false)
				case 3:
					time.Sleep(rand.N(5 * time.Second))
				}
			}
			for range 1000 {
				time.Sleep(lookupBackoff)
				take()
				finish(true)
			}
			if waiting, _ := a.stats(); waiting != 0 || len(a.later)+len(a.urgent)+len(a.ready) > 0 {
				t.Errorf("seed %d: %d questions wait, %d later, %d+%d now; want none", seed, waiting, len(a.later), len(a.urgent), len(a.ready))
			}
		})
	}
}

// A client that asks while a worker is at it gets the answer too.
func TestAskedWhileALookUpIsUnderWay(t *testing.T) {
	a := newAsks()
	for name, done := range map[string]func(*question) bool{
		"answered": func(q *question) bool { return a.answered(q, false) },
		"absent":   a.absent,
	} {
		a.add(lookup{ask: Ask{Order: "o"}})
		q, _ := a.pop(time.Now())
		a.add(lookup{ask: Ask{Order: "o"}, asked: true})
		if again, _ := a.pop(time.Now()); again != nil {
			t.Errorf("%s: a second worker got the question", name)
		}
		if !done(q) {
			t.Errorf("%s: the client is forgotten", name)
		}
	}
}

// An upstream that fails is not asked thousands of questions meanwhile.
func TestFailureHoldsAllLookUpsBack(t *testing.T) {
	for name, tt := range map[string]struct {
		unusable    bool
		after       time.Duration
		least, most time.Duration // that the others wait after the first failure
		fourth      time.Duration // and at least after the fourth in a row
	}{
		"fails":          {false, 0, time.Second / 2, time.Second, lookupsHeld / 2},
		"asks for time":  {false, 30 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second},
		"unusable alone": {true, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAsks()
				held := func() time.Duration {
					began := time.Now()
					for range 10 { // workers at the same time count as one
						q, _ := a.next(t.Context())
						defer a.failed(q, tt.unusable, tt.after)
					}
					return time.Since(began)
				}
				for i := range 100 {
					a.add(lookup{ask: Ask{Order: fmt.Sprint(i)}, asked: true})
				}
				if wait := held(); wait != 0 {
					t.Errorf("the first waited for %v, want not at all", wait)
				}
				if wait := held(); wait < tt.least || wait > tt.most {
					t.Errorf("the others waited for %v, want %v to %v", wait, tt.least, tt.most)
				}
				held()
				held()
				if wait := held(); wait < tt.fourth {
					t.Errorf("after the fourth failure they waited for %v, want %v at least", wait, tt.fourth)
				}
				q, _ := a.next(t.Context())
				a.answered(q, false)
				time.Sleep(time.Minute)
				held()
				if wait := held(); wait > max(tt.most, time.Second) {
					t.Errorf("after a success they waited for %v, want %v at most", wait, tt.most)
				}
			})
		})
	}
}

// One question that the upstream has no answer to, asked again and again, is no
// reason to keep the others waiting, and is not asked more often for it.
func TestOneQuestionThatFailsHoldsNobodyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsks()
		tries, began := 0, time.Now()
		for i := 0; time.Since(began) < 2*time.Minute; i++ {
			a.add(lookup{ask: Ask{Order: "broken"}, asked: true})
			a.add(lookup{ask: Ask{Order: fmt.Sprint(i)}, asked: true})
			for range 2 {
				q, wait := a.pop(time.Now())
				switch {
				case q == nil && wait > 0: // the one that failed waits
				case q.ask.Order == "broken":
					tries++
					a.failed(q, false, 0)
				case q.ask.Order != fmt.Sprint(i):
					t.Fatalf("%q came, want %d", q.ask.Order, i)
				case i%2 == 0:
					a.answered(q, false)
				default:
					a.absent(q)
				}
			}
			if waiting, _ := a.stats(); waiting > 1 {
				t.Fatalf("%d questions wait after %v, want the broken one alone", waiting, time.Since(began))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if most := 5 + int(2*time.Minute/(lookupsHeld/2)); tries < 2*60/10 || tries > most {
			t.Errorf("%d tries of the broken one, want %d at most, and it not to be forgotten", tries, most)
		}
	})
}
