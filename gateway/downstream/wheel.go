package downstream

import (
	"slices"
	"sync"
	"time"
)

// wheelTick is how exact a session's times are.
const wheelTick = 25 * time.Millisecond

// A wheel tells sessions when something is due, in ticks: one timer for all
// sessions of a node instead of some for each. What falls into one tick is due
// together. Safe for concurrent use.
type wheel struct {
	began time.Time
	fired func(due func()) // calls due, which tells the sessions

	mu    sync.Mutex // guards the fields below
	slots map[int64][]*session
	done  int64 // the last tick that was told
	next  int64 // the one that timer is set to; 0 while there is none
	timer *time.Timer
}

func newWheel(fired func(func())) *wheel {
	return &wheel{began: time.Now(), fired: fired, slots: make(map[int64][]*session)}
}

// at has s told at t, or at most a tick later.
func (w *wheel) at(t time.Time, s *session) {
	slot := int64((t.Sub(w.began) + wheelTick - 1) / wheelTick)
	w.mu.Lock()
	defer w.mu.Unlock()
	slot = max(slot, w.done+1)
	w.slots[slot] = append(w.slots[slot], s)
	if w.next == 0 || slot < w.next {
		w.setLocked(slot)
	}
}

func (w *wheel) setLocked(slot int64) {
	w.next = slot
	wait := time.Until(w.began.Add(time.Duration(slot) * wheelTick))
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.fire)
		return
	}
	w.timer.Reset(wait)
}

// fire tells everybody who is due.
func (w *wheel) fire() {
	now := time.Now()
	due := w.take(int64(now.Sub(w.began) / wheelTick))
	for _, list := range due {
		for some := range slices.Chunk(list, crewShare) { // they are not worth another worker
			w.fired(func() {
				for _, s := range some {
					s.due(now)
				}
			})
		}
	}
}

// take removes what is due up to slot, and sets the timer for the next.
func (w *wheel) take(slot int64) (due [][]*session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := int64(0)
	for at, list := range w.slots { // few: nobody waits longer than a heartbeat
		switch {
		case at <= slot:
			due = append(due, list)
			delete(w.slots, at)
		case next == 0 || at < next:
			next = at
		}
	}
	w.done, w.next = max(w.done, slot), 0
	if next != 0 {
		w.setLocked(next)
	}
	return due
}
