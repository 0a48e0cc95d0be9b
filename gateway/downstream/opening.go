package downstream

import (
	"context"
	"time"

	"pepay-gateway/gateway"
)

// askAgain is when an unanswered look-up is asked for again.
var askAgain = [...]time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second}

// open brings the stream from hello to live.
func (s *session) open() error {
	node := s.server.node
	s.subscribe()
	start, away := s.locate()
	s.health, s.changed = node.Health()
	if err := s.hello(start, away); err != nil {
		return err
	}
	for away != nil && s.resumable { // only the log can tell where it goes on
		if err := s.pause(logRetry); err != nil {
			return err
		}
		start, away = s.locate()
	}
	switch {
	case start.Resumed:
		s.sub.Seek(start.Pos)
		s.server.counts.replays.Add(1)
	case s.resumable:
		if err := s.reset(start.Reason); err != nil {
			return err
		}
	case s.snapshots():
		if err := s.snapshot(""); err != nil {
			return err
		}
	case away != nil:
		if err := s.awaitNode(); err != nil {
			return err
		}
	}
	s.replaying = true
	return s.catchUp()
}

// locate resolves where the stream starts. An error means that the log is out of
// reach, and was needed.
func (s *session) locate() (gateway.Start, error) {
	node := s.server.node
	if err := node.Ready(); err != nil {
		return gateway.Start{}, err
	}
	if !s.resumable {
		return gateway.Start{}, nil
	}
	if !validSince(s.since) {
		return gateway.Start{Reason: "unknown"}, nil
	}
	return node.Locate(s.ctx, s.since, s.scope)
}

// hello says where the stream starts. While the log is away a client that
// resumes has lost nothing yet; if it turns out to have, reset follows. Where a
// snapshot follows there is no cursor: whoever is cut before its end must not
// resume behind it.
func (s *session) hello(start gateway.Start, away error) error {
	s.told = s.health.State
	if !s.controls {
		return nil
	}
	cursor := ""
	switch {
	case start.Resumed:
		cursor = s.server.node.Cursor(start.Pos)
	case away == nil && !s.snapshots():
		cursor = s.server.node.Cursor(s.sub.Position())
	}
	hello := helloControl{
		control: controlOf("hello"), Resumed: start.Resumed || away != nil && s.resumable, Cursor: cursorText(cursor),
		Status: string(s.told), HeartbeatMS: s.server.cfg.Heartbeat.Milliseconds(),
		SessionExpiresAt: s.sessions.Unix(),
		ScopeID:          s.server.scopeID(s.grant.scope),
	}
	if s.told != gateway.Live {
		hello.Reason, hello.SinceMS = s.health.Reason, s.health.Since.UnixMilli()
	}
	return s.wrote(s.sink.control(hello, ""))
}

// awaitNode waits until this node has a position to start from.
func (s *session) awaitNode() error {
	for s.server.node.Ready() != nil {
		if err := s.pause(logRetry); err != nil {
			return err
		}
	}
	s.subscribe()
	return nil
}

// subscribe places the stream where the node was when it was asked for it: what
// happens from the handshake on belongs to a stream without a cursor, however
// long it takes to begin.
func (s *session) subscribe() {
	s.sub = s.server.node.Subscribe(s.scope)
	s.sub.Flush, s.sub.Wake = s.flush, s.wake
	if s.from != nil {
		s.sub.Seek(*s.from)
	}
}

// reset tells the client that continuity cannot be proven, and starts it anew.
func (s *session) reset(reason string) error {
	if s.snapshots() {
		return s.snapshot(reason)
	}
	s.sub.Seek(s.server.node.Position())
	return s.sayReset(reason)
}

// sayReset tells the client to forget what it shows, and takes its cursor away:
// cut before the snapshot's end it must get the whole of it again, though the
// cursor it held may resolve by then.
func (s *session) sayReset(reason string) error {
	s.server.counts.resets.Add(1)
	return s.wrote(s.sink.control(resetControl{controlOf("reset"), reason}, resetID))
}

// snapshot sends the state of the orders in scope, after a reset if there is a
// reason for one. While the log is out of reach it waits.
func (s *session) snapshot(reason string) error {
	for {
		if err := s.flush(); err != nil {
			return err
		}
		snap, err := s.server.node.Snapshot(s.ctx, s.scope)
		if err == nil {
			return s.sendSnapshot(snap, reason)
		}
		if err := s.pause(logRetry); err != nil {
			return err
		}
	}
}

func (s *session) sendSnapshot(snap gateway.ScopedSnapshot, reason string) error {
	if reason != "" {
		if err := s.sayReset(reason); err != nil {
			return err
		}
	}
	s.server.counts.snapshots.Add(1)
	if s.controls {
		if err := s.wrote(s.sink.control(snapshotControl{
			controlOf("snapshot"), len(snap.Frames), snap.Complete, snap.Truncated,
		}, "")); err != nil {
			return err
		}
	}
	for _, f := range snap.Frames {
		if err := s.writeEvent(f); err != nil {
			return err
		}
	}
	s.sub.Seek(snap.Pos)
	s.renewing = false
	if err := s.flush(); err != nil {
		return err
	}
	s.askFor(snap)
	return s.status()
}

// askFor asks for what the snapshot lacks. Until it came the client's cursor
// does not move: whoever reconnects before that gets the snapshot again.
func (s *session) askFor(snap gateway.ScopedSnapshot) {
	s.asks, s.asked, s.askAt = nil, 0, time.Time{}
	if snap.Complete {
		return
	}
	s.server.counts.incomplete.Add(1)
	s.asks = make(map[gateway.Ask]struct{}, len(snap.Asks))
	for _, a := range snap.Asks {
		s.asks[a] = struct{}{}
	}
	s.ask()
}

func (s *session) ask() {
	asks := make([]gateway.Ask, 0, len(s.asks))
	for a := range s.asks {
		asks = append(asks, a)
	}
	ctx, cancel := context.WithTimeout(s.ctx, logRetry)
	defer cancel()
	_ = s.server.node.Ask(ctx, asks) // a hint; it is repeated
	s.askAt = time.Now().Add(askAgain[min(s.asked, len(askAgain)-1)])
	s.asked++
	s.setClock(s.askAt)
}

func (s *session) incomplete() bool { return len(s.asks) > 0 }

// covered notes that a look-up was answered; the answer came before it.
func (s *session) covered(a gateway.Ask) error {
	if _, waiting := s.asks[a]; !waiting {
		return nil
	}
	delete(s.asks, a)
	if s.incomplete() {
		return nil
	}
	s.askAt = time.Time{}
	s.sub.Tip() // the cursor may move now
	return s.status()
}
