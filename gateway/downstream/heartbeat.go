package downstream

import (
	"math/rand/v2"
	"time"
)

// beatTick is how far apart heartbeats fall at least, but for short ones.
const beatTick = 250 * time.Millisecond

// nextBeat is when the client must hear something next: controls speak of at
// most Heartbeat, others need a ping before proxies take them for idle. The
// first is earlier at random, so that those who came together are not served
// together ever after. Beats fall on common ticks, for to wake up costs more
// than a beat does.
func (s *session) nextBeat(now time.Time, first bool) time.Time {
	d := s.server.cfg.Heartbeat
	if !s.controls {
		d = d * 5 / 3
	}
	at := now.Add(d)
	if first {
		at = at.Add(-rand.N(d / 2))
	}
	if tick := at.Add(-at.Sub(s.server.wheel.began) % beatTick); tick.After(now) {
		return tick
	}
	return at
}

func (s *session) heartbeat(live bool) error {
	if !s.controls { // it hears nothing else
		s.pinged = time.Time{}
	}
	if err := s.pingInTime(); err != nil {
		return err
	}
	return s.offerTip(live)
}

// pingInTime asks the client for a sign of life now and then, also in the midst
// of a long replay: a client that only reads must not be taken for dead.
func (s *session) pingInTime() error {
	if time.Since(s.pinged) < pingClient {
		return nil
	}
	s.pinged = time.Now()
	return s.wrote(s.sink.ping())
}

// offerTip gives a sign of life. Live, it queues behind the events.
func (s *session) offerTip(live bool) error {
	switch {
	case live:
		s.sub.Tip()
		return nil
	case !s.controls:
		return nil
	}
	return s.wrote(s.sink.control(cursorControl{controlOf("tip"), ""}, ""))
}
