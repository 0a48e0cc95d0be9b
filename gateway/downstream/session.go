package downstream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"pepay-gateway/gateway"
)

const (
	expiryNotice = 60 * time.Second // before the session ends the client is told
	logRetry     = time.Second      // between two tries to reach the log
	// pingClient is between two pings, at least: every other heartbeat asks, which
	// is twice within silence. Others than pepay.v1 clients are asked with every
	// heartbeat, for they hear nothing else.
	pingClient = 20 * time.Second
	// joinedBytes is when frames that wait for one connection are written at the
	// latest; few writes are larger.
	joinedBytes = 32 << 10
	// A stream whose session is at something is looked at this often all the same.
	lookAgain = time.Second
)

// A sink writes one stream to one connection. Its methods are for the session's
// goroutine, but for abort. What is written waits for flush, so that frames
// that come together leave together. After the first flush that failed the
// connection is of no use.
type sink interface {
	// start begins the stream and starts reading what the client sends.
	start(*session) error
	// event writes an event; bare means without its cursor.
	event(f *gateway.Frame, bare bool) error
	// tip writes a tip with its cursor.
	tip(*gateway.Frame) error
	// control writes a control; cursor is where the client's moves, if not empty.
	control(v any, cursor string) error
	// ping asks for a sign of life, if the transport has such a thing.
	ping() error
	// waiting is how many bytes wait.
	waiting() int
	// flush sends what waits. Unless it may block, for at most writeLongest, it
	// returns errWouldBlock when the client does not take all of it now.
	flush(block bool) error
	// finish says goodbye, closes, and waits for the client to have left.
	finish(*session, *ending)
	// abort closes at once. Safe for concurrent use.
	abort()
}

// A request is what a client may send.
type request struct {
	ping  bool
	token string
}

// A session is one stream: hello, snapshot or replay, live, end. The same loop
// serves both transports.
//
// A live session with nothing to do is parked, and has no goroutine: a stack is
// more than all else it needs. What happens to it gives it a turn by the crew.
// A turn does not block; where it would, and while the stream opens or catches
// up, the session has a goroutine of its own. So one goroutine at most serves
// it.
type session struct {
	*admission
	server  *Server
	sink    sink
	ctx     context.Context // its cause is an *ending
	cancel  context.CancelCauseFunc
	started time.Time
	busy    atomic.Int64 // unix nanoseconds since when it is at one thing; 0 while it waits for the next
	heard   atomic.Int64 // nanoseconds after started when the client last gave a sign of life; 0 where it need not
	expires atomic.Int64 // unix nanoseconds when the session ends

	// For the session's goroutine only.
	sub       *gateway.Subscriber
	health    gateway.Health
	changed   <-chan struct{}          // closed when health is old
	told      gateway.State            // status last told
	asks      map[gateway.Ask]struct{} // what the snapshot still lacks
	asked     int                      // times
	mayBlock  bool                     // it has a goroutine of its own
	replaying bool                     // replay_complete has yet to be said
	renewing  bool                     // what the client shows is void until the snapshot has come
	pinged    time.Time                // when the client last had to answer
	slow      []time.Time              // when the client fell behind
	broken    bool                     // a write failed
	frames    int64
	unsent    int       // live events that wait for flush
	oldest    int64     // unix milliseconds at which the first of them was received
	beatAt    time.Time // when the client must hear something; as all of these, zero means never
	noticeAt  time.Time // when the end of the session is announced
	askAt     time.Time // when the look-ups are asked for again

	mu       sync.Mutex    // guards the fields below
	rung     bool          // something has happened since the session last looked
	parked   bool          // it waits without a goroutine
	over     bool          // it serves nothing any more
	bell     chan struct{} // where its goroutine waits for what happens; nil while it does not
	requests []request     // what the client sent, at most messagesPerWindow
	clockAt  time.Time     // when the wheel tells it that something is due
}

func (s *Server) newSession(a *admission, to sink) *session {
	ctx, cancel := context.WithCancelCause(context.Background())
	sess := &session{admission: a, server: s, sink: to, ctx: ctx, cancel: cancel, started: time.Now()}
	sess.expires.Store(a.sessions.UnixNano())
	return sess
}

// end ends the session. The first call counts. Safe for concurrent use.
func (s *session) end(e *ending) {
	s.cancel(e)
	s.wake()
}

// wake makes the session look at what has happened. It does not block. Safe for
// concurrent use.
func (s *session) wake() {
	s.mu.Lock()
	s.rung = true
	parked := s.parked
	s.parked = false
	if s.bell != nil {
		select {
		case s.bell <- struct{}{}:
		default: // rung already
		}
	}
	s.mu.Unlock()
	if parked {
		s.server.crew.add(s)
	}
}

// post hands the session what the client sent. One answer does for pings that
// wait, as they do while a long replay is written: their number is no offence.
// Safe for concurrent use.
func (s *session) post(r request) {
	s.mu.Lock()
	n := len(s.requests)
	repeated := r.ping && n > 0 && s.requests[n-1].ping
	full := n >= messagesPerWindow && !repeated
	if !full && !repeated {
		s.requests = append(s.requests, r)
	}
	s.mu.Unlock()
	if full {
		s.end(ended(errTooManyMessages))
		return
	}
	s.wake()
}

// request takes the oldest request, if some wait.
func (s *session) request(some bool) (r request, ok bool) {
	if !some {
		return request{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == 0 {
		return request{}, false
	}
	r = s.requests[0]
	if s.requests = s.requests[1:]; len(s.requests) == 0 {
		s.requests = nil
	}
	return r, true
}

// due is called by the wheel. What cannot wait for the session, because it may
// be in the midst of a write or a replay, is seen to here.
func (s *session) due(now time.Time) {
	s.mu.Lock()
	late := s.over || s.clockAt.After(now) // it has been moved meanwhile
	parked := s.parked
	if !late {
		s.clockAt = time.Time{}
	}
	s.mu.Unlock()
	if late {
		return
	}
	heard := s.heard.Load()
	switch {
	case now.UnixNano() >= s.expires.Load():
		s.end(ended(errSessionEnded))
	case heard != 0 && now.Sub(s.started)-time.Duration(heard) >= silence:
		s.end(errSilent)
	default:
		s.wake()
	}
	if !parked {
		s.setClock(now.Add(lookAgain))
	}
}

// alive notes a sign of life. The wall clock, which may be set, would make a whole
// node's clients silent at once. Safe for concurrent use.
func (s *session) alive() { s.heard.Store(max(1, int64(time.Since(s.started)))) }

// setClock has the wheel call due at t, or earlier if that is set.
func (s *session) setClock(t time.Time) {
	s.mu.Lock()
	later := s.over || !s.clockAt.IsZero() && !t.Before(s.clockAt)
	if !later {
		s.clockAt = t
	}
	s.mu.Unlock()
	if !later {
		s.server.wheel.at(t, s)
	}
}

// nextDue is when something is due next, by the monotonic clock: what is due by
// the wall clock is looked at again should that have been set meanwhile.
func (s *session) nextDue() time.Time {
	now := time.Now()
	wait := time.Unix(0, s.expires.Load()).Sub(now)
	for _, at := range []time.Time{s.beatAt, s.noticeAt, s.askAt} {
		if !at.IsZero() {
			wait = min(wait, at.Sub(now))
		}
	}
	if heard := s.heard.Load(); heard != 0 {
		wait = min(wait, s.started.Add(time.Duration(heard)+silence).Sub(now))
	}
	return now.Add(wait)
}

var (
	// errParked says that a session waits without a goroutine.
	errParked = errors.New("downstream: parked")
	// errAgain says that a session's turn is over, but there is more to do.
	errAgain = errors.New("downstream: more to do")
	// errWouldBlock says that what comes next may block.
	errWouldBlock = errors.New("downstream: would block")
)

// park gives the session's goroutine up, which then must not touch it again. It
// is false when something has happened meanwhile.
func (s *session) park() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clockAt.IsZero() { // else it is told early enough: later times come of being told
		s.mu.Unlock()
		s.setClock(s.nextDue())
		s.mu.Lock()
	}
	if s.parked = !s.rung; s.parked {
		s.busy.Store(0)
	}
	return s.parked
}

// run serves the stream from its beginning, in a goroutine of its own.
func (s *session) run() {
	s.server.counts.streams.Add(1)
	s.busy.Store(time.Now().UnixNano())
	s.mayBlock = true
	s.after(s.guarded((*session).begin))
}

// turn serves what has happened to a parked stream. It does not block.
func (s *session) turn() {
	s.mayBlock = false
	s.after(s.guarded((*session).live))
}

// goOn is a turn that may block.
func (s *session) goOn() {
	s.mayBlock = true
	s.after(s.guarded((*session).live))
}

// after does what comes after a turn that ended with err.
func (s *session) after(err error) {
	switch {
	case err == errParked: // it may be another's already
	case err == errAgain:
		s.server.crew.add(s)
	case err == errWouldBlock:
		s.setClock(time.Now().Add(lookAgain)) // it may not come to park for long
		go s.goOn()
	case s.mayBlock:
		s.finish(err)
	default:
		go s.finish(err)
	}
}

// finish ends the stream.
func (s *session) finish(err error) {
	defer s.server.streams.remove(s)
	var e *ending
	if !errors.As(err, &e) {
		e = errBroken
	}
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.cancel(e)
	s.goodbye(e)
	s.server.counts.closed(e)
	s.server.log.Info("stream ended", "transport", transportName(s.transport), "route", s.path, "ip", s.ip.String(),
		"scope", s.server.scopeID(s.scope), "reason", e.reason, "code", e.code, "events", s.frames,
		"ms", time.Since(s.started).Milliseconds())
}

func transportName(t gateway.Transport) string {
	if t == gateway.WS {
		return "ws"
	}
	return "sse"
}

func (s *session) goodbye(e *ending) {
	defer func() {
		if v := recover(); v != nil {
			s.server.panicked(v)
			s.sink.abort()
		}
	}()
	s.sink.finish(s, e)
}

// guarded serves until the turn is over or something ends the session, and
// returns that.
func (s *session) guarded(serve func(*session) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.server.panicked(v)
			err = ended(errInternal)
		}
		if err == errParked || err == errAgain || err == errWouldBlock {
			return
		}
		if s.sub != nil {
			s.sub.Close()
		}
		// A write that failed because the client had left is no failure.
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
	}()
	return serve(s)
}

// begin brings the stream from nothing to live.
func (s *session) begin() error {
	s.noticeAt = s.sessions.Add(-expiryNotice)
	s.beatAt = s.nextBeat(time.Now(), true)
	s.setClock(s.nextDue())
	if err := s.wrote(s.sink.start(s)); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	return s.live()
}

// wrote notes what became of a write.
func (s *session) wrote(err error) error {
	if err == nil || err == errWouldBlock {
		return err
	}
	s.broken = true
	return errBroken
}

// flush sends what waits, before the session waits for anything.
func (s *session) flush() error {
	if err := s.wrote(s.sink.flush(s.mayBlock)); err != nil {
		return err
	}
	for ; s.unsent > 0; s.unsent-- {
		s.server.node.Lag.Write.Observe(time.Since(time.UnixMilli(s.oldest)))
	}
	return nil
}

// flushIfMuch sends what waits if it is much. That may have taken long: it is an
// error if the session has ended meanwhile.
func (s *session) flushIfMuch() error {
	if s.sink.waiting() < joinedBytes {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	if s.ctx.Err() != nil || !s.mayBlock {
		return context.Cause(s.ctx)
	}
	return s.meanwhile()
}
