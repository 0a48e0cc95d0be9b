package downstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"pepay-gateway/gateway"
)

const (
	// A client that fell behind maxSlow times within slowWindow is told to come
	// back when it can keep up.
	maxSlow    = 3
	slowWindow = time.Minute
	// A client that takes longer for what its queue holds is what was too slow.
	slowDrain = 200 * time.Millisecond
	// resetsPerSecond spreads the snapshots after a reset of everybody, for at
	// most resetSpread.
	resetsPerSecond = 500
	resetSpread     = 10 * time.Second
)

// status tells the client how fresh its events are, when that is news.
func (s *session) status() error {
	h := s.health
	if h.State == gateway.Live && (s.incomplete() || s.renewing) {
		h = gateway.Health{State: gateway.CatchingUp, Reason: "snapshot_incomplete", Since: time.Now()}
	}
	if !s.controls || h.State == s.told {
		return nil
	}
	s.told = h.State
	return s.wrote(s.sink.control(statusControl{
		controlOf("status"), string(h.State), h.Reason, h.Since.UnixMilli(),
	}, ""))
}

// catchUp writes what the client has missed and makes the stream live.
func (s *session) catchUp() error {
	for {
		err := s.sub.CatchUp(s.ctx, s.write)
		var reset *gateway.ResetError
		var end *ending
		switch {
		case err == nil:
			if s.replaying {
				s.sub.Tip() // becomes replay_complete, behind what attaching queued
			}
			return s.status() // it may have changed meanwhile
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case s.broken:
			return errBroken
		case errors.As(err, &end): // what the client sent meanwhile
			return end
		case errors.Is(err, gateway.ErrBusy):
			return turnedAway(errOverloaded)
		case errors.As(err, &reset):
			if err := s.fellBehind(); err != nil {
				return err
			}
			s.sub.Seek(s.server.node.Position()) // its own place is gone
			if err := s.reset(reset.Reason); err != nil {
				return err
			}
			s.replaying = true
		default: // the log is out of reach
			if err := s.pause(logRetry); err != nil {
				return err
			}
		}
	}
}

// live serves a stream that is live. It returns errParked when there is nothing
// to do, and in a turn errAgain or errWouldBlock when there is.
func (s *session) live() error {
	for {
		if err := s.serveReady(true); err != nil {
			return err
		}
		if s.park() {
			return errParked
		}
		if !s.mayBlock {
			return errAgain
		}
	}
}

// pause serves a stream that is not live, for d.
func (s *session) pause(d time.Duration) error {
	until := time.NewTimer(d/2 + rand.N(d/2))
	defer until.Stop()
	bell := make(chan struct{}, 1)
	s.hang(bell)
	defer s.hang(nil)
	for {
		if err := s.serveReady(false); err != nil {
			return err
		}
		s.setClock(s.nextDue())
		s.busy.Store(0)
		select {
		case <-until.C:
			return nil
		case <-bell:
		}
	}
}

// hang makes what happens ring bell.
func (s *session) hang(bell chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bell = bell
}

// serveReady serves everything that has happened to the stream, and sends what
// came of it. What happens meanwhile rings again.
func (s *session) serveReady(live bool) error {
	for again := true; again; {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		var err error
		if again, err = s.serveOnce(live); err != nil {
			return err
		}
	}
	return s.flush()
}

// serveOnce serves at most one thing of each kind, so that a busy stream does
// not forget the others. It says whether some of it is left, or came of it.
func (s *session) serveOnce(live bool) (again bool, err error) {
	now := time.Now()
	s.busy.Store(now.UnixNano())
	s.mu.Lock()
	s.rung = false
	asked := len(s.requests) > 0
	s.mu.Unlock()
	if live {
		if again, err = s.serveFrames(); err != nil {
			return again, err
		}
	}
	if r, ok := s.request(asked); ok {
		again = true
		if err := s.handle(r, live); err != nil {
			return again, err
		}
	}
	if err := s.serveHealth(live); err != nil {
		return again, err
	}
	beat, err := s.serveClock(live, now)
	return again || beat, err
}

// serveFrames writes what the hub has queued.
func (s *session) serveFrames() (again bool, err error) {
	queued, why := s.sub.Waiting()
	switch {
	case why == nil:
		return s.replaying && queued > 0, s.writeLive(queued)
	case s.mayBlock:
		return true, s.reattach(why)
	}
	return false, errWouldBlock
}

func (s *session) serveHealth(live bool) error {
	select {
	case <-s.changed:
	default:
		return nil
	}
	s.health, s.changed = s.server.node.Health()
	if live && s.sub.Detached() != nil {
		return nil // what brought the change voids what the client shows
	}
	return s.status()
}

// serveClock does what is due. It says whether the client was to hear something.
func (s *session) serveClock(live bool, now time.Time) (beat bool, err error) {
	if due(s.askAt, now) {
		if live && !s.mayBlock {
			return false, errWouldBlock
		}
		if err := s.flush(); err != nil { // asking takes as long as the log does
			return false, err
		}
		s.ask()
	}
	if err := s.noticeInTime(now); err != nil {
		return false, err
	}
	if due(s.beatAt, now) {
		s.beatAt = s.nextBeat(now, false)
		return true, s.heartbeat(live)
	}
	return false, nil
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// writeLive writes the frames that are queued.
func (s *session) writeLive(queued int) error {
	for range queued {
		f := s.sub.Next()
		if f.HubAt != 0 && f.Event != nil {
			if s.unsent++; s.unsent == 1 {
				s.oldest = f.Event.Received
			}
		}
		if err := s.write(f); err != nil {
			return err
		}
	}
	if s.replaying && queued > 0 && s.sub.Queued() == 0 {
		s.sub.Tip() // the first found no room
	}
	return nil
}

// write writes what comes from the log.
func (s *session) write(f *gateway.Frame) error {
	switch f.Kind {
	case gateway.FrameCovered:
		return s.covered(f.Covered)
	case gateway.FrameTip:
		return s.writeTip(f)
	}
	return s.writeEvent(f)
}

func (s *session) writeEvent(f *gateway.Frame) error {
	if s.mayBlock { // this may be a long replay; not behind the event, which may take its time
		if err := s.pingInTime(); err != nil {
			return err
		}
	}
	if err := s.wrote(s.sink.event(f, s.incomplete())); err != nil {
		return err
	}
	s.frames++
	s.server.counts.frames.Add(1)
	return s.flushIfMuch()
}

// writeTip writes a tip. The first after a replay says that this is over.
func (s *session) writeTip(f *gateway.Frame) error {
	cursor := f.Cursor
	if s.incomplete() {
		cursor = ""
	}
	kind := "tip"
	if s.replaying {
		s.replaying, kind = false, "replay_complete"
	}
	switch {
	case !s.controls:
		return nil
	case kind == "tip" && cursor != "":
		return s.wrote(s.sink.tip(f))
	}
	return s.wrote(s.sink.control(cursorControl{controlOf(kind), cursorText(cursor)}, cursor))
}

// reattach brings a stream that the hub has detached back to the tip.
func (s *session) reattach(why error) error {
	began := time.Now()
	for f := s.sub.Next(); f != nil; f = s.sub.Next() {
		if err := s.write(f); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	drained := time.Since(began)
	var reset *gateway.ResetError
	if errors.As(why, &reset) {
		s.replaying = true
		return s.startAnew(reset.Reason)
	}
	s.server.counts.slow.Add(1)
	if drained >= slowDrain { // else it was a burst, too large for any queue
		if err := s.fellBehind(); err != nil {
			return err
		}
	}
	return s.catchUp()
}

// startAnew starts over from a snapshot, together with all others of this node:
// spread, so that the log is not asked for all of them at once.
func (s *session) startAnew(reason string) error {
	if s.snapshots() {
		s.renewing = true
		if err := s.status(); err != nil {
			return err
		}
		ws, sse, _ := s.server.streams.open()
		spread := time.Duration(ws+sse) * time.Second / resetsPerSecond
		if err := s.pause(min(spread, resetSpread) + time.Millisecond); err != nil {
			return err
		}
	}
	if err := s.reset(reason); err != nil {
		return err
	}
	return s.catchUp()
}

// fellBehind counts that the client could not keep up; too often is too often.
func (s *session) fellBehind() error {
	now := time.Now()
	s.slow = append(s.slow, now)
	if len(s.slow) < maxSlow {
		return nil
	}
	if now.Sub(s.slow[len(s.slow)-maxSlow]) <= slowWindow {
		return ended(errTooSlow)
	}
	s.slow = s.slow[1:]
	return nil
}
