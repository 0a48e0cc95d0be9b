package downstream

import (
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// serving counts the goroutines that serve sessions now.
func serving() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*session).guarded(")
}

func TestIdleStreamHasNoGoroutineOfItsOwn(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Heartbeat = 2 * wait }) // a beat would serve what has come, too
			c := open(r, "snapshot=0&token="+r.token("alice"))
			settled(c)
			r.until("the session is parked", func() bool { return serving() == 0 })
			c.wantEvent(r.publish("order_1", "alice"))
			r.until("the session is parked again", func() bool { return serving() == 0 })
		})
	}
}

// A countSink counts events; its flush is slow now and then.
type countSink struct {
	listSink
	events atomic.Int64
	ended  chan *ending
}

func (c *countSink) event(*gateway.Frame, bool) error {
	if c.events.Add(1)%7 == 0 {
		runtime.Gosched()
	}
	return nil
}

func (c *countSink) finish(_ *session, e *ending) { c.ended <- e }

// Whatever rings, and however often: one goroutine at most serves a session, and
// nothing that has happened is forgotten.
func TestSessionConcurrentUse(t *testing.T) {
	r := newRig(t, nil)
	to := &countSink{ended: make(chan *ending, 1)}
	s := r.server.newSession(&admission{
		transport: gateway.WS, ip: netip.IPv6Loopback(), controls: true,
		grant: grant{scope: gateway.Scope{Account: true}, sessions: time.Now().Add(time.Hour)},
	}, to)
	if p := r.server.streams.add(s); p != nil {
		t.Fatalf("add = %v, want nil", p.code)
	}
	r.until("the session is live", func() bool { return r.node.Stats().Subscribers == 1 })

	stop := make(chan struct{})
	var ringers sync.WaitGroup
	for range 2 {
		ringers.Go(func() {
			for ; ; runtime.Gosched() {
				select {
				case <-stop:
					return
				default:
					s.wake()
				}
			}
		})
	}
	const events = 60
	for range events {
		r.publish("order_1", "alice")
	}
	r.until("every event is written", func() bool { return to.events.Load() >= events })
	close(stop)
	ringers.Wait()
	s.end(errClientGone)
	if got := <-to.ended; got != errClientGone {
		t.Errorf("ended with %v, want %v", got, errClientGone)
	}
	s.wake() // too late, and harmless
	if got := to.events.Load(); got != events {
		t.Errorf("%d events written, want %d", got, events)
	}
}
