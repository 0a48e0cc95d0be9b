package downstream

import (
	"errors"
	"net"
	"sync"
	"time"

	inner "github.com/fasthttp/websocket"
	"github.com/gofiber/contrib/websocket"
	"github.com/gofiber/fiber/v2"

	"pepay-gateway/gateway"
)

const (
	// silence ends a WebSocket that has not even answered pings.
	silence = 60 * time.Second
	// closeWait is how long a client has to answer a close frame.
	closeWait      = 2 * time.Second
	maxCloseReason = 123 // bytes, by RFC 6455
	// A client may send messagesPerWindow messages, pings and pongs, and
	// bytesPerWindow bytes, in messageWindow. The bytes are for what is none of
	// the former: a message of ever more empty fragments.
	messagesPerWindow = 20
	bytesPerWindow    = 4 * maxMessage
	messageWindow     = 10 * time.Second
	pingEvery         = time.Second // answered at most this often

	wsReadBuffer  = 256 // clients send next to nothing
	wsWriteBuffer = 4096
	// maxRefusing bounds the refused clients that are being told so.
	maxRefusing = 1024

	admissionKey = "admission"
)

// serveWS returns the handler of the WebSocket endpoint.
func (s *Server) serveWS() fiber.Handler {
	upgrade := websocket.New(s.acceptWS, websocket.Config{
		Subprotocols:    []string{subprotocol},
		Origins:         []string{"*"}, // cors has looked; an empty list would allow everybody too
		ReadBufferSize:  wsReadBuffer,
		WriteBufferSize: wsWriteBuffer,
		WriteBufferPool: &sync.Pool{},
		RecoverHandler:  s.recoverWS,
	})
	return func(c *fiber.Ctx) error {
		if !websocket.IsWebSocketUpgrade(c) {
			return errUpgrade
		}
		origin, err := s.origin(c)
		if err != nil {
			return err
		}
		a := s.admitStream(c, gateway.WS, origin, time.Now())
		if a.refusal != nil && !s.tellsInBand(a) {
			return a.refusal
		}
		c.Locals(admissionKey, a)
		return upgrade(c)
	}
}

// tellsInBand says whether a refusal is told after the upgrade, because a page
// could not see it before. Past the handshake limit nobody gets that, and a
// browser would not take an answer without the subprotocol it asked for.
func (s *Server) tellsInBand(a *admission) bool {
	if a.refusal == errHandshakes || a.refusal == errSubprotocol {
		return false
	}
	return (a.origin != "" || a.offered) && s.refusing.Load() < maxRefusing
}

// acceptWS is called by the library after the upgrade, in a goroutine of its
// own. It keeps the inner connection alone: the library's wrapper serves another
// client once this returns.
func (s *Server) acceptWS(wrapper *websocket.Conn) {
	a := wrapper.Locals(admissionKey).(*admission)
	conn := wrapper.Conn
	if a.refusal == nil {
		w := &wsSink{}
		w.conn, w.ahead = takeOver(conn.NetConn())
		sess := s.newSession(a, w)
		w.sess = sess
		if a.refusal = s.streams.add(sess); a.refusal == nil {
			return
		}
		sess.end(errClientGone)
	}
	if !s.streams.spawn(func() { s.refuseWS(conn, a) }) {
		_ = conn.Close() // nobody is left to tell
	}
}

func (s *Server) recoverWS(wrapper *websocket.Conn) {
	if v := recover(); v != nil {
		s.panicked(v)
		if wrapper.Conn != nil {
			_ = wrapper.Conn.Close() // of no use any more
		}
	}
}

// refuseWS tells a client why it gets no stream.
func (s *Server) refuseWS(conn *inner.Conn, a *admission) {
	s.refusing.Add(1)
	defer s.refusing.Add(-1)
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
		_ = conn.Close() // the conversation is over
	}()
	s.counts.refused(a.refusal)
	s.log.Info("stream refused", "transport", "ws", "route", a.path, "ip", a.ip.String(), "reason", a.refusal.code)
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if a.offered && roomless(a.refusal) {
		_ = conn.WriteMessage(inner.TextMessage, encodeControl(disconnectOf(turnedAway(a.refusal))))
	}
	_ = conn.WriteMessage(inner.TextMessage, a.refusal.frame()) // the close below fails too, then
	writeClose(conn, a.refusal.close, a.refusal.code)
	_ = conn.SetReadDeadline(time.Now().Add(closeWait))
	conn.SetReadLimit(maxMessage)
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return
		}
	}
}

func writeClose(conn *inner.Conn, code int, reason string) {
	if len(reason) > maxCloseReason {
		reason = reason[:maxCloseReason]
	}
	// A client that does not take it is closed anyway.
	_ = conn.WriteControl(inner.CloseMessage, inner.FormatCloseMessage(code, reason), time.Now().Add(closeWait))
}

// A wsSink is the sink of a WebSocket. Frames are read and written here; of the
// library's connection only the handshake is used.
type wsSink struct {
	conn  net.Conn
	sess  *session
	ahead []byte // what came with the request

	out outbox // for the session's goroutine only

	// For the receiver only.
	frames   frameReader
	deaf     bool      // what comes now is not read any more
	window   time.Time // when the present messageWindow began
	messages int       // in it
	bytes    int       // in it
	pinged   time.Time // when a ping was last let pass

	mu      sync.Mutex    // guards the fields below
	answers []byte        // pongs that wait for the session to send them
	echo    int           // the code of the client's close frame; 0 while there is none
	left    bool          // the client has closed
	done    chan struct{} // closed when it has; nil while nobody waits
}

func (w *wsSink) start(s *session) error {
	s.alive()
	if ahead := w.ahead; ahead != nil {
		w.ahead = nil
		w.receive(ahead)
	}
	s.server.receive(w.conn, w)
	return nil
}

func (w *wsSink) waiting() int { return w.out.waiting() }

func (w *wsSink) flush(block bool) error {
	w.mu.Lock()
	answers := w.answers
	w.answers = nil
	w.mu.Unlock()
	if answers != nil {
		w.out.add(answers)
	}
	return w.out.flush(w.conn, block)
}

func (w *wsSink) encoded(f *gateway.Frame, encode func(*gateway.Frame) any) error {
	frame, ok := f.Encoded(gateway.WS, encode).([]byte)
	if !ok {
		return errors.New("downstream: frame not encoded")
	}
	w.out.add(frame)
	return nil
}

func (w *wsSink) event(f *gateway.Frame, _ bool) error { return w.encoded(f, encodeWSEvent) }

func (w *wsSink) tip(f *gateway.Frame) error { return w.encoded(f, encodeWSTip) }

func encodeWSEvent(f *gateway.Frame) any { return textFrame(f.Event.Data) }

func encodeWSTip(f *gateway.Frame) any { return textFrame(encodeTip(f)) }

func encodeTip(f *gateway.Frame) []byte {
	return encodeControl(cursorControl{controlOf("tip"), cursorText(f.Cursor)})
}

func (w *wsSink) control(v any, _ string) error {
	w.out.add(textFrame(encodeControl(v)))
	return nil
}

var pingFrame = []byte{0x80 | inner.PingMessage, 0}

func (w *wsSink) ping() error {
	w.out.add(pingFrame)
	return nil
}

func (w *wsSink) finish(s *session, e *ending) {
	if e.code != 0 {
		w.sayEnd(s, e)
		w.awaitClose()
	} else if echo := w.echoed(); echo != 0 {
		w.out.add(closeFrame(echo, ""))
		_ = w.flush(true) // closed anyway
	}
	w.abort()
}

func (w *wsSink) echoed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.echo
}

func (w *wsSink) sayEnd(s *session, e *ending) {
	switch {
	case e.retry > 0 && s.controls:
		_ = w.control(disconnectOf(e), "") // the close says the rest
	case e.retry == 0 && e.problem != nil:
		w.out.add(textFrame(e.problem.frame()))
	}
	_ = w.flush(true) // fails with the close, then
	w.out.add(closeFrame(e.code, e.reason))
	_ = w.flush(true) // a client that does not take it is closed anyway
}

// awaitClose waits for the client to close, for a while.
func (w *wsSink) awaitClose() {
	w.mu.Lock()
	left, done := w.left, make(chan struct{})
	w.done = done
	w.mu.Unlock()
	if left {
		return
	}
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

func (w *wsSink) abort() {
	_ = w.conn.Close() // nothing is left to lose
	w.closed(0)
}

// receive implements receiver: it reads until the client leaves or breaks a
// rule. Once the session has ended it only waits for the client to close.
func (w *wsSink) receive(p []byte) {
	if w.deaf {
		return // a close with bytes unread would reset the connection
	}
	defer func() {
		if v := recover(); v != nil {
			w.sess.server.panicked(v)
			w.refuse(ended(errInternal))
		}
	}()
	w.nextWindow()
	if w.bytes += len(p); w.bytes > bytesPerWindow {
		w.refuse(ended(errTooManyMessages))
		return
	}
	switch err := w.frames.read(p, w.frame); err {
	case nil:
	case errTooLong:
		w.refuse(&ending{code: inner.CloseMessageTooBig, reason: "MESSAGE_TOO_BIG"})
	default:
		w.refuse(&ending{code: inner.CloseProtocolError, reason: "PROTOCOL_ERROR"})
	}
}

// refuse ends the session and reads nothing more.
func (w *wsSink) refuse(e *ending) {
	w.deaf = true
	w.frames = frameReader{}
	w.sess.end(e)
}

// gone implements receiver.
func (w *wsSink) gone() { w.leave(0) }

func (w *wsSink) leave(echo int) {
	w.deaf = true
	w.closed(echo)
}

// closed notes that nothing comes from the client any more, and with what code
// it has closed, if it has. The first call counts.
func (w *wsSink) closed(echo int) {
	w.mu.Lock()
	if !w.left {
		w.left, w.echo = true, echo
	}
	if w.done != nil {
		close(w.done)
		w.done = nil
	}
	w.mu.Unlock()
	w.sess.end(errClientGone)
}

// frame takes one message or control frame. It is false when no more must be
// read.
func (w *wsSink) frame(f clientFrame) bool {
	if f.kind == inner.CloseMessage {
		code, err := closeCode(f.data)
		if err != nil {
			w.refuse(&ending{code: inner.CloseProtocolError, reason: "PROTOCOL_ERROR"})
			return false
		}
		w.leave(code)
		return false
	}
	if !w.count() {
		return !w.deaf
	}
	switch f.kind {
	case inner.PongMessage:
	case inner.PingMessage:
		w.mu.Lock()
		w.answers = appendFrame(w.answers, inner.PongMessage, f.data)
		w.mu.Unlock()
		w.sess.wake()
	default:
		w.pass(f)
	}
	return true
}

// pass hands a message to the session.
func (w *wsSink) pass(f clientFrame) {
	r, ok := parseRequest(f.data)
	if f.kind != inner.TextMessage || !ok {
		w.sess.end(ended(errBadMessage))
		return
	}
	if now := time.Now(); r.ping {
		if now.Sub(w.pinged) < pingEvery {
			return
		}
		w.pinged = now
	}
	w.sess.post(r)
}

// count takes one message from the client's budget and notes that it lives. It
// is false when the session has ended.
func (w *wsSink) count() bool {
	if w.sess.ctx.Err() != nil {
		return false
	}
	if w.messages++; w.messages > messagesPerWindow {
		w.sess.end(ended(errTooManyMessages))
		return false
	}
	w.sess.alive()
	return true
}

// nextWindow begins a new window if the present one is over.
func (w *wsSink) nextWindow() {
	if now := time.Now(); now.Sub(w.window) >= messageWindow {
		w.window, w.messages, w.bytes = now, 0, 0
	}
}
