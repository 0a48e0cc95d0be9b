package downstream

import (
	"net/netip"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

func TestShortOfMemoryRefusesNewcomersAlone(t *testing.T) {
	r := newRig(t, nil)
	token := "token=" + r.token("alice")
	ws, sse := r.ws(token), r.sse(token)
	settled(ws)
	settled(sse)
	r.server.SetShort(true)
	r.sse(token).want("disconnect")
	r.ws(token).wantClose(1013)
	if c, err := r.dial(token, nil); err == nil || c.resp.StatusCode != 503 {
		t.Errorf("WebSocket of a server: %v, want 503", err)
	}
	ev := r.publish("order_1", "alice")
	ws.wantEvent(ev)
	sse.wantEvent(ev)
	r.server.SetShort(false)
	settled(r.sse(token))
	settled(r.ws(token))
}

// While memory is short a stream that fell out of what is in memory is sent away
// with its cursor, instead of being replayed from the log.
func TestShortOfMemoryReplaysNothingFromTheLog(t *testing.T) {
	r := newRig(t, nil)
	r.publish("order_1", "alice")
	s := r.server.newSession(&admission{
		transport: gateway.SSE, ip: netip.IPv6Loopback(), controls: true,
		grant: grant{scope: gateway.Scope{Customer: "alice"}, sessions: time.Now().Add(time.Hour)},
	}, &listSink{})
	s.sub = r.node.Subscribe(s.scope)
	defer s.sub.Close()
	s.sub.Seek(gateway.Position{Epoch: 99, Seq: 5}) // nothing in memory knows it
	r.node.SetShort(true)
	err := s.catchUp()
	e, ok := err.(*ending)
	if !ok || e.code != 1013 || e.retry == 0 {
		t.Errorf("catchUp() = %v, want to be sent away for a while", err)
	}
	if n := r.node.Stats().LogReplays; n != 0 {
		t.Errorf("%d reads of the log, want none", n)
	}
}

func TestSlowestStreamsAreClosedFirst(t *testing.T) {
	r := &registry{sessions: map[*session]struct{}{}}
	server := &Server{streams: r}
	now := time.Now()
	var all []*session
	for i := range 100 {
		s := server.newSession(&admission{}, &listSink{})
		if i < 10 { // 9 s, 8 s, … ago; the last has only just begun
			s.busy.Store(now.Add(-time.Duration(9-i) * time.Second).UnixNano())
		}
		all = append(all, s)
		r.sessions[s] = struct{}{}
	}
	ended := func() (n int) {
		for _, s := range all {
			if s.ctx.Err() != nil {
				n++
			}
		}
		return n
	}
	server.CloseSlowest()
	if n := ended(); n != 3 || all[0].ctx.Err() == nil || all[1].ctx.Err() == nil || all[2].ctx.Err() == nil {
		t.Errorf("%d streams ended, want the slowest three", n)
	}
	server.CloseSlowest() // they are still there: cut
	if n := ended(); n != 3 || server.counts.shed.Load() != 3 {
		t.Errorf("%d streams ended and %d counted, want three", n, server.counts.shed.Load())
	}
	for range 10 {
		for _, s := range all {
			if s.ctx.Err() != nil {
				delete(r.sessions, s) // as the session does when it is cut
			}
		}
		server.CloseSlowest()
	}
	if n := ended(); n != 9 {
		t.Errorf("%d streams ended, want the nine that were slow for a second and no other", n)
	}
}
