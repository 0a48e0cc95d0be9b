package downstream

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"pepay-gateway/gateway"
)

// raw sends text in one write on a connection of its own, and returns that after
// the head of the answer.
func (r *rig) raw(text string, status int) (net.Conn, *bufio.Reader) {
	r.Helper()
	conn, err := net.Dial("tcp", r.addr)
	r.must(err)
	r.Cleanup(func() { _ = conn.Close() })
	r.must(conn.SetDeadline(time.Now().Add(wait)))
	_, err = conn.Write([]byte(text))
	r.must(err)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	r.must(err)
	if resp.StatusCode != status {
		r.Fatalf("status = %d, want %d", resp.StatusCode, status)
	}
	return conn, in
}

func (r *rig) upgradeRequest() string {
	return fmt.Sprintf("GET %s?snapshot=0&token=%s HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: pepay.v1\r\n\r\n", wsPath, r.token("alice"))
}

// A client need not wait for the answer to its handshake. What it sends with it
// is read as what comes later is, wherever the two meet.
func TestFramesThatCameWithTheHandshake(t *testing.T) {
	r := newRig(t, nil)
	frames := append(ping("early").bytes(), ping("late").bytes()...)
	for _, with := range []int{1, len(ping("early").bytes()), len(frames) - 1, len(frames)} {
		conn, in := r.raw(r.upgradeRequest()+string(frames[:with]), http.StatusSwitchingProtocols)
		if _, err := conn.Write(frames[with:]); err != nil {
			t.Fatal(err)
		}
		s, pongs := &rawSocket{t: t, conn: conn, in: in}, ""
		for !strings.HasSuffix(pongs, "late ") {
			op, payload, err := s.read()
			if err != nil {
				t.Fatalf("with %d bytes: %v after pongs %q, want early and late", with, err, pongs)
			}
			if op == opPong {
				pongs += payload + " "
			}
		}
		if want := "early late "; pongs != want {
			t.Errorf("with %d bytes: pongs %q, want %q", with, pongs, want)
		}
	}
}

// An event stream's client has nothing to say. A little is not minded; much ends
// its stream, whether it came with the request or after.
func TestBytesBehindTheRequestOfAnEventStream(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct {
		with, after int
		lives       bool
	}{{0, 1, true}, {1, 1, true}, {maxTrailing / 2, maxTrailing/2 - 1, true}, {maxTrailing / 2, maxTrailing / 2, false}, {0, maxTrailing, false}} {
		request := fmt.Sprintf("GET %s?snapshot=0&token=%s HTTP/1.1\r\nHost: gateway\r\n\r\n", ssePath, r.token("alice"))
		conn, in := r.raw(request+strings.Repeat("x", tt.with), http.StatusOK)
		if _, err := conn.Write(bytes.Repeat([]byte("x"), tt.after)); err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, raw: conn, body: in}
		if !tt.lives {
			for m, ok := c.next(); ok; m, ok = c.next() {
				if m.kind() == "tip" {
					t.Fatalf("%d and %d bytes behind the request: the stream goes on, want it to end", tt.with, tt.after)
				}
			}
			continue
		}
		settled(c)
		c.wantEvent(r.publish("order_1", "alice"))
	}
}

// A client that does not read delays nobody: not the other streams, and not the
// goroutine that follows the log.
func TestClientThatDoesNotReadDelaysNobody(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			asleep, awake := open(r, "snapshot=0&token="+r.token("bob")), open(r, "snapshot=0&token="+r.token("alice"))
			settled(asleep)
			settled(awake)
			var sent []*gateway.Event
			for r.node.Stats().Slow == 0 { // until its queue is full behind a write
				if len(sent) > 500 {
					t.Fatal("15 MB are sent to a client that does not read, want its queue to be full")
				}
				ev := event("order_2", "bob")
				ev.Data = append(ev.Data, bytes.Repeat([]byte(" "), 30<<10)...)
				sent = append(sent, ev)
				r.append(gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
			}
			for range 20 { // more than once round the crew
				awake.wantEvent(r.publish("order_1", "alice"))
			}
			if r.server.Stats().Slow != 0 {
				t.Fatal("the client that does not read has caught up: nothing was shown")
			}
			for _, ev := range sent { // every byte, whatever part of it was written when
				asleep.wantEvent(ev)
			}
		})
	}
}
