package downstream

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	inner "github.com/fasthttp/websocket"
	"github.com/gofiber/contrib/websocket"
	"github.com/gofiber/fiber/v2"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

const (
	writeTimeout = 10 * time.Second // of one write, on both transports
	// silence ends a WebSocket that has not even answered pings.
	silence = 60 * time.Second
	// closeWait is how long a client has to answer a close frame.
	closeWait      = 2 * time.Second
	maxMessage     = auth.MaxTokenBytes + 64 // bytes; a token and its wrapping
	maxCloseReason = 123                     // bytes, by RFC 6455
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
		w := &wsSink{conn: conn, raw: conn.NetConn(), done: make(chan struct{})}
		sess := s.newSession(a, w)
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

// A wsSink is the sink of a WebSocket. The library reads; frames are written
// here, so that those that wait together leave together.
type wsSink struct {
	conn *inner.Conn
	raw  net.Conn      // of conn
	done chan struct{} // closed when the reader has ended

	out outbox // for the session's goroutine only

	// For the reader only.
	window   time.Time // when the present messageWindow began
	messages int       // in it
	bytes    int       // in it
	pinged   time.Time // when a ping was last let pass
}

func (w *wsSink) start(s *session) error {
	if c, ok := accepted(w.raw); ok {
		c.framed = true
	}
	go w.readLoop(s)
	return nil
}

// Write writes whole frames, unless a close frame was sent. Safe for concurrent
// use.
func (w *wsSink) Write(frames []byte) (int, error) {
	if err := w.raw.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.raw.Write(frames)
}

// writeClose sends a close frame. A client that does not take it is closed
// anyway.
func (w *wsSink) writeClose(code int, reason string) { _, _ = w.Write(closeFrame(code, reason)) }

func (w *wsSink) add(frame []byte) error {
	if w.out.add(frame) {
		return w.out.flush(w)
	}
	return nil
}

func (w *wsSink) flush() error {
	if w.out.empty() {
		return nil
	}
	return w.out.flush(w)
}

func (w *wsSink) encoded(f *gateway.Frame, encode func(*gateway.Frame) any) error {
	frame, ok := f.Encoded(gateway.WS, encode).([]byte)
	if !ok {
		return errors.New("downstream: frame not encoded")
	}
	return w.add(frame)
}

func (w *wsSink) event(f *gateway.Frame, _ bool) error { return w.encoded(f, encodeWSEvent) }

func (w *wsSink) tip(f *gateway.Frame) error { return w.encoded(f, encodeWSTip) }

func encodeWSEvent(f *gateway.Frame) any { return textFrame(f.Event.Data) }

func encodeWSTip(f *gateway.Frame) any { return textFrame(encodeTip(f)) }

func encodeTip(f *gateway.Frame) []byte {
	return encodeControl(cursorControl{controlOf("tip"), cursorText(f.Cursor)})
}

func (w *wsSink) control(v any, _ string) error { return w.add(textFrame(encodeControl(v))) }

func (w *wsSink) ping() error { return w.add([]byte{0x80 | inner.PingMessage, 0}) }

func (w *wsSink) finish(s *session, e *ending) {
	if e.code != 0 {
		w.sayEnd(s, e)
		t := time.NewTimer(closeWait)
		defer t.Stop()
		select {
		case <-w.done: // the client has closed
		case <-t.C:
		}
	}
	w.abort()
	<-w.done
}

func (w *wsSink) sayEnd(s *session, e *ending) {
	switch {
	case e.retry > 0 && s.controls:
		_ = w.control(disconnectOf(e), "") // the close says the rest
	case e.retry == 0 && e.problem != nil:
		_ = w.add(textFrame(e.problem.frame()))
	}
	_ = w.flush() // fails with the close, then
	w.writeClose(e.code, e.reason)
}

func (w *wsSink) abort() { _ = w.conn.Close() } // nothing is left to lose

// readLoop reads until the client leaves or breaks a rule. Once the session has
// ended it only waits for the client's close frame.
func (w *wsSink) readLoop(s *session) {
	defer close(w.done)
	defer func() {
		if v := recover(); v != nil {
			s.server.panicked(v)
			s.end(ended(errInternal))
		}
	}()
	w.conn.SetReadLimit(maxMessage)
	if c, ok := accepted(w.conn.NetConn()); ok {
		c.receive = w.receive
	}
	w.heard()
	// The handlers return no error: it would stick to the connection, and with it
	// the client's close frame could not be read.
	w.conn.SetPongHandler(func(string) error {
		w.count(s)
		return nil
	})
	w.conn.SetPingHandler(func(data string) error {
		if w.count(s) {
			_, _ = w.Write(appendFrame(nil, inner.PongMessage, []byte(data))) // the next read or write fails too
		}
		return nil
	})
	w.conn.SetCloseHandler(func(code int, _ string) error {
		w.writeClose(code, "")
		return nil
	})
	for {
		kind, data, err := w.conn.ReadMessage()
		if err != nil {
			e := readEnding(err)
			s.end(e)
			if e.code != 0 {
				w.discard() // a close with bytes unread would reset the connection
			}
			return
		}
		if w.count(s) {
			w.pass(s, kind, data)
		}
	}
}

// pass hands a message to the session.
func (w *wsSink) pass(s *session, kind int, data []byte) {
	r, ok := parseRequest(data)
	if kind != inner.TextMessage || !ok {
		s.end(ended(errBadMessage))
		return
	}
	if now := time.Now(); r.ping {
		if now.Sub(w.pinged) < pingEvery {
			return
		}
		w.pinged = now
	}
	select {
	case s.requests <- r:
		s.wake()
	case <-s.ctx.Done():
	}
}

// count takes one message from the client's budget and notes that it lives. It
// is false when the session has ended.
func (w *wsSink) count(s *session) bool {
	if s.ctx.Err() != nil {
		return false
	}
	w.nextWindow()
	if w.messages++; w.messages > messagesPerWindow {
		s.end(ended(errTooManyMessages))
		return false
	}
	w.heard()
	return true
}

// receive takes n bytes from the client's budget.
func (w *wsSink) receive(n int) error {
	w.nextWindow()
	if w.bytes += n; w.bytes > bytesPerWindow {
		return errTooManyMessages
	}
	return nil
}

// nextWindow begins a new window if the present one is over.
func (w *wsSink) nextWindow() {
	if now := time.Now(); now.Sub(w.window) >= messageWindow {
		w.window, w.messages, w.bytes = now, 0, 0
	}
}

func (w *wsSink) heard() { _ = w.conn.SetReadDeadline(time.Now().Add(silence)) } // fails only when closed

func (w *wsSink) discard() {
	conn := w.conn.NetConn()
	if c, ok := accepted(conn); ok {
		c.receive = nil
	}
	_ = conn.SetReadDeadline(time.Now().Add(closeWait)) // fails only when closed
	_, _ = io.Copy(io.Discard, conn)                    // until the peer's close or the deadline
}

// readEnding says what an error of the reader means for the session.
func readEnding(err error) *ending {
	var closed *inner.CloseError
	var network net.Error
	switch {
	case errors.Is(err, inner.ErrReadLimit):
		return &ending{code: inner.CloseMessageTooBig, reason: "MESSAGE_TOO_BIG"}
	case errors.Is(err, errTooManyMessages):
		return ended(errTooManyMessages)
	case errors.As(err, &network) && network.Timeout():
		return errSilent
	case errors.As(err, &closed), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errClientGone
	}
	// What is left are frames against RFC 6455; the library has said so.
	return &ending{code: inner.CloseProtocolError, reason: "PROTOCOL_ERROR"}
}
