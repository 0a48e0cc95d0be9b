package downstream

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// Rules of the wire that nothing else would notice the absence of.

// live makes a session live, forgets what it wrote meanwhile, and returns it.
func (r *rig) live(to *listSink) *session {
	r.Helper()
	s := r.session(to)
	s.health, s.changed = r.node.Health()
	s.told = s.health.State
	r.must(s.catchUp())
	to.kinds, to.events = nil, nil
	return s
}

// burst appends at once more than a queue holds, and waits until s is detached.
func (r *rig) burst(s *session) (ids []string) {
	r.Helper()
	var batch []gateway.Record
	for range gateway.QueueFrames + 10 {
		ev := event("order_1", "alice")
		ids = append(ids, ev.ID)
		batch = append(batch, gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
	}
	r.append(batch...)
	r.until("the session is detached", func() bool { return s.sub.Detached() != nil })
	return ids
}

// A burst is too large for any queue. Who takes it at once is not slow, and is
// told what the stream's status has become meanwhile.
func TestBurstIsNoStrikeAndStatusIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	to := &listSink{}
	s := r.live(to)
	var want []string
	for range maxSlow + 1 {
		want = append(want, r.burst(s)...)
		if err := s.reattach(s.sub.Detached()); err != nil {
			t.Fatalf("reattach() after a burst = %v, want nil", err)
		}
		for s.sub.Queued() > 0 {
			r.must(s.write(s.sub.Next()))
		}
	}
	if len(s.slow) != 0 {
		t.Errorf("%d strikes after %d bursts that were taken at once, want none", len(s.slow), maxSlow+1)
	}
	want = append(want, r.burst(s)...)
	r.must(r.bus.Renew(context.Background(), r.term, 0, time.Hour, gateway.Health{State: gateway.Stale, Reason: "upstream_down", Since: time.Now()}))
	r.until("the node is stale", func() bool {
		s.health, s.changed = r.node.Health() // as serveHealth does while a detachment waits
		return s.health.State == gateway.Stale
	})
	r.must(s.reattach(s.sub.Detached()))
	for s.sub.Queued() > 0 {
		r.must(s.write(s.sub.Next()))
	}
	if !slices.Contains(to.kinds, "stale") {
		t.Error("the status that changed during the burst was not told")
	}
	if !slices.Equal(to.events, want) {
		t.Errorf("%d events written, want the %d sent, in order", len(to.events), len(want))
	}
}

// After a reset what the client shows is void until the snapshot has come. A
// status that turns live before must wait for it, whichever of the two the
// session hears of first.
func TestLiveIsToldAfterTheSnapshotOfAReset(t *testing.T) {
	r := newRig(t, nil)
	for i, told := range slices.Repeat([]gateway.State{gateway.Live, gateway.CatchingUp}, 12) {
		to := &listSink{}
		s := r.live(to)
		to.wrote = func(kind string) {
			if kind == "live" {
				s.end(errClientGone)
			}
		}
		term, _, err := r.bus.Acquire(context.Background(), gateway.AcquireRequest{
			Nonce: gateway.Epoch(100 + i), TTL: time.Hour, Previous: r.term.Fence, NewHistory: true,
		})
		r.must(err)
		r.term, r.acked = term, 0
		r.must(r.bus.Renew(context.Background(), r.term, 0, time.Hour,
			gateway.Health{State: gateway.Live, Reason: strconv.Itoa(i), Since: time.Now()})) // rings the doorbell
		r.until("the session is detached", func() bool { return s.sub.Detached() != nil })
		r.cover("alice")
		changed := make(chan struct{})
		close(changed)
		s.told, s.changed = told, changed
		if r.must(s.serveHealth(true)); len(to.kinds) > 0 {
			t.Errorf("%q was told while the reset waited, want nothing", to.kinds)
		}
		if err := s.live(); err != errClientGone {
			t.Fatalf("live() = %v, want %v once live was told", err, errClientGone)
		}
		want := []string{"reset", "snapshot", "live"}
		if told == gateway.Live { // it is no longer
			want = append([]string{"catching_up"}, want...)
		}
		if !slices.Equal(to.kinds, want) {
			t.Errorf("to a client that was told %s: %q, want %q", told, to.kinds, want)
		}
		s.sub.Close()
	}
}

// Between the handshake and the stream's place in the hub time passes. What
// happens then belongs to it: a client without a snapshot would never know.
func TestStreamBeginsWhereItWasAskedFor(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	to := &listSink{}
	s := r.session(to)
	from, none := r.node.Position(), false
	s.from, s.query.snapshot = &from, &none
	ev := r.publish("order_1", "alice")
	r.until("the node has the event", func() bool { return r.node.Position() != from })
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	for s.sub.Queued() > 0 {
		r.must(s.write(s.sub.Next()))
	}
	if !slices.Equal(to.events, []string{ev.ID}) {
		t.Errorf("events %v, want %s", to.events, ev.ID)
	}
}

// A tip that passed an event would let a client resume behind what it never got.
func TestTipWaitsBehindTheEvents(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	to := &listSink{}
	s := r.live(to)
	for s.sub.Queued() > 0 { // from becoming live
		s.sub.Next()
	}
	r.publish("order_1", "alice")
	r.must(s.heartbeat(true))
	r.publish("order_1", "alice")
	if len(to.kinds) != 0 {
		t.Errorf("written past a waiting event: %q, want nothing", to.kinds)
	}
	for s.sub.Queued() > 0 {
		r.must(s.write(s.sub.Next()))
	}
	if want := []string{"event", "tip", "event"}; !slices.Equal(to.kinds, want) {
		t.Errorf("written = %q, want %q", to.kinds, want)
	}
}

// What is logged while the snapshot is on its way comes after it.
func TestNothingIsLostBetweenSnapshotAndLive(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	before := r.publish("order_1", "alice")
	var meanwhile *gateway.Event
	to := &listSink{}
	to.wrote = func(kind string) {
		if kind == "snapshot" {
			meanwhile = r.publish("order_1", "alice")
		}
	}
	s := r.session(to)
	r.must(s.open())
	for s.sub.Queued() > 0 {
		r.must(s.write(s.sub.Next()))
	}
	if want := []string{before.ID, meanwhile.ID}; !slices.Equal(to.events, want) {
		t.Errorf("events = %q, want %q", to.events, want)
	}
}

// Pages that lost a node together must not reach the next one together.
func TestStreamsBeginWithARetryOfTheirOwn(t *testing.T) {
	r := newRig(t, nil)
	token := "snapshot=0&token=" + r.token("alice")
	different := map[string]bool{}
	for range 8 {
		c := r.sse(token)
		r.must(c.raw.SetReadDeadline(time.Now().Add(wait)))
		line, err := c.body.ReadString('\n')
		r.must(err)
		value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "retry: ")
		ms, err := strconv.Atoi(value)
		if !ok || err != nil || ms < 2000 || ms > 4000 {
			t.Errorf("first line = %q, want a retry of 2000 to 4000", line)
		}
		different[value] = true
		c.close()
	}
	if len(different) < 2 {
		t.Errorf("all streams have the retry %v, want it at random", different)
	}
}

func TestEventsKeepTheirBytes(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := open(r, "snapshot=0&token="+r.token("alice"))
			settled(c)
			ev := event("order_1", "alice")
			ev.Data = []byte("{ \"id\":  \"" + ev.ID + "\",\n\t\"n\": 1.50, \"n\": 1e2, \"\\u00e9\": \"\\/ \u2028 é <&>\" }  ")
			r.append(gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
			c.wantEvent(ev)
			if _, body := r.answer("GET", "/api/v1/events/"+ev.ID, "", "X-Api-Key: "+opsKey); body != `{"success":true,"data":`+string(ev.Data)+`}` {
				t.Errorf("REST = %q, want the event as it came: %q", body, ev.Data)
			}
		})
	}
}

// A session that gives its goroutine up when something has just come would sleep
// on it.
func TestWhatComesBeforeParkingIsServed(t *testing.T) {
	r := newRig(t, nil)
	s := r.live(&listSink{})
	r.must(s.serveReady(true))
	r.publish("order_1", "alice")
	if s.park() {
		t.Error("park() = true with an event waiting, want false")
	}
}
