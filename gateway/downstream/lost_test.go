package downstream

import (
	"net/netip"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// A listSink keeps what a session writes.
type listSink struct{ kinds []string }

func (l *listSink) start(*session) error { return nil }
func (l *listSink) event(*gateway.Frame, bool) error {
	l.kinds = append(l.kinds, "event")
	return nil
}
func (l *listSink) tip(*gateway.Frame) error { return nil }
func (l *listSink) control(v any, _ string) error {
	switch v.(type) {
	case resetControl:
		l.kinds = append(l.kinds, "reset")
	case snapshotControl:
		l.kinds = append(l.kinds, "snapshot")
	}
	return nil
}
func (l *listSink) ping() error              { return nil }
func (l *listSink) flush() error             { return nil }
func (l *listSink) finish(*session, *ending) {}
func (l *listSink) abort()                   {}

// A place that is lost while catching up costs one reset, whether or not a
// snapshot follows.
func TestPlaceLostWhileCatchingUp(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	r.publish("order_1", "alice")
	for _, tc := range []struct {
		snapshot bool
		want     []string
	}{{true, []string{"reset", "snapshot", "event"}}, {false, []string{"reset"}}} {
		to := &listSink{}
		s := r.server.newSession(&admission{
			transport: gateway.SSE, ip: netip.IPv6Loopback(), controls: true, query: query{snapshot: &tc.snapshot},
			grant: grant{scope: gateway.Scope{Customer: "alice"}, sessions: time.Now().Add(time.Hour)},
		}, to)
		s.sub = r.node.Subscribe(s.scope)
		s.sub.Seek(gateway.Position{Epoch: 99, Seq: 5})
		if err := s.catchUp(); err != nil {
			t.Errorf("catchUp() with snapshot %v = %v, want nil", tc.snapshot, err)
		}
		if len(to.kinds) != len(tc.want) || len(s.sub.Queue()) != 1 {
			t.Errorf("catchUp() with snapshot %v wrote %v and queued %d frames, want %v and a tip", tc.snapshot, to.kinds, len(s.sub.Queue()), tc.want)
		}
		s.sub.Close()
	}
}
