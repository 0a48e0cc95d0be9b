package downstream

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// The library pools what it wraps a WebSocket in. A session that kept the
// wrapper, or a connection that is closed by the library, would write one
// customer's events to the next.
func TestPooledConnectionsNeverCross(t *testing.T) {
	r := newRig(t, nil)
	customers := []string{"alice", "bob"}
	tokens := make(map[string]string)
	for _, c := range customers {
		r.cover(c)
		tokens[c] = r.token(c)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // events for both, all the time
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				r.publish("order_"+customers[n%2], customers[n%2])
			}
		}
	}()
	defer func() {
		close(stop)
		<-ended
	}()
	var wg sync.WaitGroup
	for i, customer := range customers {
		wg.Go(func() {
			for round := range 200 {
				if err := crossed(r, tokens[customer], customer, (round+i)%2 == 0); err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// crossed opens a stream, reads a few events, leaves, and says whether any was
// another's.
func crossed(r *rig, token, customer string, ws bool) error {
	other := []byte(`"customer_id":"alice"`)
	if customer == "alice" {
		other = []byte(`"customer_id":"bob"`)
	}
	var c *client
	if ws {
		d := websocket.Dialer{Subprotocols: []string{subprotocol}, HandshakeTimeout: wait}
		conn, _, err := d.Dial("ws://"+r.addr+wsPath+"?token="+token, nil)
		if err != nil {
			return err
		}
		c = &client{t: r.TB, conn: conn, raw: conn.NetConn()}
	} else {
		c = r.sse("token=" + token)
	}
	defer c.close()
	for events := 0; events < 3; {
		m, ok := c.next()
		switch {
		case !ok:
			return fmt.Errorf("stream of %s ended", customer)
		case bytes.Contains([]byte(m.Data), other):
			return fmt.Errorf("%s received %s", customer, m.Data)
		case m.kind() == "event":
			events++
		}
	}
	return nil
}

func TestWrapperIsNotKept(t *testing.T) {
	// Closing must reach the socket, which it does only with KeepHijackedConns.
	r := newRig(t, nil)
	if !r.server.app.Server().KeepHijackedConns {
		t.Error("KeepHijackedConns = false, want true")
	}
	c := r.ws("snapshot=0&token=" + r.token("alice"))
	settled(c)
	for _, s := range r.server.streams.drain() {
		s.sink.abort()
	}
	if _, ok := c.next(); ok {
		t.Error("the stream went on after abort")
	}
	r.until("the session has ended", func() bool {
		ws, _, _ := r.server.streams.open()
		return ws == 0
	})
}

func TestSubscriberLeavesWithItsClient(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := open(r, "snapshot=0&token="+r.token("alice"))
			settled(c)
			start := time.Now()
			c.close()
			r.until("the hub has no subscriber", func() bool { return r.node.Stats().Subscribers == 0 })
			if d := time.Since(start); d > time.Second {
				t.Errorf("leaving was noticed after %v, want at once", d)
			}
		})
	}
}
