package devnet

import (
	"slices"
	"sort"
	"time"
)

// eventLog is the ordered record of all events: the truth that streams replay
// and REST lists. It is guarded by the server's mutex.
type eventLog struct {
	max     int      // events kept
	events  []*event // ascending by id
	byID    map[string]*event
	last    eventID // the newest id given out
	trimmed eventID // the newest event no longer kept
	total   int     // ever inserted
}

func newEventLog(limit int) *eventLog {
	return &eventLog{max: limit, byID: make(map[string]*event)}
}

// nextID returns an id greater than every one before, even when the clock
// steps back.
func (l *eventLog) nextID(now time.Time) eventID {
	ms := now.UnixMilli()
	if ms > l.last.ms {
		l.last = eventID{ms: ms, seq: 1}
	} else {
		l.last.seq++
	}
	return l.last
}

// insert records ev at its place, which is the end for all but late events.
func (l *eventLog) insert(ev *event) {
	at := l.after(ev.at)
	l.events = slices.Insert(l.events, at, ev)
	l.byID[ev.id] = ev
	l.total++
	l.trim()
}

// trim drops the oldest events in large steps, so that its cost per event
// stays small.
func (l *eventLog) trim() {
	excess := len(l.events) - l.max
	if excess <= l.max/8 {
		return
	}
	for _, ev := range l.events[:excess] {
		delete(l.byID, ev.id)
	}
	l.trimmed = l.events[excess-1].at
	l.events = slices.Delete(l.events, 0, excess)
}

// after returns the index of the first event newer than id.
func (l *eventLog) after(id eventID) int { return l.from(eventID{id.ms, id.seq + 1}) }

// from returns the index of the first event that is id or newer.
func (l *eventLog) from(id eventID) int {
	if n := len(l.events); n > 0 && l.events[n-1].at.compare(id) < 0 {
		return n // by far the most frequent
	}
	return search(l.events, id)
}

// search returns the index of the first event that is id or newer.
func search(events []*event, id eventID) int {
	return sort.Search(len(events), func(i int) bool { return events[i].at.compare(id) >= 0 })
}

// resolve returns the place of an event named by a client. Well-formed ids that
// are not recorded have one too.
func (l *eventLog) resolve(id string) (eventID, bool) {
	if ev, ok := l.byID[id]; ok {
		return ev.at, true
	}
	return parseEventID(id)
}

// window returns the index of the oldest of the newest n events.
func (l *eventLog) window(n int) int { return max(0, len(l.events)-n) }

// lost says whether an event after since is older than the window that begins
// at start.
func (l *eventLog) lost(since eventID, start int) bool {
	newest := l.trimmed
	if start > 0 {
		newest = l.events[start-1].at
	}
	return since.compare(newest) < 0
}
