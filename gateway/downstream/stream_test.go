package downstream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"pepay-gateway/gateway"
)

// Both transports tell the same story; open opens a stream that has controls.
var transports = map[string]func(r *rig, query string) *client{
	"ws":  func(r *rig, query string) *client { return r.ws(query) },
	"sse": func(r *rig, query string) *client { return r.sse(query) },
}

func TestStreamBeginsWithSnapshotThenLive(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			old := r.publish("order_1", "alice")
			r.publish("order_2", "bob")
			c := open(r, "token="+r.token("", "order_1"))

			hello := c.want("hello")
			if hello.fields["resumed"] != false || hello.text("status") != "live" || hello.fields["cursor"] != nil {
				t.Errorf("hello = %s, want not resumed, live, without a cursor before the snapshot", hello.Data)
			}
			snapshot := c.want("snapshot")
			if snapshot.fields["count"] != 1.0 || snapshot.fields["complete"] != true {
				t.Errorf("snapshot = %s, want count 1 and complete", snapshot.Data)
			}
			state := c.wantEvent(old)
			complete := c.want("replay_complete")
			r.publish("order_2", "bob")
			ev := r.publish("order_1", "alice")
			live := c.wantEvent(ev)
			if name == "sse" {
				for _, m := range []message{hello, snapshot, state} {
					if m.ID != "" {
						t.Errorf("id of %s = %q, want none", m.kind(), m.ID)
					}
				}
				if complete.ID != complete.text("cursor") || complete.Event != "control" {
					t.Errorf("replay_complete has id %q, event %q, want its cursor %q and control", complete.ID, complete.Event, complete.text("cursor"))
				}
				if !gateway.LooksLikeCursor(live.ID) || live.Event != "" {
					t.Errorf("live event has id %q, event %q, want a cursor and none", live.ID, live.Event)
				}
			}
			if !gateway.LooksLikeCursor(complete.text("cursor")) {
				t.Errorf("replay_complete = %s, want a cursor", complete.Data)
			}
		})
	}
}

// settled reads a new stream up to replay_complete and returns that.
func settled(c *client) message {
	c.t.Helper()
	for {
		m, ok := c.next()
		if !ok {
			c.t.Fatal("stream ended before replay_complete")
		}
		if m.kind() == "replay_complete" {
			return m
		}
	}
}

func TestStreamResumes(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.cover("alice")
			first := r.publish("order_1", "alice")
			token := "token=" + r.token("alice")
			c := open(r, token)
			cursor := settled(c).text("cursor")
			c.close()
			r.publish("order_9", "bob")
			missed := r.publish("order_1", "alice")

			for since, want := range map[string]*gateway.Event{cursor: missed, first.ID: missed} {
				c := open(r, token+"&since="+since)
				if hello := c.want("hello"); hello.fields["resumed"] != true {
					t.Errorf("hello = %s, want resumed", hello.Data)
				}
				c.wantEvent(want)
				c.want("replay_complete")
			}
			c = r.sse(token+"&snapshot=1&since=evt_9-9", "Last-Event-ID: "+cursor)
			if hello := c.want("hello"); hello.fields["resumed"] != true {
				t.Errorf("hello with Last-Event-ID = %s, want resumed", hello.Data)
			}
			if m := c.wantEvent(missed); !gateway.LooksLikeCursor(m.ID) {
				t.Errorf("id of a replayed event = %q, want a cursor", m.ID)
			}
		})
	}
}

func TestUnusablePlaceIsReset(t *testing.T) {
	r := newRig(t, nil)
	mine := r.publish("order_1", "alice")
	foreign := r.publish("order_9", "bob")
	token := "token=" + r.token("alice")
	for name, open := range map[string]func() *client{
		"unknown cursor":           func() *client { return r.ws(token + "&since=cur_AAAAAAAAAAAAAAAAAAAAAA") },
		"foreign id":               func() *client { return r.ws(token + "&since=" + foreign.ID) },
		"unknown id":               func() *client { return r.ws(token + "&since=evt_1-1") },
		"garbage Last-Event-ID":    func() *client { return r.sse(token, "Last-Event-ID: cur_<&>") },
		"long Last-Event-ID":       func() *client { return r.sse(token, "Last-Event-ID: "+longID) },
		"the id of a reset":        func() *client { return r.sse(token+"&since="+mine.ID, "Last-Event-ID: cur_reset") },
		"that id as since":         func() *client { return r.sse(token + "&since=cur_reset") },
		"Last-Event-ID, snapshots": func() *client { return r.sse(token+"&since="+mine.ID, "Last-Event-ID: evt_1-1") },
	} {
		t.Run(name, func(t *testing.T) {
			c := open()
			if hello := c.want("hello"); hello.fields["resumed"] != false {
				t.Errorf("hello = %s, want not resumed", hello.Data)
			}
			reset := c.want("reset")
			if reset.text("reason") != "unknown" || c.conn == nil && reset.ID != resetID {
				t.Errorf("reset = %s with id %q, want unknown with the id that never resolves", reset.Data, reset.ID)
			}
			if m := c.want("snapshot"); m.ID != "" {
				t.Errorf("id of the snapshot = %q, want none", m.ID)
			}
			c.wantEvent(mine)
			c.want("replay_complete")
		})
	}
}

var longID = string(make129())

func make129() []byte {
	b := make([]byte, gateway.MaxIDBytes+1)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

func TestPlainWebSocketGetsEventsAlone(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 20 * time.Millisecond })
	r.publish("order_1", "alice")
	token := "token=" + r.token("alice")
	c, err := r.dial(token, nil)
	r.must(err)
	pinged := make(chan struct{}, 100)
	c.conn.SetPingHandler(func(string) error {
		pinged <- struct{}{}
		return nil
	})
	r.until("the stream is live", func() bool { return r.node.Stats().Subscribers == 1 })
	ev := r.publish("order_1", "alice")
	if m, _ := c.next(); m.Data != string(ev.Data) {
		t.Errorf("first message = %s, want the event", m.Data)
	}
	go func() { _, _ = c.next() }()
	select {
	case <-pinged:
	case <-time.After(wait):
		t.Error("no ping")
	}

	c, err = r.dial(token+"&since=evt_1-1", nil)
	r.must(err)
	if m, _ := c.next(); m.kind() != "reset" {
		t.Errorf("first message = %s, want reset", m.Data)
	}
	c, err = r.dial(token+"&control=1", nil)
	r.must(err)
	c.want("hello")
	c.want("snapshot")
}

func TestAccountStreamHasNoSnapshot(t *testing.T) {
	r := newRig(t, nil)
	r.publish("order_1", "alice")
	c, err := r.dial("types=commerce.order.*", http.Header{"X-Commerce-Api-Key": {opsKey}}, subprotocol)
	r.must(err)
	c.want("hello")
	c.want("replay_complete")
	c.wantEvent(r.publish("order_2", "bob"))
}

func TestSnapshotOptedOut(t *testing.T) {
	r := newRig(t, nil)
	r.publish("order_1", "alice")
	c := r.sse("snapshot=0&token=" + r.token("alice"))
	c.want("hello")
	c.want("replay_complete")
}

func TestTipsKeepQuietClientsResumable(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Heartbeat = 50 * time.Millisecond })
			r.publish("order_1", "alice")
			r.cover("alice")
			c := open(r, "token="+r.token("alice"))
			settled(c)
			for range 3 { // not the first alone
				r.publish("order_9", "bob")
				now := r.node.Cursor(r.node.Position())
				var m message
				for range 100 {
					if m = c.want("tip"); m.text("cursor") == now {
						break
					}
				}
				if m.text("cursor") != now || name == "sse" && m.ID != now {
					t.Fatalf("tip = %s with id %q, want the new cursor %q", m.Data, m.ID, now)
				}
			}
		})
	}
}

func TestPingIsAnsweredByATip(t *testing.T) {
	r := newRig(t, nil)
	c := r.ws("snapshot=0&token=" + r.token("alice"))
	settled(c)
	r.must(c.conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping"}`)))
	c.want("tip")
}

// The cursor must not run ahead of a state that is known to be incomplete.
func TestIncompleteSnapshotHoldsTheCursor(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 50 * time.Millisecond })
	r.publish("order_9", "bob")
	c := r.sse("token=" + r.token("", "order_1"))
	c.want("hello")
	if m := c.want("snapshot"); m.fields["complete"] != false || m.fields["count"] != 0.0 {
		t.Fatalf("snapshot = %s, want empty and not complete", m.Data)
	}
	status, _ := c.next()
	if status.kind() != "status" || status.text("status") != "catching_up" {
		t.Errorf("after the snapshot came %s, want status catching_up", status.Data)
	}
	if m := c.want("replay_complete"); m.ID != "" || m.fields["cursor"] != nil {
		t.Errorf("replay_complete = %s with id %q, want no cursor", m.Data, m.ID)
	}
	if m := c.want("tip"); m.ID != "" || m.fields["cursor"] != nil {
		t.Errorf("tip = %s with id %q, want no cursor", m.Data, m.ID)
	}

	ev := event("order_1", "alice")
	r.append(gateway.Record{ID: ev.ID, Event: ev, NewLinks: true},
		gateway.Record{ID: "#cover", Join: &gateway.Join{Order: "order_1", Customer: "alice", Covered: true}})
	if m := c.wantEvent(ev); m.ID != "" {
		t.Errorf("id of an event before the state is complete = %q, want none", m.ID)
	}
	var got []string
	for {
		m, ok := c.next()
		if !ok {
			t.Fatal("stream ended")
		}
		if m.kind() == "status" {
			got = append(got, m.text("status"))
		}
		if m.kind() == "tip" && m.ID != "" {
			break
		}
	}
	if len(got) != 1 || got[0] != "live" {
		t.Errorf("status when covered = %q, want live", got)
	}
}

func TestStatusFollowsTheLog(t *testing.T) {
	r := newRig(t, nil)
	c := r.sse("snapshot=0&token=" + r.token("alice"))
	settled(c)
	r.must(r.bus.Renew(context.Background(), r.term, 0, time.Hour,
		gateway.Health{State: gateway.Stale, Reason: "upstream_down", Since: time.Now()}))
	for {
		m, ok := c.next()
		if !ok {
			t.Fatal("stream ended")
		}
		if m.kind() == "status" {
			if m.text("status") != "stale" || m.text("reason") != "upstream_down" || m.fields["since_ms"] == 0.0 {
				t.Errorf("status = %s, want stale, upstream_down and since_ms", m.Data)
			}
			break
		}
	}
	began := float64(r.health().Since.UnixMilli())
	if m := r.sse("snapshot=0&token=" + r.token("alice")).want("hello"); m.text("status") != "stale" || m.text("reason") != "upstream_down" || m.fields["since_ms"] != began {
		t.Errorf("hello = %s, want stale, upstream_down and since_ms %.0f", m.Data, began)
	}
	r.must(r.bus.Renew(context.Background(), r.term, 0, time.Hour, gateway.Health{State: gateway.Live, Since: time.Now()}))
	r.until("the node is live", func() bool { return r.health().State == gateway.Live })
	if m := r.sse("snapshot=0&token=" + r.token("alice")).want("hello"); m.text("status") != "live" || m.fields["since_ms"] != nil || m.fields["reason"] != nil {
		t.Errorf("hello = %s, want live, and since when is the page's own affair", m.Data)
	}
}

func TestLogOutOfReach(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 50 * time.Millisecond })
	r.publish("order_1", "alice")
	r.redis()
	r.redis = func() {}
	r.until("the node is stale", func() bool {
		h, _ := r.node.Health()
		return h.State == gateway.Stale
	})
	token := "token=" + r.token("alice")

	c := r.sse(token)
	if m := c.want("hello"); m.text("status") != "stale" {
		t.Errorf("hello = %s, want stale", m.Data)
	}
	if m := c.want("tip"); m.ID != "" {
		t.Errorf("id of a tip without state = %q, want none", m.ID)
	}
	// Nothing is known to be lost: the client keeps its place and its connection.
	c = r.sse(token + "&snapshot=0&since=evt_1-1")
	if m := c.want("hello"); m.fields["resumed"] != true || m.fields["cursor"] != nil || m.text("status") != "stale" {
		t.Errorf("hello = %s, want resumed, stale, without a cursor", m.Data)
	}
	c.want("tip")
	if resp, body := r.answer("GET", "/api/v1/events", "", "x-api-key: "+opsKey); resp.StatusCode != 503 || errorCode(t, body) != "LOG_UNAVAILABLE" {
		t.Errorf("list = %d %s, want 503 LOG_UNAVAILABLE", resp.StatusCode, body)
	}
}

// A client that does not read is detached, and misses nothing.
func TestSlowClientCatchesUp(t *testing.T) {
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := open(r, "snapshot=0&token="+r.token("alice"))
			settled(c)
			var sent []*gateway.Event
			for n := 0; r.server.Stats().Slow == 0 && n < 4000; n += 50 {
				var batch []gateway.Record
				for range 50 {
					ev := event("order_1", "alice")
					ev.Data = append(ev.Data, bytes.Repeat([]byte(" "), 16<<10)...)
					sent = append(sent, ev)
					batch = append(batch, gateway.Record{ID: ev.ID, Event: ev})
				}
				r.append(batch...)
				if r.node.Stats().Slow > 0 {
					break
				}
			}
			for i, ev := range sent {
				if m := c.want("event"); m.text("id") != ev.ID {
					t.Fatalf("event %d = %s, want %s", i, m.text("id"), ev.ID)
				}
			}
			r.until("the stream counts as slow", func() bool { return r.server.Stats().Slow > 0 })
			c.wantEvent(r.publish("order_1", "alice"))
		})
	}
}

func TestThirdTimeSlowIsTooSlow(t *testing.T) {
	var s session
	for i := range maxSlow {
		err := s.fellBehind()
		var e *ending
		if late := i == maxSlow-1; errors.As(err, &e) != late || late && e.code != 4408 {
			t.Errorf("fellBehind() time %d = %v, want 4408 only the last time", i+1, err)
		}
	}
}
