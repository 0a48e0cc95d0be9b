package downstream

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// A panicSink panics at its first event, and keeps how the stream ended.
type panicSink struct {
	listSink
	ended   *ending
	aborted bool
}

func (p *panicSink) event(*gateway.Frame, bool) error { panic("PRIVATE") }
func (p *panicSink) finish(_ *session, e *ending)     { p.ended = e }
func (p *panicSink) abort()                           { p.aborted = true }

func TestPanicEndsOneStreamAlone(t *testing.T) {
	r := newRig(t, nil)
	other := r.ws("snapshot=0&token=" + r.token("alice"))
	settled(other)
	to, no := &panicSink{}, false
	s := r.server.newSession(&admission{
		transport: gateway.SSE, ip: netip.IPv6Loopback(), controls: true, query: query{snapshot: &no},
		grant: grant{scope: gateway.Scope{Customer: "alice"}, sessions: time.Now().Add(time.Hour)},
	}, to)
	if p := r.server.streams.add(s); p != nil {
		t.Fatal(p)
	}
	r.until("both are live", func() bool { return r.node.Stats().Subscribers == 2 })
	ev := r.publish("order_1", "alice")
	other.wantEvent(ev)
	r.until("the stream that panicked is gone", func() bool {
		ws, sse, _ := r.server.streams.open()
		return ws == 1 && sse == 0
	})
	if to.ended == nil || to.ended.code != 1011 || to.ended.problem != errInternal {
		t.Errorf("the stream ended with %+v, want 1011 and a fixed phrase", to.ended)
	}
	if n := r.server.Stats().Panics; n != 1 {
		t.Errorf("%d panics counted, want 1", n)
	}
	if strings.Contains(r.logs.String(), "PRIVATE") {
		t.Error("the log holds what the panic said, want its type alone")
	}
	other.wantEvent(r.publish("order_1", "alice"))
}
