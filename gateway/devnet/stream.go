package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/contrib/websocket"
)

const (
	writeWait     = 10 * time.Second      // for one frame to leave
	closeWait     = time.Second           // for the peer to answer a close frame
	shuffleWait   = 20 * time.Millisecond // for a shuffled group to fill
	maxInputBytes = 4096                  // of a client's message, which is ignored
)

// A stream is one open commerce stream.
type stream struct {
	req    streamRequest // fixed at attach
	replay []*frame      // fixed at attach; sent before the queue
	raw    net.Conn      // closing it ends the stream at once
	queue  chan *frame   // never closed; ctx says when to stop
	ctx    context.Context
	end    context.CancelCauseFunc

	halfOpen atomic.Bool // nothing is sent any more, not even pongs

	sent int // frames; the writer's alone
}

// An ended is the cause of a stream's context.
type ended struct{ Ending }

func (ended) Error() string { return "devnet: stream ended" }

var errLeft = errors.New("devnet: client left")

// cut ends the stream without blocking.
func (st *stream) cut(e Ending) {
	if e.HalfOpen {
		st.halfOpen.Store(true)
		return
	}
	st.end(ended{e})
	if e.CloseCode == 0 && e.Code == "" {
		_ = st.raw.Close() // whatever it says, the connection is gone
		return
	}
	_ = st.raw.SetWriteDeadline(time.Now().Add(closeWait)) // frees a writer stuck in a full socket
}

// serveStream is one stream's life. c belongs to someone else once it returns,
// so it returns only after the writer has.
func (s *Server) serveStream(c *websocket.Conn) {
	defer func() { _ = c.Close() }() // the only one who still knows the connection
	req, ok := c.Locals(localsRequest).(streamRequest)
	if !ok {
		return
	}
	c.SetReadLimit(maxInputBytes)
	st := s.attach(req, c.NetConn())
	if st == nil {
		return // the server is stopping
	}
	defer s.detach(st)
	c.SetPingHandler(func(data string) error {
		if st.halfOpen.Load() || s.faults.Load().Silent {
			return nil
		}
		_ = c.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(closeWait)) // a dead peer ends the read
		return nil
	})
	var writer sync.WaitGroup
	writer.Go(func() { s.writeLoop(c, st) })
	defer func() { // also when the loop panics: the writer must not outlive c
		st.end(errLeft)
		writer.Wait()
	}()
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			return // gone, or closed by us
		}
	}
}

// recoverStream keeps a panic in a stream's handler from ending the process
// and from reaching the client.
func (s *Server) recoverStream(*websocket.Conn) {
	if r := recover(); r != nil {
		s.log.Error("stream panicked", "panic", r)
	}
}

// attach opens a stream exactly between two events: what came before is in its
// replay, what comes after goes to its queue.
func (s *Server) attach(req streamRequest, raw net.Conn) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == nil {
		return nil
	}
	st := &stream{req: req, raw: raw, queue: make(chan *frame, s.cfg.QueueFrames)}
	st.ctx, st.end = context.WithCancelCause(s.serving)
	if req.resume {
		st.replay = s.replayLocked(req)
	}
	s.streams[st] = struct{}{}
	s.sessions.Add(1)
	s.opened++
	s.maxOpen = max(s.maxOpen, len(s.streams))
	if e := s.takeEndingLocked(); e != nil {
		st.cut(*e)
	}
	return st
}

func (s *Server) detach(st *stream) {
	st.end(errLeft)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	s.sessions.Done()
}

// sendEventLocked queues ev for every stream that selects it.
func (s *Server) sendEventLocked(ev *event) {
	if s.takeDropLocked() {
		return
	}
	times := 1 + max(0, s.faults.Load().Duplicate)
	for st := range s.streams {
		if !st.req.filter.match(ev) {
			continue
		}
		for range times {
			st.offer(&ev.frame)
		}
	}
}

// sendAllLocked queues f for every stream, whatever its filter.
func (s *Server) sendAllLocked(f *frame) {
	for st := range s.streams {
		st.offer(f)
	}
}

// offer queues f. A stream whose queue is full does not read: it is cut, so
// that it cannot hold up the others.
func (st *stream) offer(f *frame) {
	select {
	case st.queue <- f:
	default:
		st.cut(Ending{})
	}
}

// writeLoop sends the replay, then the queue, until the stream ends.
func (s *Server) writeLoop(c *websocket.Conn, st *stream) {
	defer s.finish(c, st)
	for i, f := range st.replay {
		if limit := s.faults.Load().CloseMidReplay; limit > 0 && i >= limit {
			st.cut(Ending{})
		}
		if !s.send(c, st, f) {
			return
		}
	}
	ping, stopPing := ticks(s.cfg.PingInterval)
	defer stopPing()
	expiry, stopExpiry := s.expiryOf(st)
	defer stopExpiry()
	for {
		select {
		case <-st.ctx.Done():
			return
		case <-expiry:
			st.cut(Ending{CloseCode: websocket.ClosePolicyViolation, Code: "TOKEN_EXPIRED", Message: "Token expired"})
		case <-ping:
			_ = c.WriteControl(websocket.PingMessage, nil, time.Now().Add(closeWait)) // the next frame tells
		case f := <-st.queue:
			for _, f := range s.group(st, f) {
				if !s.send(c, st, f) {
					return
				}
			}
		}
	}
}

// ticks is a ticker that a zero interval turns off.
func ticks(every time.Duration) (<-chan time.Time, func()) {
	if every <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// expiryOf fires when the stream's token expires, if that ends streams here.
func (s *Server) expiryOf(st *stream) (<-chan time.Time, func()) {
	if !s.cfg.CloseExpiredTokens || st.req.expires.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(st.req.expires.Sub(s.now()))
	return t.C, func() { t.Stop() }
}

// group collects the frames that Shuffle mixes, f first.
func (s *Server) group(st *stream, f *frame) []*frame {
	group := []*frame{f}
	size := s.faults.Load().Shuffle
	if size < 2 {
		return group
	}
	deadline := time.NewTimer(shuffleWait)
	defer deadline.Stop()
	for len(group) < size {
		select {
		case f := <-st.queue:
			group = append(group, f)
			continue
		case <-deadline.C:
		case <-st.ctx.Done():
		}
		break
	}
	rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
	return group
}

// send writes one frame, unless the stream has ended or carries nothing.
func (s *Server) send(c *websocket.Conn, st *stream, f *frame) bool {
	if st.ctx.Err() != nil {
		return false
	}
	faults := s.faults.Load()
	if faults.Silent || st.halfOpen.Load() {
		return true
	}
	if faults.CloseAfter > 0 && st.sent >= faults.CloseAfter {
		st.cut(Ending{})
		return false
	}
	st.sent++
	kind := websocket.TextMessage
	if f.binary {
		kind = websocket.BinaryMessage
	}
	if err := write(c, kind, f.data); err != nil {
		st.cut(Ending{})
		return false
	}
	return true
}

func write(c *websocket.Conn, kind int, data []byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(writeWait)) // only remembers it
	return c.WriteMessage(kind, data)
}

// finish says good-bye as the stream's Ending wants it, and sees to it that
// the reader ends.
func (s *Server) finish(c *websocket.Conn, st *stream) {
	e, ok := errors.AsType[ended](context.Cause(st.ctx))
	if !ok && s.stopping(st) {
		e = ended{Ending{CloseCode: websocket.CloseGoingAway}}
	}
	if e.Code != "" {
		data, _ := json.Marshal(map[string]string{"object": "ws_error", "code": e.Code, "message": e.Message}) // strings encode
		_ = write(c, websocket.TextMessage, data)                                                              // the close follows anyway
	}
	if e.CloseCode == 0 {
		_ = st.raw.Close() // an end without a word, or the peer has left already
		return
	}
	bye := websocket.FormatCloseMessage(e.CloseCode, e.Message)
	_ = c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(closeWait)) // best effort
	_ = c.SetReadDeadline(time.Now().Add(closeWait))
}

// stopping says whether the server's end ended the stream, rather than its
// client.
func (s *Server) stopping(st *stream) bool {
	return !errors.Is(context.Cause(st.ctx), errLeft)
}
