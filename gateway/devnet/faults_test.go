package devnet

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFaultDuplicate(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("types=commerce.*")
	r.set(Faults{Duplicate: 2})
	r.create("cust_1")
	first := c.next()
	sameFrames(t, [][]byte{c.next(), c.next()}, [][]byte{first, first})
}

func TestFaultShuffle(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("")
	r.set(Faults{Shuffle: 40})
	for range 50 {
		r.create("cust_1")
	}
	want := r.raws()
	var got [][]byte
	for range want {
		got = append(got, c.next())
	}
	if slices.EqualFunc(got, want, bytes.Equal) {
		t.Error("frames came in order, want them shuffled")
	}
	slices.SortFunc(got, bytes.Compare)
	slices.SortFunc(want, bytes.Compare)
	sameFrames(t, got, want)
}

func TestFaultDrop(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("")
	r.set(Faults{Drop: 1})
	r.create("cust_1")
	c.wantEvent(typeInvoiceCreated, "unpaid")
	if page, _ := r.list(nil); len(page) != 2 {
		t.Errorf("REST lists %d events, want 2", len(page))
	}
	r.set(Faults{Drop: -1})
	r.create("cust_1")
	r.mark()
	if got := c.toMark(); len(got) != 0 {
		t.Errorf("got %s, want nothing", got)
	}
}

func TestFaultCloseAfter(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("")
	r.set(Faults{CloseAfter: 3})
	r.create("cust_1")
	r.create("cust_1")
	frames, err := c.rest()
	if len(frames) != 3 || closeCode(err) != 1006 {
		t.Errorf("%d frames, then %v, want 3, then a drop without close frame", len(frames), err)
	}
}

func TestFaultCloseMidReplay(t *testing.T) {
	r := start(t, Config{})
	for range 5 {
		r.create("cust_1")
	}
	all := r.Record("")
	r.set(Faults{CloseMidReplay: 4})
	frames, err := r.dial("since=" + all[0].ID).rest()
	if len(frames) != 4 || closeCode(err) != 1006 {
		t.Errorf("%d frames, then %v, want 4, then a drop", len(frames), err)
	}
	c := r.dial("since=" + all[5].ID) // four events left: a whole replay
	sameFrames(t, [][]byte{c.next(), c.next(), c.next(), c.next()}, r.raws()[6:])
}

func TestFaultRetention(t *testing.T) {
	r := start(t, Config{})
	for range 5 {
		r.create("cust_1")
	}
	all := r.Record("")
	r.set(Faults{Retention: 2, RESTRetention: 3})
	c := r.dial("since=" + all[0].ID)
	c.wantEvent("replay.truncated", "")
	sameFrames(t, [][]byte{c.next(), c.next()}, r.raws()[8:])
	if page, more := r.list(url.Values{"limit": {"100"}}); len(page) != 3 || more {
		t.Errorf("REST lists %d events, more %v, want 3, false", len(page), more)
	}
	if got, _, _ := r.call("GET", "/api/v1/events/"+all[0].ID, ""); got != 404 {
		t.Errorf("event out of REST's retention = %d, want 404", got)
	}
	r.set(Faults{Retention: -1})
	c = r.dial("since=" + all[0].ID)
	c.wantEvent("replay.truncated", "")
	r.mark()
	if got := c.toMark(); len(got) != 0 {
		t.Errorf("snapshot = %s, want none", got)
	}
}

func TestFaultRefusals(t *testing.T) {
	r := start(t, Config{})
	bodies := map[string]string{
		"":         `{"error":{"code":"RATE_LIMIT_EXCEEDED","message":"Refused by a fault switch"},"success":false}`,
		BodyFlat:   `{"code":"RATE_LIMIT_EXCEEDED","error":"Refused by a fault switch"}`,
		BodyLegacy: `{"error_code":"RATE_LIMIT_EXCEEDED","message":"Refused by a fault switch","retry_after":"15 minutes","success":false}`,
		BodyText:   `Refused by a fault switch`,
		BodyEmpty:  ``,
	}
	for body, want := range bodies {
		refuse := &Refusal{Status: 429, Count: 2, RetryAfter: "7", Body: body}
		r.set(Faults{Mint: refuse, WS: refuse, REST: refuse})
		for _, req := range [][2]string{
			{"POST", "/api/v1/ws/token"}, {"GET", "/ws/commerce/events"}, {"GET", "/api/v1/events"},
		} {
			for range 2 {
				status, got, header := r.call(req[0], req[1], "")
				if status != 429 || string(got) != want || header.Get("Retry-After") != "7" {
					t.Errorf("%s refused with %q = %d %s, want 429 %s", req[1], body, status, got, want)
				}
			}
			if status, _, _ := r.call(req[0], req[1], ""); status == 429 {
				t.Errorf("%s is still refused, want only twice", req[1])
			}
		}
		if diff := cmp.Diff(r.Faults(), Faults{}); diff != "" {
			t.Errorf("used-up faults (-got +want):\n%s", diff)
		}
	}
	r.set(Faults{WS: &Refusal{Status: 503}})
	for range 3 {
		if _, got := r.tryDial("", "x-api-key", DefaultAPIKey); got != 503 {
			t.Errorf("handshake = %d, want 503 until reset", got)
		}
	}
}

func TestFaultWSErrorAndAcceptThenClose(t *testing.T) {
	r := start(t, Config{})
	r.set(Faults{WSError: &Ending{Code: "TOKEN_EXPIRED", Message: "no", CloseCode: 4401, Count: 1}, AcceptThenClose: &Ending{CloseCode: 1013, Count: 1}})
	frames, err := r.dial("").rest()
	if len(frames) != 1 || closeCode(err) != 4401 {
		t.Fatalf("got %s, then %v, want ws_error, then 4401", frames, err)
	}
	if got := view(t, frames[0]); got.Object != "ws_error" || got.Code != "TOKEN_EXPIRED" {
		t.Errorf("frame = %s, want ws_error TOKEN_EXPIRED", frames[0])
	}
	frames, err = r.dial("").rest()
	if len(frames) != 0 || closeCode(err) != 1013 {
		t.Errorf("got %s, then %v, want nothing, then 1013", frames, err)
	}
	c := r.dial("")
	r.create("cust_1")
	c.wantEvent(typeOrderCreated, "pending_payment")
}

func TestFaultTokens(t *testing.T) {
	r := start(t, Config{})
	r.set(Faults{ExpiredTokens: true, ISOExpires: true})
	var got struct{ Data map[string]any }
	r.ok("POST", "/api/v1/ws/token", "", &got)
	at, err := time.Parse(time.RFC3339, str(got.Data["expires_at"]))
	if err != nil || time.Now().Before(at) {
		t.Errorf("expires_at = %v, want an ISO time in the past", got.Data["expires_at"])
	}
	if _, status := r.tryDial("token="+str(got.Data["token"]), "x-none", ""); status != 401 {
		t.Errorf("handshake with expired token = %d, want 401", status)
	}
}

func TestFaultSlowAndLateREST(t *testing.T) {
	r := start(t, Config{})
	r.create("cust_1")
	r.set(Faults{RESTVisibility: 60_000})
	if page, _ := r.list(nil); len(page) != 0 {
		t.Errorf("REST lists %d events at once, want 0", len(page))
	}
	if got, _, _ := r.call("GET", "/api/v1/events/"+r.Record("")[0].ID, ""); got != 404 {
		t.Errorf("event REST does not know yet = %d, want 404", got)
	}
	r.set(Faults{RESTVisibility: 1, RESTDelay: 30})
	from := time.Now()
	if page, _ := r.list(nil); len(page) != 2 {
		t.Errorf("REST lists %d events later, want 2", len(page))
	}
	if took := time.Since(from); took < 30*time.Millisecond {
		t.Errorf("slow REST took %v, want at least 30ms", took)
	}
}

func TestSlowRESTDoesNotHoldUpShutdown(t *testing.T) {
	r := start(t, Config{})
	r.set(Faults{RESTDelay: 3_600_000})
	var slow sync.WaitGroup
	slow.Go(func() {
		if res, err := r.http.Get("http://" + r.addr + "/api/v1/events"); err == nil {
			_ = res.Body.Close() // whatever it says
		}
	})
	r.until("slow read", func() bool { return r.State().Reads == 1 })
	from := time.Now()
	r.stop()
	slow.Wait()
	if took := time.Since(from); took > shutdownTimeout-time.Second {
		t.Errorf("shutdown took %v, want it not to wait for the read", took)
	}
}

func TestFaultMinimalAndTimestamps(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("")
	r.set(Faults{Minimal: true})
	o := r.create("cust_1")
	got := c.next()
	want := fmt.Sprintf(`{"id":%q,"object":"event","type":"commerce.order.created","created":%d,"data":{"object":{"object":"commerce_order","id":%q,"status":"pending_payment","invoice_id":%q}}}`,
		view(t, got).ID, view(t, got).Created, o.ID, o.InvoiceID)
	if string(got) != want {
		t.Errorf("minimal frame = %s, want %s", got, want)
	}
	c.wantEvent(typeInvoiceCreated, "unpaid")
	if ev := r.Record("")[1]; ev.CustomerID != "cust_1" || ev.OrderID != o.ID {
		t.Errorf("record = %+v, want it to know the owner", ev)
	}
	r.set(Faults{ISOTimestamps: true})
	r.create("cust_1")
	if _, err := time.Parse(time.RFC3339, str(c.wantEvent(typeOrderCreated, "pending_payment").Data.Object["createdAt"])); err != nil {
		t.Errorf("createdAt: %v, want ISO", err)
	}
}

func TestFaultSilentAndHalfOpen(t *testing.T) {
	r := start(t, Config{})
	dead := r.dial("")
	r.Cut(Ending{HalfOpen: true})
	live := r.dial("")
	r.create("cust_1")
	live.wantEvent(typeOrderCreated, "pending_payment")
	live.wantEvent(typeInvoiceCreated, "unpaid")
	dead.wantNothing()
	if got := r.State().Connections; got != 2 {
		t.Errorf("connections = %d, want 2: half-open ones stay", got)
	}
	r.set(Faults{Silent: true})
	r.create("cust_1")
	live.wantNothing()
}

// wantNothing pings the stream and waits in vain.
func (c *client) wantNothing() {
	c.Helper()
	pong := false
	c.conn.SetPongHandler(func(string) error { pong = true; return nil })
	if err := c.conn.WriteControl(9, nil, time.Now().Add(patience)); err != nil {
		c.Fatal(err)
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, data, err := c.conn.ReadMessage(); err == nil || pong {
		c.Errorf("got %s, pong %v, want silence", data, pong)
	}
}

func TestFaultUnknown(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("types=commerce.*")
	r.set(Faults{Unknown: []string{UnknownType, UnknownStatus, UnknownObject}})
	r.create("cust_1")
	c.wantEvent("commerce.order.teleported", "pending_payment")
	c.wantEvent(typeOrderCreated, "teleported")
	if got := view(t, c.next()).Object; got != "ws_metric" {
		t.Errorf("object = %s, want ws_metric", got)
	}
	c.wantEvent(typeOrderCreated, "pending_payment")
}

func TestFaultsMergeAndReset(t *testing.T) {
	r := start(t, Config{})
	r.ok("POST", "/_devnet/faults", `{"duplicate":1,"mint_status":{"status":500,"count":3}}`, nil)
	r.ok("POST", "/_devnet/faults", `{"minimal":true,"mint_status":{"retry_after":"1"}}`, nil)
	want := Faults{Duplicate: 1, Minimal: true, Mint: &Refusal{Status: 500, Count: 3, RetryAfter: "1"}}
	if diff := cmp.Diff(r.Faults(), want); diff != "" {
		t.Errorf("faults (-got +want):\n%s", diff)
	}
	for _, bad := range []string{`{"dupplicate":1}`, `{"mint_status":{"status":200}}`, `{"unknown":["x"]}`, `[`} {
		if got, _, _ := r.call("POST", "/_devnet/faults", bad); got != 400 {
			t.Errorf("faults %s = %d, want 400", bad, got)
		}
	}
	r.ok("POST", "/_devnet/faults", `{"mint_status":null}`, nil)
	if got := r.Faults().Mint; got != nil {
		t.Errorf("mint_status = %v, want it off", got)
	}
	r.ok("POST", "/_devnet/faults/reset", "", nil)
	if diff := cmp.Diff(r.Faults(), Faults{}); diff != "" {
		t.Errorf("faults after reset (-got +want):\n%s", diff)
	}
}

func TestCut(t *testing.T) {
	r := start(t, Config{})
	for body, want := range map[string]int{``: 1006, `{"close_code":1012}`: 1012} {
		c := r.dial("")
		var got struct{ Cut int }
		r.ok("POST", "/_devnet/cut", body, &got)
		if _, err := c.rest(); got.Cut != 1 || closeCode(err) != want {
			t.Errorf("cut %s: %d streams, %v, want 1, code %d", body, got.Cut, err, want)
		}
		r.until("stream gone", func() bool { return r.State().Connections == 0 })
	}
	if got := r.State(); got.MaxConnections != 1 || got.TotalConnections != 2 {
		t.Errorf("state = %+v, want 2 connections, never 2 at once", got)
	}
}

func TestEmit(t *testing.T) {
	r := start(t, Config{})
	o := r.create("cust_1")
	c := r.dial("customer_id=nobody")
	for _, frame := range []string{`{"object":"ws_control","type":"resync"}`, "not json", "", strings.Repeat("x", 3<<20)} {
		if _, err := r.Emit(Frame{Frame: frame}); err != nil {
			t.Fatal(err)
		}
		if got := c.next(); string(got) != frame {
			t.Errorf("got %.40q, want %.40q", got, frame)
		}
	}
	r.ok("POST", "/_devnet/emit", `{"frame":"again","repeat":3}`, nil)
	sameFrames(t, [][]byte{c.next(), c.next(), c.next()}, [][]byte{[]byte("again"), []byte("again"), []byte("again")})

	late := `{ "id":"evt_1-1", "object":"event", "type":"future.thing", "created":5 }`
	odd := `{"id":"evt_example","type":"invoice.paid"}`
	r.ok("POST", "/_devnet/emit", fmt.Sprintf(`{"frame":%q,"listed":true,"order_id":%q}`, late, o.ID), nil)
	r.ok("POST", "/_devnet/emit", fmt.Sprintf(`{"frame":%q,"listed":true,"unsent":true}`, odd), nil)
	if got := c.next(); string(got) != late {
		t.Errorf("got %s, want %s", got, late)
	}
	page, _ := r.list(url.Values{"limit": {"100"}})
	if n := len(page); n != 4 || string(page[n-1]) != late || string(page[0]) != odd {
		t.Errorf("REST lists %s, want the late event last and the odd one first", page)
	}
	if got := r.Record("")[0]; got.CustomerID != "cust_1" || got.InvoiceID != o.InvoiceID {
		t.Errorf("owner = %+v, want the order's", got)
	}
	if page, _ := r.list(url.Values{"starting_after": {"evt_example"}}); len(page) != 3 {
		t.Errorf("%d events after the odd id, want 3", len(page))
	}
	for _, bad := range []string{
		`{"frame":"x","listed":true}`, `{"frame":"{}","listed":true}`, `{"repeat":-1}`,
		fmt.Sprintf(`{"frame":%q,"listed":true}`, late),
	} {
		if got, _, _ := r.call("POST", "/_devnet/emit", bad); got != 400 {
			t.Errorf("emit %s = %d, want 400", bad, got)
		}
	}
}

func TestControlState(t *testing.T) {
	r := start(t, Config{})
	r.create("cust_1")
	r.mintToken()
	r.dial("")
	r.list(nil)
	var got State
	r.ok("GET", "/_devnet/state", "", &got)
	want := State{Connections: 1, MaxConnections: 1, TotalConnections: 1, Orders: 1, Events: 2, Mints: 1, Reads: 1}
	if got != want {
		t.Errorf("state = %+v, want %+v", got, want)
	}
	var rec struct{ Events []Recorded }
	r.ok("GET", "/_devnet/events", "", &rec)
	if diff := cmp.Diff(rec.Events, r.Record("")); diff != "" {
		t.Errorf("events (-got +want):\n%s", diff)
	}
}
