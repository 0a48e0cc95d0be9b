package gateway

import (
	"context"
	"sync"
	"time"
)

const (
	// replayPage is how many entries of the log one replay reads at a time.
	replayPage = 256
	// aheadWait bounds the wait for a node that is behind its client.
	aheadWait = 2 * time.Second
)

// A Subscriber is one downstream connection's place in the hub. Its methods are
// for the one goroutine that writes to the connection.
type Subscriber struct {
	node  *Node
	scope Scope // fixed at Subscribe

	// Set before CatchUp, or nil. Flush is called when CatchUp is about to wait, so
	// that what it has written does not. Wake is called when a frame has come or
	// the hub has detached the subscriber; under the hub's lock, so it must not
	// block.
	Flush func() error
	Wake  func()

	// Guarded by the hub's lock while live, the owner's otherwise.
	live bool
	pos  Position

	mu       sync.Mutex // guards the fields below; taken within the hub's lock, never the other way
	queue    frameQueue // frames are put under the hub's lock only
	detached error      // why the hub took it out; nil otherwise
}

// Next takes the oldest frame that waits, nil when none does. The events it
// returns, and those CatchUp writes, are the stream; a frame is delivered once
// it is on the socket.
func (s *Subscriber) Next() *Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.take()
}

// Queued returns how many frames wait.
func (s *Subscriber) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.n
}

// Waiting returns Queued and Detached.
func (s *Subscriber) Waiting() (queued int, detached error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.n, s.detached
}

// Detached says why the hub has taken the subscriber out: ErrSlow (call CatchUp)
// or a *ResetError (start again from a snapshot). The owner first writes what
// still waits. It is nil from when CatchUp has made the subscriber live.
func (s *Subscriber) Detached() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detached
}

// offer queues frames, all or none. Under the hub's lock.
func (s *Subscriber) offer(frames ...*Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if QueueFrames-s.queue.n < len(frames) {
		return false
	}
	for _, f := range frames {
		s.queue.put(f)
	}
	return true
}

// setDetached notes why the hub took s out, or, with nil, that it is live.
func (s *Subscriber) setDetached(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detached = why
}

// Position returns where the subscriber stands. Not while it is live.
func (s *Subscriber) Position() Position { return s.pos }

// Seek puts the subscriber at p. Not while it is live.
func (s *Subscriber) Seek(p Position) { s.pos = p }

// Tip asks the hub to queue a tip.
func (s *Subscriber) Tip() { s.node.hub.offerTip(s) }

// Close takes the subscriber out of the hub. What is queued is forgotten.
func (s *Subscriber) Close() { s.node.hub.remove(s) }

// CatchUp writes what the subscriber has missed since its position and makes it
// live exactly at the tip: no gap, no duplicate, no merge buffer. It returns a
// *ResetError when continuity cannot be proven, ErrBusy when this node cannot
// get there in time (the client should try another), or write's or the log's
// error. It may be called again: it goes on from where it stopped.
func (s *Subscriber) CatchUp(ctx context.Context, write func(*Frame) error) error {
	n, stuck := s.node, time.Time{}
	for {
		moved := n.hub.waitMove()
		if n.hub.attach(s) {
			return nil
		}
		before := s.pos
		if err := s.catchUpOnce(ctx, write); err != nil {
			return err
		}
		if s.pos != before {
			stuck = time.Time{}
			continue
		}
		// Ahead of this node, or the log is empty: wait for the hub.
		if stuck.IsZero() {
			stuck = time.Now()
		}
		if err := s.flush(); err != nil {
			return err
		}
		n.kick()
		if time.Since(stuck) > aheadWait {
			return ErrBusy
		}
		if err := n.hub.waitFor(ctx, moved, aheadWait/8); err != nil && err != errAhead {
			return err
		}
	}
}

func (s *Subscriber) wake() {
	if s.Wake != nil {
		s.Wake()
	}
}

func (s *Subscriber) flush() error {
	if s.Flush == nil {
		return nil
	}
	return s.Flush()
}

// catchUpOnce writes one page, from memory if it is there.
func (s *Subscriber) catchUpOnce(ctx context.Context, write func(*Frame) error) error {
	if p, generation, ok := s.node.hub.resolve(s.pos); ok {
		if items, last, ok := s.node.hub.ring.after(p.Seq, generation, &s.scope); ok {
			s.pos = p
			if err := s.writeItems(ctx, items, write); err != nil {
				return err
			}
			s.pos.Seq = last
			s.node.ringReplays.Add(1)
			return nil
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	page, err := s.node.read(ctx, ReadFrom{Pos: s.pos}, replayPage)
	if err != nil {
		return err
	}
	switch page.Status {
	case PageUnknown:
		return &ResetError{Reason: "unknown"}
	case PageExpired:
		return &ResetError{Reason: "expired"}
	case PageNone, PageLost:
		return nil
	}
	s.pos = page.Start
	codec := s.node.hub.codecFor(page.Key)
	for i := range page.Entries {
		it := newItem(page.Start.Epoch, &page.Entries[i], codec, 0)
		if err := s.writeItems(ctx, []*item{it}, write); err != nil {
			return err
		}
		s.pos.Seq = page.Entries[i].Seq
	}
	return nil
}

func (s *Subscriber) writeItems(ctx context.Context, items []*item, write func(*Frame) error) error {
	var frames []*Frame
	for _, it := range items {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		frames = it.framesFor(&s.scope, frames[:0])
		for _, f := range frames {
			if err := write(f); err != nil {
				return err
			}
			s.node.hub.delivered.Add(1)
		}
	}
	return nil
}
