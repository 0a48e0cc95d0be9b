package gateway

import (
	"context"
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
	node     *Node
	scope    Scope       // fixed at Subscribe
	queue    chan *Frame // sent to under the hub's lock only; never closed
	detached chan struct{}

	// Set before CatchUp, or nil. Flush is called when CatchUp is about to wait, so
	// that what it has written does not. Wake is called when something has come
	// to Queue or Detached; under the hub's lock, so it must not block.
	Flush func() error
	Wake  func()

	// Guarded by the hub's lock while live, the owner's otherwise.
	live bool
	pos  Position
	why  error
}

// Queue is where live frames arrive. The events in it, and those CatchUp
// writes, are the stream; a frame is delivered once it is on the socket.
func (s *Subscriber) Queue() <-chan *Frame { return s.queue }

// Detached receives when the hub has taken the subscriber out. The owner then
// writes what is left in Queue, and reads why with Why.
func (s *Subscriber) Detached() <-chan struct{} { return s.detached }

// Why says why the hub detached the subscriber: ErrSlow (call CatchUp) or a
// *ResetError (start again from a snapshot). Only after Detached.
func (s *Subscriber) Why() error {
	s.node.hub.mu.Lock()
	defer s.node.hub.mu.Unlock()
	return s.why
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
