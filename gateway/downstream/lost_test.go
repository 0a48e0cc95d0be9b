package downstream

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// A listSink keeps what a session writes.
type listSink struct {
	kinds  []string
	events []string          // ids
	wrote  func(kind string) // may be nil
}

func (l *listSink) note(kind string) error {
	l.kinds = append(l.kinds, kind)
	if l.wrote != nil {
		l.wrote(kind)
	}
	return nil
}

func (l *listSink) start(*session) error { return nil }
func (l *listSink) event(f *gateway.Frame, _ bool) error {
	l.events = append(l.events, f.Event.ID)
	return l.note("event")
}
func (l *listSink) tip(*gateway.Frame) error { return l.note("tip") }
func (l *listSink) control(v any, _ string) error {
	switch c := v.(type) {
	case resetControl:
		return l.note("reset")
	case snapshotControl:
		return l.note("snapshot")
	case cursorControl:
		return l.note(c.Type)
	case statusControl:
		return l.note(c.Status)
	case sessionControl:
		return l.note(c.Type)
	}
	return nil
}
func (l *listSink) ping() error              { return nil }
func (l *listSink) waiting() int             { return 0 }
func (l *listSink) flush(bool) error         { return nil }
func (l *listSink) finish(*session, *ending) {}
func (l *listSink) abort()                   {}

// session returns alice's session, with controls, that writes to to. It stands at
// the node's position and is not live yet.
func (r *rig) session(to sink) *session {
	s := r.server.newSession(&admission{
		transport: gateway.SSE, ip: netip.IPv6Loopback(), controls: true,
		grant: grant{scope: gateway.Scope{Customer: "alice"}, sessions: time.Now().Add(time.Hour)},
	}, to)
	s.beatAt, s.mayBlock = time.Now().Add(time.Hour), true
	s.subscribe()
	r.Cleanup(s.sub.Close)
	return s
}

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
		to, resets := &listSink{}, r.server.Stats().Resets
		s := r.session(to)
		s.query.snapshot = &tc.snapshot
		s.sub.Seek(gateway.Position{Epoch: 99, Seq: 5})
		if err := s.catchUp(); err != nil {
			t.Errorf("catchUp() with snapshot %v = %v, want nil", tc.snapshot, err)
		}
		if !slices.Equal(to.kinds, tc.want) || s.sub.Queued() != 1 {
			t.Errorf("catchUp() with snapshot %v wrote %v and queued %d frames, want %v and a tip", tc.snapshot, to.kinds, s.sub.Queued(), tc.want)
		}
		if got := r.server.Stats().Resets - resets; got != 1 {
			t.Errorf("%d resets counted, want 1", got)
		}
	}
}
