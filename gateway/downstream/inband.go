package downstream

import "time"

func (s *session) sayExpiring() error {
	if !s.controls {
		return nil
	}
	return s.wrote(s.sink.control(sessionControl{controlOf("token_expiring"), s.sessions.Unix()}, ""))
}

// meanwhile sees, in the midst of a long replay, to what must not wait for its
// end: the notice that the session ends, and the token that prolongs it.
func (s *session) meanwhile() error {
	for r, ok := s.request(true); ok; r, ok = s.request(true) {
		if err := s.handle(r, false); err != nil {
			return err
		}
	}
	return s.noticeInTime(time.Now())
}

// noticeInTime tells the client that the session ends soon, once.
func (s *session) noticeInTime(now time.Time) error {
	if !due(s.noticeAt, now) {
		return nil
	}
	s.noticeAt = time.Time{}
	return s.sayExpiring()
}

// handle answers what the client sent.
func (s *session) handle(r request, live bool) error {
	if r.ping {
		return s.offerTip(live)
	}
	now := time.Now()
	claims, err := s.server.keys.Verify(r.token, now)
	if err != nil {
		s.server.limiter.punish(s.ip, now)
		return ended(errTokenInvalid)
	}
	if !extends(claims, s.kind, s.scope) {
		return ended(errWiderToken)
	}
	if claims.SessionExpiresAt.After(s.sessions) {
		s.sessions = claims.SessionExpiresAt
		s.expires.Store(s.sessions.UnixNano())
		s.noticeAt = s.sessions.Add(-expiryNotice)
		s.setClock(s.nextDue())
	}
	if !s.controls {
		return nil
	}
	return s.wrote(s.sink.control(sessionControl{controlOf("token_accepted"), s.sessions.Unix()}, ""))
}
