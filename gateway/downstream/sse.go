package downstream

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"pepay-gateway/gateway"
)

const (
	lastEventID = "Last-Event-ID"
	endPrefix   = "end_" // of the ids of streams that must not come back
	// Browsers wait this long before they reconnect: at random, so that those who
	// lost a node together do not reach the next one together.
	minRetry = 2 * time.Second
	maxRetry = 4 * time.Second
	// maxTrailing is what an SSE client may send after its request: nothing.
	maxTrailing = 4 << 10
)

// neverAgain ends a native EventSource: 204 is the one answer after which it
// does not reconnect and reports no error worth retrying.
func (s *Server) neverAgain(c *fiber.Ctx) error {
	if !strings.HasPrefix(c.Get(lastEventID), endPrefix) {
		return c.Next()
	}
	setPrivate(c)
	c.Set(fiber.HeaderVary, fiber.HeaderOrigin)
	if origin, err := s.origin(c); err == nil && origin != "" {
		c.Set(fiber.HeaderAccessControlAllowOrigin, origin)
	}
	return c.SendStatus(fiber.StatusNoContent)
}

// serveSSE takes the connection over: the library's own streaming sees neither
// a client that leaves nor one that does not read.
func (s *Server) serveSSE(c *fiber.Ctx) error {
	origin, err := s.origin(c)
	if err != nil {
		return err
	}
	a := s.admitStream(c, gateway.SSE, origin, time.Now())
	if a.refusal != nil && !roomless(a.refusal) {
		return a.refusal
	}
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(conn net.Conn) { s.acceptSSE(conn, a) })
	return nil
}

// acceptSSE is called by the library in a goroutine of its own.
func (s *Server) acceptSSE(conn net.Conn, a *admission) {
	if a.refusal == nil {
		e := &sseSink{}
		e.conn, e.ahead = takeOver(conn)
		sess := s.newSession(a, e)
		e.sess = sess
		if a.refusal = s.streams.add(sess); a.refusal == nil {
			return
		}
		sess.end(errClientGone)
	}
	if !s.streams.spawn(func() { s.refuseSSE(conn, a) }) {
		_ = conn.Close() // nobody is left to tell
	}
}

// refuseSSE sends a client away for a while. Any status but 200 would end a
// native EventSource for good.
func (s *Server) refuseSSE(conn net.Conn, a *admission) {
	defer func() { _ = conn.Close() }() // the conversation is over
	s.counts.refused(a.refusal)
	s.log.Info("stream refused", "transport", "sse", "route", a.path, "ip", a.ip.String(), "reason", a.refusal.code)
	e := turnedAway(a.refusal)
	out := appendRetry(sseHeader(a.origin), e.retry)
	out = appendBlock(out, "", "control", encodeControl(disconnectOf(e)))
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails only when closed
	_, _ = conn.Write(out)                                  // who does not take it comes back anyway
}

// sseHeader is the head of the answer, which we write ourselves.
func sseHeader(origin string) []byte {
	h := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n" +
		"X-Accel-Buffering: no\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n" +
		"Vary: Origin\r\nConnection: close\r\nDate: ")
	h = time.Now().UTC().AppendFormat(h, http.TimeFormat)
	if origin != "" { // one of the configured ones
		h = append(append(h, "\r\nAccess-Control-Allow-Origin: "...), origin...)
		h = append(h, "\r\nAccess-Control-Expose-Headers: "+exposedHeaders...)
	}
	return append(h, "\r\n\r\n"...)
}

// An sseSink is the sink of Server-Sent Events.
type sseSink struct {
	conn  net.Conn
	sess  *session
	ahead []byte // what came with the request

	out  outbox // for the session's goroutine only
	read int    // bytes, for the receiver only
}

func (e *sseSink) start(s *session) error {
	e.out.add(appendRetry(sseHeader(s.origin), minRetry+rand.N(maxRetry-minRetry)))
	if ahead := e.ahead; ahead != nil {
		e.ahead = nil
		e.receive(ahead)
	}
	s.server.receive(e.conn, e)
	return nil
}

// receive implements receiver: after its request a client sends nothing.
func (e *sseSink) receive(p []byte) {
	if e.read += len(p); e.read >= maxTrailing {
		e.gone()
	}
}

// gone implements receiver.
func (e *sseSink) gone() { e.sess.end(errClientGone) }

func (e *sseSink) waiting() int { return e.out.waiting() }

func (e *sseSink) flush(block bool) error { return e.out.flush(e.conn, block) }

func (e *sseSink) add(block []byte) error {
	e.out.add(block)
	return nil
}

func (e *sseSink) event(f *gateway.Frame, bare bool) error {
	if bare && f.Cursor != "" {
		return e.add(appendBlock(nil, "", "", f.Event.Data))
	}
	return e.encoded(f, encodeSSEEvent)
}

func (e *sseSink) tip(f *gateway.Frame) error { return e.encoded(f, encodeSSETip) }

func (e *sseSink) encoded(f *gateway.Frame, encode func(*gateway.Frame) any) error {
	block, ok := f.Encoded(gateway.SSE, encode).([]byte)
	if !ok {
		return errors.New("downstream: frame not encoded")
	}
	return e.add(block)
}

func encodeSSEEvent(f *gateway.Frame) any {
	return appendBlock(make([]byte, 0, len(f.Event.Data)+64), f.Cursor, "", f.Event.Data)
}

func encodeSSETip(f *gateway.Frame) any { return appendBlock(nil, f.Cursor, "control", encodeTip(f)) }

func (e *sseSink) control(v any, cursor string) error {
	return e.add(appendBlock(nil, cursor, "control", encodeControl(v)))
}

// ping does nothing: every write is one.
func (e *sseSink) ping() error { return nil }

func (e *sseSink) finish(_ *session, end *ending) {
	if out := encodeSSEEnd(end); out != nil {
		e.out.add(out)
		_ = e.flush(true) // closed anyway
	}
	e.abort()
}

func encodeSSEEnd(e *ending) []byte {
	switch {
	case e.retry > 0:
		return appendBlock(appendRetry(nil, e.retry), "", "control", encodeControl(disconnectOf(e)))
	case e.problem != nil && e.problem.final:
		return appendBlock(nil, endPrefix+strconv.Itoa(e.code), "error_frame", e.problem.frame())
	case e.problem != nil:
		return appendBlock(nil, "", "error_frame", e.problem.frame())
	}
	return nil
}

func (e *sseSink) abort() {
	_ = e.conn.Close() // nothing is left to lose
	e.gone()
}
