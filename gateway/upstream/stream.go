package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/fasthttp/websocket"

	"pepay-gateway/gateway"
	"pepay-gateway/gateway/socket"
)

const (
	handshakeTimeout = 15 * time.Second
	// maxHandshakeBytes bounds the answer to the upgrade, TLS included.
	maxHandshakeBytes = 256 << 10
	// readLimitBytes lets an event of gateway.MaxEventBytes through with whatever
	// white space is around it.
	readLimitBytes = gateway.MaxEventBytes + 64<<10
	controlTimeout = 5 * time.Second
	closeTimeout   = time.Second
	// readBufferBytes is what one read from the socket takes at most: when it is
	// full there is more.
	readBufferBytes = 64 << 10
)

var errOverflow = errors.New("buffer full during the backfill")

// A frame is one message as read.
type frame struct {
	data     []byte
	binary   bool
	received time.Time
}

// A hand takes frames over from a stream, on the goroutine that reads: while it
// blocks, nothing is read, which is the backpressure onto the socket. The slice is
// the stream's own. more says that the next frames are there already. After an
// error nothing is read any more.
type hand func(frames []frame, more bool) error

// A stream is one open socket. It begins holding what it reads: it reads on, so
// that the upstream sees a fast client, until its buffer is full, and then
// closes. After handTo it holds nothing any more.
type stream struct {
	conn   *websocket.Conn
	tune   *tuning
	wg     sync.WaitGroup
	stop   chan struct{} // closed by close
	notice chan struct{} // cap 1: reading ended, or whoever was handed frames says so

	// Touched by readLoop only.
	buf   bytes.Buffer // the frame being read
	ready []frame      // read and not handed over yet

	mu     sync.Mutex // guards the fields below
	hand   hand       // nil: hold
	frames []frame    // held
	bytes  int        // held
	err    error      // why reading ended
}

// dial opens the stream. It returns the time by the upstream's clock, zero when
// unknown. The error is a *failure.
func (s *Source) dial(ctx context.Context, token secret, since string) (*stream, time.Time, error) {
	u := *s.ws
	q := url.Values{"format": {"event_v1"}}
	header := http.Header{}
	if s.byKey {
		header.Set("X-Api-Key", s.key.reveal())
	} else {
		q.Set("token", token.reveal())
	}
	if len(s.types) > 0 {
		q.Set("types", strings.Join(s.types, ","))
	}
	if since != "" {
		q.Set("since", since)
	}
	u.RawQuery = q.Encode()

	g := &guard{caller: ctx}
	d := websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		NetDialContext:   g.dial,
		ReadBufferSize:   readBufferBytes,
		TLSClientConfig:  s.tls,
		HandshakeTimeout: handshakeTimeout,
	}
	conn, resp, err := d.DialContext(ctx, u.String(), header)
	if err != nil {
		g.lift()
		return nil, time.Time{}, s.dialError(resp, err, token, since != "")
	}
	if !g.lift() || resp.Header.Get("Sec-Websocket-Extensions") != "" {
		// The read limit counts compressed bytes, so compression that we never
		// asked for would be a way around it.
		_ = conn.Close()
		return nil, time.Time{}, &failure{class: down, text: "dial: interrupted, or an extension nobody asked for"}
	}
	date, _ := http.ParseTime(resp.Header.Get("Date")) // zero when there is none
	return newStream(conn, g, &s.tune), date, nil
}

func (s *Source) dialError(resp *http.Response, err error, token secret, since bool) *failure {
	if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) || resp.StatusCode == http.StatusSwitchingProtocols {
		return &failure{class: down, text: "dial: " + redact(err.Error(), s.key, token)}
	}
	body := make([]byte, 1024) // the library kept no more
	n, _ := resp.Body.Read(body)
	f := classify("dial", resp.StatusCode, resp.Header, body[:n], since, time.Now())
	f.text = redact(f.text, s.key, token)
	return f
}

// A guard is between the dialer and its connection: the library bounds neither
// the size of the answer to a handshake nor lets a context interrupt it, nor
// does it tell when it is about to wait for more.
type guard struct {
	net.Conn
	caller context.Context       // the dialer's own one ends with every handshake
	left   int                   // bytes the handshake may still read; < 0: no limit
	detach func() bool           // from caller
	before func(more bool) error // called before each read, once the handshake is over
	filled bool                  // the last read took all there was room for
}

func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	g.Conn, g.left = socket.Wrap(conn), maxHandshakeBytes
	g.detach = context.AfterFunc(g.caller, func() { _ = conn.Close() })
	return g, nil
}

// lift ends the guarding. It says whether the connection is still good.
func (g *guard) lift() bool {
	g.left = -1
	return g.detach == nil || g.detach()
}

func (g *guard) Read(p []byte) (int, error) {
	if g.left < 0 {
		if g.before != nil {
			if err := g.before(g.filled); err != nil {
				return 0, err
			}
		}
		n, err := g.Conn.Read(p)
		g.filled = n == len(p)
		return n, err
	}
	if g.left == 0 {
		return 0, fmt.Errorf("handshake answer over %d bytes", maxHandshakeBytes)
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

func newStream(conn *websocket.Conn, g *guard, tune *tuning) *stream {
	st := &stream{conn: conn, tune: tune, stop: make(chan struct{}), notice: make(chan struct{}, 1)}
	g.before = st.handOver
	conn.SetReadLimit(readLimitBytes)
	conn.SetPongHandler(func(string) error { return st.extend() })
	answer := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		if err := st.extend(); err != nil {
			return err
		}
		return answer(data)
	})
	st.wg.Go(st.readLoop)
	st.wg.Go(st.pingLoop)
	return st
}

// close ends the socket and waits for its goroutines.
func (st *stream) close() {
	close(st.stop)
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = st.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(closeTimeout)) // courtesy
	_ = st.conn.Close()
	st.wg.Wait()
}

func (st *stream) extend() error {
	return st.conn.SetReadDeadline(time.Now().Add(st.tune.silence))
}

func (st *stream) readLoop() {
	for {
		err := st.readOnce()
		if err == nil {
			continue
		}
		_ = st.handReady(false) // a close frame may follow others at once; whose error it is, knows of it
		st.mu.Lock()
		st.err = err
		st.mu.Unlock()
		wake(st.notice)
		// The socket is of no use any more; the upstream should know at once, for
		// a backfill may take minutes.
		_ = st.conn.Close()
		return
	}
}

// readOnce reads one frame. What is ready is handed over when the next one is
// not there yet, or when it is a batch.
func (st *stream) readOnce() error {
	if len(st.ready) >= putEvents {
		if err := st.handOver(true); err != nil {
			return err
		}
	}
	kind, r, err := st.conn.NextReader()
	if err != nil {
		return err
	}
	st.buf.Reset()
	if _, err := st.buf.ReadFrom(r); err != nil {
		return err
	}
	data := bytes.Clone(st.buf.Bytes()) // as long as it must be: an event keeps it
	st.ready = append(st.ready, frame{data: data, binary: kind != websocket.TextMessage, received: time.Now()})
	return nil
}

// handOver hands over, or holds, what was read. The time that this takes is not
// the upstream's silence.
func (st *stream) handOver(more bool) error {
	if err := st.handReady(more); err != nil {
		return err
	}
	return st.extend()
}

func (st *stream) handReady(more bool) error {
	if len(st.ready) == 0 {
		return nil
	}
	frames := st.ready
	defer func() {
		clear(frames)
		st.ready = frames[:0]
	}()
	st.mu.Lock()
	take := st.hand
	if take == nil {
		for _, f := range frames {
			st.bytes += len(f.data)
		}
		st.frames = append(st.frames, frames...)
	}
	overflow := len(st.frames) >= st.tune.holdFrames || st.bytes >= st.tune.holdBytes
	st.mu.Unlock()
	switch {
	case take != nil:
		return take(frames, more)
	case overflow:
		return errOverflow
	}
	return nil
}

func (st *stream) pingLoop() {
	t := time.NewTicker(st.tune.ping)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_ = st.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(controlTimeout)) // silence will tell
		case <-st.stop:
			return
		}
	}
}

// handTo ends the holding: what is read from now on goes to h. It returns what was
// held; h must not take anything before that is dealt with.
func (st *stream) handTo(h hand) []frame {
	st.mu.Lock()
	defer st.mu.Unlock()
	frames := st.frames
	st.hand, st.frames, st.bytes = h, nil, 0
	return frames
}

// held returns what is held.
func (st *stream) held() []frame {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.frames[:len(st.frames):len(st.frames)]
}

// ended returns why reading ended, or nil.
func (st *stream) ended() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
