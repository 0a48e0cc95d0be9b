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
						a.failed(q, r.IntN(2) == 0)
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
