package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"

	"pepay-gateway/gateway"
)

const resyncFrame = `{"object":"ws_control","type":"resync"}`

// What the upstream dropped may be listed later than it says so.
func TestResyncIsLookedAfterWhileRESTLags(t *testing.T) {
	f := newFake(t)
	f.add(1)
	now := make(chan struct{})
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		<-now
		send(ws, resyncFrame, fakeEvent(3)) // 2 was dropped
		readAll(ws)
	}
	f.onList = func(n int, c *fasthttp.RequestCtx) bool {
		f.list(c)
		if n == 3 { // what the control frame called for
			f.add(2, 3)
		}
		return true
	}
	s, k := newSource(t, f), &sink{}
	s.tune.sweeps = []time.Duration{50 * time.Millisecond}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "the connection's own look", func() bool { _, lists, _ := f.seen(); return len(lists) == 2 && k.is(gateway.Live) })
	close(now)
	waitFor(t, "event 2, which was listed late", func() bool { return k.has(ids(2, 3)...) })
}

// A connection that ended before its last look leaves that to the next, whether it
// is due by then or not.
func TestLookThatWasNotHadIsHadByTheNextConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		last, away time.Duration
		late       bool // listed only after the next has caught up
	}{
		"due later": {2 * time.Second, 0, true},
		"overdue":   {300 * time.Millisecond, 400 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.add(100)
			f.onStream = func(n int, ws *websocket.Conn, _ string) {
				if n == 1 {
					waitFor(t, "the first look", func() bool { _, lists, _ := f.seen(); return len(lists) == 2 })
					send(ws, fakeEvent(130))
					hangUp(ws, 1012)
					return
				}
				if tt.late {
					waitFor(t, "the second to catch up", func() bool { _, lists, _ := f.seen(); return len(lists) > 2 })
					f.add(60)
				}
				readAll(ws)
			}
			f.onDial = func(n int, _ *fasthttp.RequestCtx) bool {
				if n == 2 {
					time.Sleep(tt.away)
					f.add(130)
				}
				if n == 2 && !tt.late {
					f.add(60) // not in the stream
				}
				return false
			}
			s, k := newSource(t, f), &sink{}
			s.tune.sweeps = []time.Duration{50 * time.Millisecond, tt.last}
			start(t, s, fakeCursor(100), k)
			waitFor(t, "event 60", func() bool { return k.has(fakeID(60)) })
			if _, _, dials := f.seen(); len(dials) != 2 {
				t.Errorf("dials = %d, want 2", len(dials))
			}
		})
	}
}

// Nobody knows whether who led before had its last look.
func TestFirstConnectionOfATermLooksBackForTheOneBefore(t *testing.T) {
	f := newFake(t)
	s, k := newSource(t, f), &sink{}
	f.add(100)
	s.tune.sweeps = []time.Duration{time.Hour, 2 * time.Hour}
	start(t, s, fakeCursor(100), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	_, lists, _ := f.seen()
	if want := fmt.Sprint(base + 100 - 60 - 7200); !strings.Contains(lists[0], want) {
		t.Errorf("first list = %s, want from %s, the overlap and the last look before the cursor", lists[0], want)
	}
}

// withDate puts a server that tells the time in front of what is no stream.
func (f *fakePepay) withDate(now time.Time) func(*Config) {
	front := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: f.addr})
	front.Transport = &http.Transport{DisableKeepAlives: true}
	front.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Set("Date", now.UTC().Format(http.TimeFormat))
		return nil
	}
	rest := httptest.NewServer(front)
	f.tb.Cleanup(rest.Close)
	return func(c *Config) { c.APIURL = rest.URL }
}

const futureID = "evt_4102444800000-1"

// From a time that has not come, all until then would count as had.
func TestCursorDoesNotFollowAnEventFromTheFuture(t *testing.T) {
	f := newFake(t)
	f.add(1)
	future := `{"id":"` + futureID + `","object":"event","created":4102444800,"type":"invoice.updated"}`
	f.onDial = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 2 {
			f.add(2)
		}
		return false
	}
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			f.addRaw(futureID, 4102444800, future)
			send(ws, future)
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f, f.withDate(time.Unix(base+10, 0))), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "both", func() bool { return k.has(futureID, fakeID(2)) && k.is(gateway.Live) })
	if _, _, dials := f.seen(); !strings.Contains(dials[1], "since="+fakeID(1)) {
		t.Errorf("second dial = %s, want since=%s", dials[1], fakeID(1))
	}
}

// Nor where the upstream does not tell the time, and later events go on from where
// the cursor was.
func TestCursorDoesNotFollowAnEventFromTheFutureWithoutADate(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onDial = func(n int, _ *fasthttp.RequestCtx) bool {
		if n == 2 {
			f.add(2, 3, 4) // 4 while nobody was there
		}
		return false
	}
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			send(ws, `{"id":"`+futureID+`","object":"event","created":4102444800,"type":"invoice.updated"}`, fakeEvent(2), fakeEvent(3))
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "event 4", func() bool { return k.has(futureID, fakeID(4)) })
}

// When all events are ahead of its clock, it is the clock that is wrong, and lists
// begin where that is.
func TestCursorFollowsWhereClocksDiffer(t *testing.T) {
	f := newFake(t)
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			send(ws, fakeEvent(7200), fakeEvent(7201), fakeEvent(7202))
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f, f.withDate(time.Unix(base+10, 0))), &sink{}
	f.add(0)
	start(t, s, fakeCursor(0), k)
	waitFor(t, "a second connection", func() bool { _, _, dials := f.seen(); return len(dials) == 2 && k.is(gateway.Live) })
	_, lists, dials := f.seen()
	if !strings.Contains(dials[1], "since="+fakeID(7202)) {
		t.Errorf("second dial = %s, want since=%s", dials[1], fakeID(7202))
	}
	query, err := url.ParseQuery(lists[len(lists)-1])
	if from, err2 := strconv.ParseInt(query.Get("created[gte]"), 10, 64); err != nil || err2 != nil || from < base+10-60 || from > base+3600 {
		t.Errorf("list = %v, want from a minute before the upstream's clock", query)
	}
}

// A little ahead is followed, but lists begin now, whoever tells the time.
func TestEventALittleAheadHidesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		now, ahead int // after base
		dated      bool
	}{
		"by the upstream's clock": {10, 800, true},
		"by ours":                 {int(time.Now().Unix() - base), 20 * 3600, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.add(tt.now - 30)
			f.onDial = func(n int, _ *fasthttp.RequestCtx) bool {
				if n == 2 {
					f.add(tt.now - 5) // while nobody was there
				}
				return false
			}
			f.onStream = func(n int, ws *websocket.Conn, _ string) {
				if n == 1 {
					f.add(tt.now + tt.ahead)
					send(ws, fakeEvent(tt.now+tt.ahead))
					hangUp(ws, 1012)
					return
				}
				readAll(ws)
			}
			s, k := newSource(t, f), &sink{}
			if tt.dated {
				s = newSource(t, f, f.withDate(time.Unix(base+int64(tt.now), 0)))
			}
			start(t, s, fakeCursor(tt.now-30), k)
			waitFor(t, "both", func() bool { return k.has(ids(tt.now-5, tt.now+tt.ahead)...) })
		})
	}
}

func oddEvent(n int) (id, raw string) {
	id = fmt.Sprintf("evt_4102444800000-%d", n)
	return id, `{"id":"` + id + `","object":"event","created":4102444800,"type":"invoice.updated"}`
}

// Two odd events stand side by side in every list, however far apart they came.
func TestOddEventsOfAListAreNotFollowed(t *testing.T) {
	f := newFake(t)
	f.add(1, 2, 3)
	for i := range 2 {
		id, raw := oddEvent(i)
		f.addRaw(id, 4102444800, raw)
	}
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			waitFor(t, "the list", func() bool { _, lists, _ := f.seen(); return len(lists) == 1 })
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f, f.withDate(time.Unix(base+10, 0))), &sink{}
	start(t, s, fakeCursor(2), k)
	waitFor(t, "a second connection", func() bool { _, _, dials := f.seen(); return len(dials) == 2 && k.is(gateway.Live) })
	if _, _, dials := f.seen(); !strings.Contains(dials[1], "since="+fakeID(3)) {
		t.Errorf("second dial = %s, want since=%s", dials[1], fakeID(3))
	}
}

// A replay repeats them side by side too.
func TestOddEventsThatComeAgainAreNotFollowed(t *testing.T) {
	f := newFake(t)
	f.add(1)
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		_, a := oddEvent(1)
		_, b := oddEvent(2)
		switch n {
		case 1:
			send(ws, a, fakeEvent(2), b, fakeEvent(3), a, b)
			hangUp(ws, 1012)
		default:
			readAll(ws)
		}
	}
	s, k := newSource(t, f, f.withDate(time.Unix(base+10, 0))), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "a second connection", func() bool { _, _, dials := f.seen(); return len(dials) == 2 && k.is(gateway.Live) })
	if _, _, dials := f.seen(); !strings.Contains(dials[1], "since="+fakeID(3)) {
		t.Errorf("second dial = %s, want since=%s", dials[1], fakeID(3))
	}
}

// Hosts of the upstream whose clocks differ are no gap.
func TestMintThatIsBehindIsNoGap(t *testing.T) {
	f := newFake(t)
	f.add(7200)
	s, k := newSource(t, f, f.withDate(time.Unix(base, 0))), &sink{} // two hours behind the events
	start(t, s, fakeCursor(7200), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
}

// One that is in the log already says nothing of where the stream is.
func TestCursorFromTheFutureIsAGap(t *testing.T) {
	f := newFake(t)
	f.add(1)
	s, k := newSource(t, f, f.withDate(time.Unix(base+10, 0))), &sink{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Run(ctx, gateway.UpstreamCursor{ID: futureID, Created: 4102444800}, k); !errors.Is(err, gateway.ErrGap) {
		t.Errorf("Run() = %v, want %v", err, gateway.ErrGap)
	}
	if _, _, dials := f.seen(); len(dials) != 0 {
		t.Errorf("dials = %v, want none", dials)
	}
}

// An event that comes again does not take the cursor to where the upstream has
// nothing any more.
func TestCursorDoesNotGoFarBack(t *testing.T) {
	f := newFake(t)
	f.add(-3000, 0, 1)
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 { // in steps, each of which would do
			send(ws, fakeEvent(1), fakeEvent(-2400), fakeEvent(-4800), fakeEvent(-7200))
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	s, k := newSource(t, f), &sink{}
	stop := start(t, s, fakeCursor(0), k)
	waitFor(t, "a second connection", func() bool { _, _, dials := f.seen(); return len(dials) == 2 && k.is(gateway.Live) })
	if _, _, dials := f.seen(); !strings.Contains(dials[1], "since="+fakeID(-2400)) {
		t.Errorf("second dial = %s, want since=%s", dials[1], fakeID(-2400))
	}
	if err := stop(); !errors.Is(err, errStop) || !k.has(fakeID(-7200)) {
		t.Errorf("Run() = %v and %v, want no gap, and the old event too", err, k.first())
	}
}

// While the replay alone proves that nothing is missing, what REST has does not
// move the cursor past it: the term may end before the replay is handed over.
func TestCursorWaitsForTheReplayThatProvesIt(t *testing.T) {
	f := newFake(t)
	f.add(8, 9, 10)
	sent := make(chan struct{})
	var once sync.Once
	f.onStream = func(_ int, ws *websocket.Conn, since string) {
		all := ids(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		for n := slices.Index(all, since) + 1; n <= 10; n++ { // from the event named on
			send(ws, fakeEvent(n))
		}
		once.Do(func() { close(sent) })
		readAll(ws)
	}
	f.onList = func(int, *fasthttp.RequestCtx) bool { <-sent; return false }
	s, k := newSource(t, f), &sink{}
	s.tune.overlap = 0
	fenced, puts := errors.New("fenced"), 0
	first := &sink{onPut: func(context.Context) error {
		if puts++; puts > 1 {
			return fenced
		}
		return nil
	}}
	if err := s.Run(t.Context(), fakeCursor(1), first); !errors.Is(err, fenced) {
		t.Fatalf("first term: %v, want %v", err, fenced)
	}
	got := first.got()
	start(t, s, got[len(got)-1].Cursor, k)
	waitFor(t, "all, by one term or the other", func() bool {
		have := append(first.first(), k.first()...)
		return !slices.ContainsFunc(ids(2, 3, 4, 5, 6, 7, 8, 9, 10), func(id string) bool { return !slices.Contains(have, id) })
	})
}

// Also when it is hours behind what REST has, and a control frame comes within.
func TestCursorFollowsAReplayFromLongAgo(t *testing.T) {
	f := newFake(t)
	f.add(10_008, 10_009, 10_010)
	sent, next := make(chan struct{}), make(chan struct{})
	f.onStream = func(_ int, ws *websocket.Conn, _ string) {
		send(ws, `{"object":"ws_control","type":"replay.started"}`, fakeEvent(1), fakeEvent(2))
		close(sent)
		<-next
		send(ws, fakeEvent(3))
		readAll(ws)
	}
	f.onList = func(int, *fasthttp.RequestCtx) bool { <-sent; return false }
	s, k := newSource(t, f), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "the control's backfill", func() bool { _, lists, _ := f.seen(); return len(lists) >= 3 && k.is(gateway.Live) })
	close(next)
	waitFor(t, "event 3", func() bool { return k.has(fakeID(3)) })
	if got := k.got(); got[len(got)-1].Cursor.ID != fakeID(3) {
		t.Errorf("cursor after event 3 = %s, want its own: the rest of the replay is to come", got[len(got)-1].Cursor.ID)
	}
}

// An event that was committed late, in the midst of newer ones, is not the end of
// what is new.
func TestBackfillGoesOnBehindAnOldEvent(t *testing.T) {
	f := newFake(t)
	f.add(1, 2, 3)
	const old = `{"id":"evt_1767000000000-1","object":"event","created":1767000000,"type":"invoice.updated"}`
	f.addRaw("evt_1767000000000-1", base+4, old) // listed by another time than it tells
	f.add(5)
	s, k := newSource(t, f), &sink{}
	start(t, s, fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if !k.has(ids(2, 3, 5)...) {
		t.Errorf("got %v, want %v", k.first(), ids(2, 3, 5))
	}
}

// Nor where the page is a small one.
func TestBackfillGoesOnBehindAnOldEventAmongLargeOnes(t *testing.T) {
	f := newFake(t)
	f.add(1)
	for _, n := range []int{2, 3} {
		f.addRaw(fakeID(n), base+int64(n), strings.TrimSuffix(fakeEvent(n), "}")+`,"x":"`+strings.Repeat("x", 40<<10)+`"}`)
	}
	const old = `{"id":"evt_1767000000000-1","object":"event","created":1767000000,"type":"invoice.updated"}`
	f.addRaw("evt_1767000000000-1", base+4, old)
	f.add(5)
	s, k := newSource(t, f), &sink{}
	s.tune.pageBytes = 64 << 10
	start(t, s, fakeCursor(1), k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if !k.has(ids(2, 3, 5)...) {
		t.Errorf("got %v, want %v", k.first(), ids(2, 3, 5))
	}
}

// A history whose log never had a cursor is looked at from where it began, however
// late its next leader comes.
func TestLogWithoutACursorIsLookedAtFromItsBeginning(t *testing.T) {
	f := newFake(t)
	f.add(20)
	s, k := newSource(t, f, f.withDate(time.Unix(base+100_000, 0)), func(c *Config) { c.Backfill = 0 }), &sink{}
	start(t, s, gateway.UpstreamCursor{Began: base + 10}, k)
	waitFor(t, "live", func() bool { return k.is(gateway.Live) })
	if !k.has(fakeID(20)) {
		t.Error("what happened since the history began is missing")
	}
}

// A control frame before any event leaves the cursor where it was.
func TestResyncKeepsTheCursorOfAQuietStream(t *testing.T) {
	f := newFake(t)
	f.add(1)
	s, k := newSource(t, f), &sink{}
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			waitFor(t, "live", func() bool { return k.is(gateway.Live) })
			send(ws, resyncFrame)
			waitFor(t, "its backfill to be settled", func() bool {
				return slices.Contains(k.states(), "catching_up resync") && k.is(gateway.Live)
			})
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	start(t, s, fakeCursor(1000), k)
	waitFor(t, "a second connection", func() bool { _, _, dials := f.seen(); return len(dials) == 2 })
	if _, _, dials := f.seen(); !strings.Contains(dials[1], "since="+fakeID(1000)) {
		t.Errorf("second dial = %s, want since=%s", dials[1], fakeID(1000))
	}
}

// Nor is one lost that had begun.
func TestLookUnderWayIsHadByTheNextConnection(t *testing.T) {
	f := newFake(t)
	f.add(100)
	looking := make(chan struct{})
	f.onStream = func(n int, ws *websocket.Conn, _ string) {
		if n == 1 {
			<-looking
			send(ws, fakeEvent(200))
			hangUp(ws, 1012)
			return
		}
		readAll(ws)
	}
	f.onList = func(n int, c *fasthttp.RequestCtx) bool {
		if n != 2 {
			return false
		}
		close(looking)
		c.SetStatusCode(503) // until the stream has ended
		return true
	}
	s, k := newSource(t, f), &sink{}
	s.tune.sweeps = []time.Duration{10 * time.Millisecond}
	start(t, s, fakeCursor(100), k)
	waitFor(t, "a second connection", func() bool { _, _, dials := f.seen(); return len(dials) == 2 && k.is(gateway.Live) })
	_, lists, _ := f.seen()
	if want := fmt.Sprint("gte%5D=", base+100-60); !slices.ContainsFunc(lists[2:], func(q string) bool { return strings.Contains(q, want) }) {
		t.Errorf("lists after the look that failed = %v, want one from %s", lists[2:], want)
	}
}
