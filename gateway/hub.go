package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// attachWindow is how far behind the hub a subscriber may be to be attached
	// under the hub's lock; it is all that is ever looked at there.
	attachWindow = 256
	// attachMatches bounds what is queued while attaching.
	attachMatches = 48
)

// A ResetError ends a subscriber's continuity: the client must be told reset,
// and start from a snapshot.
type ResetError struct {
	Reason string // unknown, expired or history_lost
}

func (e *ResetError) Error() string { return "gateway: reset: " + e.Reason }

// A Hub fans the log out to the subscribers of this process, and is this
// process's place in the log. It hands out entry s only after s-1. It starts no
// goroutines and never blocks on a subscriber.
type Hub struct {
	ring *ring

	mu      sync.Mutex // guards the fields below
	started bool
	pos     Position
	codec   *CursorCodec
	forks   map[Epoch]uint64
	index   index
	tip     *Frame        // of pos; made when first asked for
	moved   chan struct{} // closed when pos changes; nil while nobody waits
	scratch []*Frame

	delivered, slow, resets, rewinds atomic.Int64
}

func newHub() *Hub { return &Hub{ring: newRing(), index: newIndex()} }

// Position returns where the hub is, and whether it has a position yet.
func (h *Hub) Position() (Position, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pos, h.started
}

// Cursor returns the cursor of p, "" when there is no log yet.
func (h *Hub) Cursor(p Position) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.codec.Encode(p)
}

func (h *Hub) decode(cursor string) (Position, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.codec.Decode(cursor)
}

// take hands out an announced batch if it continues the hub's position exactly.
// False means that the log has to be read instead. A batch that the hub has
// already is ignored.
func (h *Hub) take(a Announcement) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started || a.Epoch != h.pos.Epoch {
		return false
	}
	if a.From+uint64(len(a.Entries)) <= h.pos.Seq {
		return true
	}
	if a.From != h.pos.Seq {
		return false
	}
	h.deliverLocked(a.Entries)
	return true
}

// advance takes a page that was read from the position asked. It reports
// whether there is more to read now.
func (h *Hub) advance(asked Position, first bool, page Page) (more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started == first || h.pos != asked {
		return true // moved meanwhile: the page is about another place
	}
	h.keyLocked(page.Key)
	if page.Forks != nil {
		h.forks = page.Forks
	}
	switch page.Status {
	case PageNone:
		h.started = true // the start of the log, if nothing better is known
		return false
	case PageLost:
		return false
	case PageUnknown:
		h.resetLocked(page.Start, "history_lost")
		return false
	case PageExpired:
		h.resetLocked(page.Start, "expired")
		return false
	}
	if first {
		h.started = true
		h.ring.reset(page.Start.Seq)
	} else if page.Start.Seq < h.pos.Seq {
		// The log lost a suffix. What was handed out beyond it comes again, from
		// the upstream, and is handed out again: duplicates, never a gap.
		h.rewinds.Add(1)
		h.ring.reset(page.Start.Seq)
	}
	if h.pos.IsNone() {
		h.ring.reset(page.Start.Seq)
	}
	h.moveLocked(page.Start)
	h.deliverLocked(page.Entries)
	return h.pos.Seq < page.Tip
}

func (h *Hub) keyLocked(key string) {
	if key == "" || h.codec != nil && h.codec.key == key {
		return
	}
	if c, err := NewCursorCodec(key); err == nil {
		h.codec = c
	}
}

func (h *Hub) deliverLocked(entries []Entry) {
	now := time.Now().UnixMilli()
	for i := range entries {
		it := newItem(h.pos.Epoch, &entries[i], h.codec, now)
		before := h.pos
		h.ring.push(it)
		h.pos = it.pos
		h.index.each(it.keys, it.event == nil, func(s *Subscriber) { h.offerLocked(s, it, before) })
	}
	if len(entries) > 0 {
		h.moveLocked(h.pos)
	}
}

// offerLocked queues what s sees of it. A subscriber whose queue has no room is
// detached before it: it drains, then catches up from there.
func (h *Hub) offerLocked(s *Subscriber, it *item, before Position) {
	frames := it.framesFor(&s.scope, h.scratch[:0])
	h.scratch = frames[:0]
	if len(frames) == 0 {
		return
	}
	if !s.offer(frames...) {
		h.slow.Add(1)
		h.detachLocked(s, before, ErrSlow)
		return
	}
	h.delivered.Add(int64(len(frames)))
	s.wake()
}

// resetLocked moves to p without continuity: every subscriber is told.
func (h *Hub) resetLocked(p Position, reason string) {
	h.resets.Add(1)
	why := &ResetError{Reason: reason}
	h.index.all(func(s *Subscriber) { h.detachLocked(s, p, why) })
	h.ring.reset(p.Seq)
	h.started = true
	h.moveLocked(p)
}

func (h *Hub) moveLocked(p Position) {
	h.pos, h.tip = p, nil
	if h.moved != nil {
		close(h.moved)
		h.moved = nil
	}
}

// waitMove returns a channel that is closed when the hub moves on.
func (h *Hub) waitMove() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.moved == nil {
		h.moved = make(chan struct{})
	}
	return h.moved
}

// resolve returns p on the hub's timeline and the generation of the ring it
// belongs to; false if the hub cannot tell.
func (h *Hub) resolve(p Position) (Position, uint64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q, ok := h.resolveLocked(p)
	return q, h.ring.generation, ok // resets happen under h.mu
}

func (h *Hub) resolveLocked(p Position) (Position, bool) {
	if !h.started || p.IsNone() {
		return p, h.started && h.pos.IsNone()
	}
	if p.Epoch == h.pos.Epoch {
		return p, true
	}
	end, ok := h.forks[p.Epoch]
	if !ok {
		return p, false
	}
	return Position{h.pos.Epoch, min(p.Seq, end)}, true
}

// attach makes s live if it stands, or can be brought, exactly at the tip.
func (h *Hub) attach(s *Subscriber) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.resolveLocked(s.pos)
	if !ok || p.Seq > h.pos.Seq {
		return false
	}
	if p.Seq < h.pos.Seq {
		var room [attachWindow]*item
		items, ok := h.ring.tail(p.Seq, attachWindow, room[:0])
		if !ok {
			return false
		}
		frames := h.scratch[:0]
		for _, it := range items {
			if frames = it.framesFor(&s.scope, frames); len(frames) > attachMatches {
				return false
			}
		}
		h.scratch = frames[:0]
		if !s.offer(frames...) {
			return false
		}
	}
	s.pos, s.live = h.pos, true
	s.setDetached(nil)
	h.index.add(s)
	return true
}

// detachLocked takes s out; p is the position after which it has nothing.
func (h *Hub) detachLocked(s *Subscriber, p Position, why error) {
	if !s.live {
		return
	}
	s.live, s.pos = false, p
	h.index.remove(s)
	s.setDetached(why)
	s.wake()
}

// offerTip queues a tip for s, so that it never passes an event still waiting.
// A subscriber with a full queue needs no proof of life.
func (h *Hub) offerTip(s *Subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.live {
		return
	}
	if h.tip == nil {
		h.tip = &Frame{Kind: FrameTip, Pos: h.pos, Cursor: h.codec.Encode(h.pos)}
	}
	if s.offer(h.tip) {
		s.wake()
	}
}

func (h *Hub) remove(s *Subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.live {
		s.live = false
		h.index.remove(s)
	}
}

// errAhead says that a position lies beyond what this node has reached.
var errAhead = errors.New("gateway: ahead of this node")

// waitFor blocks until the hub has moved, at most d.
func (h *Hub) waitFor(ctx context.Context, moved <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-moved:
		return nil
	case <-t.C:
		return errAhead
	}
}

// codecFor returns the codec for a page's key, which is the hub's own but while
// the log starts anew.
func (h *Hub) codecFor(key string) *CursorCodec {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.codec != nil && h.codec.key == key {
		return h.codec
	}
	c, err := NewCursorCodec(key)
	if err != nil {
		return nil
	}
	return c
}
