package downstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"pepay-gateway/gateway"
)

const (
	expiryNotice = 60 * time.Second // before the session ends the client is told
	logRetry     = time.Second      // between two tries to reach the log
	pingClient   = 10 * time.Second // at least, between two pings; well within silence
	// A client that fell behind maxSlow times within slowWindow is told to come
	// back when it can keep up.
	maxSlow    = 3
	slowWindow = time.Minute
	// beatTick is short, so that few beats fall on one and delay no event.
	beatTick = 50 * time.Millisecond
	// A client that takes longer for what its queue holds is what was too slow.
	slowDrain = 200 * time.Millisecond
	// resetsPerSecond spreads the snapshots after a reset of everybody, for at
	// most resetSpread.
	resetsPerSecond = 500
	resetSpread     = 10 * time.Second
)

// A sink writes one stream to one connection. Its methods are for the session's
// goroutine, but for abort. What is written may wait for flush, so that frames
// that come together leave together. A write has a deadline, and after the first
// that failed the connection is of no use.
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
	// flush sends what waits.
	flush() error
	// finish says goodbye, closes, and waits for the reader.
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
type session struct {
	*admission
	server   *Server
	sink     sink
	ctx      context.Context // its cause is an *ending
	cancel   context.CancelCauseFunc
	requests chan request // what the reader lets pass
	resume   func()       // serves on when something has happened; made once, for go allocates nothing then
	started  time.Time
	busy     atomic.Int64 // unix nanoseconds since when it is at one thing; 0 while it waits for the next

	// For the session's goroutine only.
	sub       *gateway.Subscriber
	health    gateway.Health
	changed   <-chan struct{}          // closed when health is old
	told      gateway.State            // status last told
	asks      map[gateway.Ask]struct{} // what the snapshot still lacks
	asked     int                      // times
	replaying bool                     // replay_complete has yet to be said
	renewing  bool                     // what the client shows is void until the snapshot has come
	pinged    time.Time                // when the client last had to answer
	slow      []time.Time              // when the client fell behind
	broken    bool                     // a write failed
	frames    int64
	beatAt    time.Time // when the client must hear something; as all of these, zero means never
	noticeAt  time.Time // when the end of the session is announced
	askAt     time.Time // when the look-ups are asked for again
	expiry    *time.Timer
	clock     *time.Timer // rings at clockAt, for the earliest of them
	clockAt   time.Time

	mu     sync.Mutex    // guards the fields below
	rung   bool          // something has happened since the session last looked
	parked bool          // it has no goroutine, and gets one when something happens
	bell   chan struct{} // where its goroutine waits for that; nil while it does not
}

func (s *Server) newSession(a *admission, to sink) *session {
	ctx, cancel := context.WithCancelCause(context.Background())
	sess := &session{
		admission: a, server: s, sink: to, ctx: ctx, cancel: cancel,
		requests: make(chan request, 1), started: time.Now(),
	}
	sess.resume = func() { sess.advance((*session).live) }
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
	defer s.mu.Unlock()
	s.rung = true
	switch {
	case s.parked:
		s.parked = false
		go s.resume()
	case s.bell != nil:
		select {
		case s.bell <- struct{}{}:
		default: // rung already
		}
	}
}

// errParked says that a session waits without a goroutine: most have nothing to
// do nearly all the time, and a stack is more than all else they need.
var errParked = errors.New("downstream: parked")

// park gives the session's goroutine up, which then must not touch it again. It
// is false when something has happened meanwhile.
func (s *session) park() bool {
	s.setClock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parked = !s.rung; s.parked {
		s.busy.Store(0)
	}
	return s.parked
}

// setClock makes the clock ring when something is due.
func (s *session) setClock() {
	next := s.beatAt
	for _, at := range []time.Time{s.noticeAt, s.askAt} {
		if next.IsZero() || !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	if next != s.clockAt {
		s.clockAt = next
		s.clock.Reset(time.Until(next))
	}
}

// run begins the stream.
func (s *session) run() {
	s.server.counts.streams.Add(1)
	s.busy.Store(time.Now().UnixNano())
	s.advance((*session).begin)
}

// advance serves the stream until it is parked or has ended.
func (s *session) advance(serve func(*session) error) {
	err := s.guarded(serve)
	if err == errParked {
		return
	}
	defer s.server.streams.remove(s)
	var e *ending
	if !errors.As(err, &e) {
		e = errBroken
	}
	s.end(e)
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

// guarded serves until the session is parked or something ends it, and returns
// that.
func (s *session) guarded(serve func(*session) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.server.panicked(v)
			err = ended(errInternal)
		}
		if err == errParked {
			return
		}
		s.expiry.Stop()
		s.clock.Stop()
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
	s.expiry = time.AfterFunc(time.Until(s.sessions), func() { s.end(ended(errSessionEnded)) })
	s.noticeAt = s.sessions.Add(-expiryNotice)
	s.beatAt = s.nextBeat(time.Now())
	s.clock = time.AfterFunc(time.Until(s.beatAt), s.wake)
	s.clockAt = s.beatAt
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
	if err == nil {
		return nil
	}
	s.broken = true
	return errBroken
}

// flush sends what waits, before the session waits for anything.
func (s *session) flush() error { return s.wrote(s.sink.flush()) }

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
// to do.
func (s *session) live() error {
	for {
		if err := s.serveReady(true); err != nil {
			return err
		}
		if s.park() {
			return errParked
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
		s.setClock()
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
	s.mu.Lock()
	s.rung = false
	s.mu.Unlock()
	for more := true; more; {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if err := s.serveOnce(live); err != nil {
			return err
		}
		more = len(s.requests) > 0 || live && (len(s.sub.Queue()) > 0 || len(s.sub.Detached()) > 0)
	}
	return s.flush()
}

// serveOnce serves at most one thing of each kind, so that a busy stream does
// not forget the others. Nobody else receives from the channels.
func (s *session) serveOnce(live bool) error {
	now := time.Now()
	s.busy.Store(now.UnixNano())
	var err error
	switch {
	case live && len(s.sub.Detached()) > 0:
		<-s.sub.Detached()
		err = s.reattach(s.sub.Queue())
	case live && len(s.sub.Queue()) > 0:
		err = s.writeLive(<-s.sub.Queue(), s.sub.Queue())
	}
	if err == nil && len(s.requests) > 0 {
		err = s.handle(<-s.requests, live)
	}
	if err == nil {
		err = s.serveHealth(live)
	}
	if err == nil {
		err = s.serveClock(live, now)
	}
	return err
}

func (s *session) serveHealth(live bool) error {
	select {
	case <-s.changed:
	default:
		return nil
	}
	s.health, s.changed = s.server.node.Health()
	if live && len(s.sub.Detached()) > 0 {
		return nil // what brought the change voids what the client shows
	}
	return s.status()
}

func (s *session) serveClock(live bool, now time.Time) error {
	if due(s.askAt, now) {
		s.ask()
	}
	if due(s.noticeAt, now) {
		s.noticeAt = time.Time{}
		if err := s.sayExpiring(); err != nil {
			return err
		}
	}
	if due(s.beatAt, now) {
		s.beatAt = s.nextBeat(now)
		return s.heartbeat(live)
	}
	return nil
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// writeLive writes f and what waits behind it, together.
func (s *session) writeLive(f *gateway.Frame, queue <-chan *gateway.Frame) error {
	events, oldest := 0, int64(0)
	for n := 1; ; n++ {
		if f.HubAt != 0 && f.Event != nil {
			if events++; events == 1 {
				oldest = f.Event.Received
			}
		}
		if err := s.write(f); err != nil {
			return err
		}
		if len(queue) == 0 || n == gateway.QueueFrames {
			break
		}
		f = <-queue // only this goroutine receives
	}
	if err := s.flush(); err != nil {
		return err
	}
	for range events {
		s.server.node.Lag.Write.Observe(time.Since(time.UnixMilli(oldest)))
	}
	if s.replaying && len(queue) == 0 {
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
	if err := s.wrote(s.sink.event(f, s.incomplete())); err != nil {
		return err
	}
	if err := s.pingInTime(); err != nil {
		return err
	}
	s.frames++
	s.server.counts.frames.Add(1)
	return nil
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
func (s *session) reattach(queue <-chan *gateway.Frame) error {
	began := time.Now()
	for len(queue) > 0 {
		if err := s.write(<-queue); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	drained := time.Since(began)
	var reset *gateway.ResetError
	if errors.As(s.sub.Why(), &reset) {
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

// nextBeat is when the client must hear something next: controls speak of at
// most Heartbeat, others need a ping before proxies take them for idle. Beats
// fall on common ticks, for to wake up costs more than a beat does.
func (s *session) nextBeat(now time.Time) time.Time {
	d := s.server.cfg.Heartbeat
	if !s.controls {
		d = d * 5 / 3
	}
	at := now.Add(d - rand.N(d/5))
	if tick := at.Add(-at.Sub(s.server.began) % beatTick); tick.After(now) {
		return tick
	}
	return at
}

func (s *session) heartbeat(live bool) error {
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

func (s *session) sayExpiring() error {
	if !s.controls {
		return nil
	}
	return s.wrote(s.sink.control(sessionControl{controlOf("token_expiring"), s.sessions.Unix()}, ""))
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
	if !extends(claims, s.claims, s.scope) {
		return ended(errWiderToken)
	}
	if claims.SessionExpiresAt.After(s.sessions) {
		s.sessions = claims.SessionExpiresAt
		s.expiry.Reset(time.Until(s.sessions))
		s.noticeAt = s.sessions.Add(-expiryNotice)
	}
	if !s.controls {
		return nil
	}
	return s.wrote(s.sink.control(sessionControl{controlOf("token_accepted"), s.sessions.Unix()}, ""))
}
