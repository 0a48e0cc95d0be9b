package downstream

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

// A plainLog is a log that has a leader and holds what the test puts there.
type plainLog struct {
	gateway.Log // of which nothing else is called

	mu       sync.Mutex // guards the fields below
	entries  []gateway.Entry
	announce func(gateway.Announcement)
	asked    func() // may be nil
}

func (l *plainLog) Ask(context.Context, gateway.Ask) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked != nil {
		l.asked()
	}
	return nil
}

func (l *plainLog) Read(_ context.Context, from gateway.ReadFrom, count int) (gateway.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tip := uint64(len(l.entries))
	p := gateway.Page{
		Start: from.Pos, Tip: tip, Leader: "1-1", Key: strings.Repeat("k", gateway.CursorKeyBytes),
		Health: gateway.Health{State: gateway.Live, Since: time.Now()},
	}
	if from.Tip || from.Pos.IsNone() {
		p.Start = gateway.Position{Epoch: 1, Seq: tip}
	}
	p.Entries = l.entries[p.Start.Seq:min(tip, p.Start.Seq+uint64(count))]
	return p, nil
}

func (l *plainLog) Tail(ctx context.Context, _ bool, f func(gateway.Announcement)) error {
	l.mu.Lock()
	l.announce = f
	l.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

// put announces one more event.
func (l *plainLog) put() *gateway.Event {
	ev := event("order_1", "alice")
	l.mu.Lock()
	from := uint64(len(l.entries))
	l.entries = append(l.entries, gateway.Entry{Seq: from + 1, Epoch: 1, Event: ev})
	entries, announce := l.entries[from:], l.announce
	l.mu.Unlock()
	announce(gateway.Announcement{Epoch: 1, From: from, Entries: entries})
	return ev
}

// A still is a server without a listener, for a bubble: time passes as the test
// has it pass.
type still struct {
	testing.TB
	server *Server
	log    *plainLog
}

func newStill(t *testing.T) *still {
	t.Helper()
	v := startStill(t)
	synctest.Wait()
	return v
}

func startStill(t *testing.T) *still {
	t.Helper()
	v := &still{TB: t, log: &plainLog{}}
	node := gateway.NewNode(v.log, gateway.NodeConfig{})
	v.server = New(Config{}, node, nil, auth.APIKeys{}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = node.Run(ctx)
	}()
	t.Cleanup(func() {
		v.server.streams.close()
		stop()
		<-ran
	})
	return v
}

// session begins an account's stream that ends after lasts.
func (v *still) session(to sink, controls bool, lasts time.Duration) *session {
	v.Helper()
	s := v.server.newSession(&admission{
		transport: gateway.WS, ip: netip.IPv6Loopback(), controls: controls,
		grant: grant{scope: gateway.Scope{Account: true}, kind: auth.KindStream, sessions: time.Now().Add(lasts)},
	}, to)
	if w, ok := to.(*wsSink); ok {
		w.sess = s
	}
	if p := v.server.streams.add(s); p != nil {
		v.Fatalf("add = %v, want nil", p.code)
	}
	synctest.Wait()
	return s
}

// ws begins a WebSocket and returns its client's end.
func (v *still) ws(controls bool) *rawSocket {
	v.Helper()
	near, far := net.Pipe()
	v.Cleanup(func() { _ = far.Close() })
	go v.session(&wsSink{conn: near}, controls, time.Hour)
	return &rawSocket{t: v.TB, conn: far, in: bufio.NewReader(far)}
}

// A client that only reads is asked for a sign of life in time, whatever it
// speaks, and lives as long as it answers. One that does not answer is left
// after a minute.
func TestSilentClientIsAskedThenLeft(t *testing.T) {
	for name, tt := range map[string]struct {
		controls bool
		within   time.Duration // between two pings
	}{"ours": {true, 30 * time.Second}, "Pepay's": {false, 25 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newStill(t)
				c := v.ws(tt.controls)
				began, heard := time.Now(), time.Now()
				asked := began
				for {
					op, payload, err := c.read()
					now := time.Now()
					if err != nil {
						if silent := now.Sub(heard); silent < silence || silent > silence+2*beatTick {
							t.Errorf("left after %v of silence, want %v", silent, silence)
						}
						break
					}
					if op != opPing {
						continue
					}
					if d := now.Sub(asked); d > tt.within+2*beatTick {
						t.Errorf("%v between two pings, want %v", d, tt.within)
					}
					asked = now
					if now.Sub(began) > 5*time.Minute {
						continue // it falls silent
					}
					if _, err := c.conn.Write(pong(payload).bytes()); err != nil {
						t.Fatalf("after %v: %v, want a client that answers to live", now.Sub(began), err)
					}
					heard = now
				}
				if lived := heard.Sub(began); lived < 4*time.Minute {
					t.Errorf("the last answer was taken after %v, want 5 minutes", lived)
				}
				synctest.Wait()
				if ws, _, _ := v.server.streams.open(); ws != 0 {
					t.Errorf("%d streams are left, want none", ws)
				}
			})
		})
	}
}

// Every other heartbeat asks, also one that is a little early: the next is far
// away.
func TestEveryOtherHeartbeatAsks(t *testing.T) {
	to := &pingSink{}
	s := &session{admission: &admission{}, sink: to, server: &Server{cfg: Config{Heartbeat: 15 * time.Second}}}
	s.controls = true
	s.pinged = time.Now().Add(-s.server.cfg.Heartbeat)
	if err := s.heartbeat(false); err != nil || to.pings != 0 {
		t.Errorf("%d pings and %v by the heartbeat after one that asked, want none", to.pings, err)
	}
	s.pinged = time.Now().Add(-2*s.server.cfg.Heartbeat + 2*beatTick)
	if err := s.heartbeat(false); err != nil || to.pings != 1 {
		t.Errorf("%d pings and %v by a heartbeat that is early by two ticks, want 1", to.pings, err)
	}
}

// A pingSink counts pings.
type pingSink struct {
	listSink
	pings int
}

func (p *pingSink) ping() error {
	p.pings++
	return nil
}

// A slugSink takes 9 s for every flush once it is slow, and says when the stream
// ended.
type slugSink struct {
	listSink
	slow  atomic.Bool
	ended chan *ending
}

func (*slugSink) waiting() int                   { return joinedBytes }
func (c *slugSink) finish(_ *session, e *ending) { c.ended <- e }
func (c *slugSink) flush(block bool) error {
	switch {
	case !c.slow.Load():
	case !block:
		return errWouldBlock
	default:
		time.Sleep(9 * time.Second)
	}
	return nil
}

// A client so slow that its session does not come to wait must not outlive its
// token.
func TestSessionEndsInTheMidstOfWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newStill(t)
		to := &slugSink{ended: make(chan *ending, 1)}
		const lasts = 90 * time.Second
		began := time.Now()
		v.session(to, true, lasts)
		to.slow.Store(true)
		w, burst := v.server.wheel, sync.OnceFunc(func() {
			for range gateway.QueueFrames - 4 {
				v.log.put()
			}
		})
		w.mu.Lock()
		fired := w.fired
		w.fired = func(due func()) {
			fired(func() {
				due() // its heartbeat: nothing else will look at the clock
				burst()
			})
		}
		w.mu.Unlock()
		e := <-to.ended
		if late := time.Since(began) - lasts; e.reason != errSessionEnded.code || late < 0 || late > 11*time.Second {
			t.Errorf("ended with %s, %v after the session; want %s, within a write", e.reason, late, errSessionEnded.code)
		}
	})
}

// A replay may take longer than the session: the client is told in time that it
// ends, and the token it sends then counts, as it does at any other time.
func TestTokenInTheMidstOfAReplay(t *testing.T) {
	for name, tt := range map[string]struct {
		token  func(*auth.Keyring) (string, error)
		reason string // of the end; "" for none
	}{
		"good": {func(keys *auth.Keyring) (string, error) {
			now := time.Now()
			return keys.Mint(auth.Claims{
				Kind: auth.KindStream, Account: true, IssuedAt: now, ExpiresAt: now.Add(time.Minute), SessionExpiresAt: now.Add(12 * time.Hour),
			})
		}, ""},
		"bad": {func(*auth.Keyring) (string, error) { return "no.good.token", nil }, errTokenInvalid.code},
		"another's": {func(keys *auth.Keyring) (string, error) {
			now := time.Now()
			return keys.Mint(auth.Claims{
				Kind: auth.KindStream, Customer: "bob", IssuedAt: now, ExpiresAt: now.Add(time.Minute), SessionExpiresAt: now.Add(time.Hour),
			})
		}, errWiderToken.code},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replayWithToken(t, tt.token, tt.reason) })
		})
	}
}

func replayWithToken(t *testing.T, mint func(*auth.Keyring) (string, error), reason string) {
	v := newStill(t)
	key, err := auth.SecretKey("", bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	if v.server.keys, err = auth.NewKeyring(key); err != nil {
		t.Fatal(err)
	}
	to := &slugSink{ended: make(chan *ending, 1)}
	// 9 s each, and the queue is full before the end: the rest is a replay.
	const lasts, events = 20 * time.Minute, 4 * gateway.QueueFrames
	s := v.session(to, true, lasts)
	to.wrote = func(kind string) {
		if kind != "token_expiring" {
			return
		}
		token, err := mint(v.server.keys)
		if err != nil {
			t.Error(err)
		}
		s.post(request{token: token})
	}
	to.slow.Store(true)
	for range events {
		v.log.put()
	}
	select {
	case e := <-to.ended:
		if e.reason != reason || time.Since(s.started) >= lasts {
			t.Fatalf("ended with %s after %v and %d events, want %q", e.reason, time.Since(s.started), len(to.events), reason)
		}
	case <-time.After((events + 5) * 9 * time.Second):
		if reason != "" || len(to.events) != events {
			t.Errorf("%d events came and no end, want %d and %q", len(to.events), events, reason)
		}
	}
	seen := map[string]bool{}
	for _, id := range to.events {
		if seen[id] {
			t.Errorf("%s came twice", id)
		}
		seen[id] = true
	}
}

// The wheel turns by the monotonic clock: what is due by the wall clock must
// not be missed when somebody sets that back.
func TestDueTimesAreMonotonic(t *testing.T) {
	s := &session{started: time.Now()}
	s.expires.Store(time.Now().Add(time.Second).UnixNano())
	if due := s.nextDue(); due == due.Round(0) {
		t.Errorf("nextDue() = %v, want it with a monotonic reading", due)
	}
	if s.alive(); time.Duration(s.heard.Load()) > silence {
		t.Errorf("heard at %v, want the time since the stream began: if clocks are set forward nobody is silent", time.Duration(s.heard.Load()))
	}
}

// To ask for a look-up takes as long as the log does: what is ready to be sent
// must not wait for it.
func TestEventsDoNotWaitForALookUp(t *testing.T) {
	v := startStill(t)
	to, before := &flushCounter{}, -1
	v.log.asked = func() { before = to.flushes }
	s := v.server.newSession(&admission{grant: grant{sessions: time.Now().Add(time.Hour)}}, to)
	s.asks, s.askAt = map[gateway.Ask]struct{}{{Order: "order_1"}: {}}, time.Now()
	s.mayBlock, s.over = true, true // it is not to be told of anything
	if _, err := s.serveClock(true, time.Now()); err != nil {
		t.Fatal(err)
	}
	if before != 1 {
		t.Errorf("%d flushes before the look-up was asked for, want 1", before)
	}
}
