package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/tidwall/gjson"
)

// A world is a Redis, a Pepay and two nodes, each in a process of its own.
type world struct {
	redis *redisServer
	pepay *pepay
	nodes []*gatewayProcess
}

func startWorld(t testing.TB, env ...string) *world {
	t.Helper()
	w := &world{redis: startRedis(t), pepay: startPepay(t)}
	w.nodes = []*gatewayProcess{
		startGateway(t, "node-a", w.redis, w.pepay, env...),
		startGateway(t, "node-b", w.redis, w.pepay, env...),
	}
	for _, g := range w.nodes {
		g.waitLive()
	}
	return w
}

// owned returns the true events of one customer, as the devnet recorded them.
func (w *world) owned(customer string) []string {
	var out []string
	for _, r := range w.pepay.record() {
		if r.CustomerID == customer {
			out = append(out, r.ID)
		}
	}
	return out
}

// follow opens a stream on g for these claims, over both transports.
func follow(t testing.TB, g *gatewayProcess, claims map[string]any, query ...string) (ws, sse *stream) {
	t.Helper()
	m := g.mint(claims)
	q := ""
	for i := 0; i+1 < len(query); i += 2 {
		q += query[i] + "=" + query[i+1] + "&"
	}
	ws = openWS(t, m.WSURL, m.Token, q)
	sseURL := strings.Replace(m.WSURL, "ws://", "http://", 1)
	sseURL = strings.Replace(sseURL, "/ws/", "/sse/", 1)
	sse = openSSE(t, withQuery(sseURL, append([]string{"token", m.Token}, query...)...), "")
	ws.waitControl("replay_complete")
	sse.waitControl("replay_complete")
	return ws, sse
}

func lifecycle(p *pepay, customer string) devnetOrder {
	o := p.order(customer)
	for _, transition := range []string{"payment_confirmed", "payment_settled", "placed", "shipped", "delivery_confirmed"} {
		p.simulate(o.OrderID, transition)
	}
	return o
}

// A client is a stream and what it is owed.
type client struct {
	name string
	s    *stream
	sees func(recorded) bool
}

func TestEventsReachExactlyTheirOwnersOnBothNodes(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p := w.pepay
	mine, other := p.order("cust_1"), p.order("cust_10")

	var clients []client
	for i, g := range w.nodes {
		add := func(name string, claims map[string]any, sees func(recorded) bool) {
			ws, sse := follow(t, g, claims)
			clients = append(clients,
				client{fmt.Sprintf("node %d ws %s", i, name), ws, sees}, client{fmt.Sprintf("node %d sse %s", i, name), sse, sees})
		}
		add("customer", map[string]any{"customer_id": "cust_1"}, func(r recorded) bool { return r.CustomerID == "cust_1" })
		add("order", map[string]any{"order_id": mine.OrderID}, func(r recorded) bool { return r.OrderID == mine.OrderID })
		add("both", map[string]any{"customer_id": "cust_1", "order_id": mine.OrderID}, func(r recorded) bool {
			return r.OrderID == mine.OrderID
		})
		add("mismatched", map[string]any{"customer_id": "cust_1", "order_id": other.OrderID}, func(recorded) bool { return false })
		add("stranger", map[string]any{"customer_id": "cust_"}, func(recorded) bool { return false })
		add("ops", map[string]any{}, func(r recorded) bool { return true })
	}
	before := len(p.record())
	for _, step := range []string{"payment_confirmed", "payment_settled", "placed", "shipped"} {
		p.simulate(mine.OrderID, step)
		p.simulate(other.OrderID, step)
	}
	lifecycle(p, "cust_1")
	lifecycle(p, "cust_2")
	record := p.record()
	for _, c := range clients {
		var want []string
		for _, r := range record[before:] {
			if c.sees(r) {
				want = append(want, r.ID)
			}
		}
		eventually(t, 20*time.Second, c.name+" has its events", func() bool {
			return len(c.live(want)) == len(want)
		})
	}
	// Nothing is on its way any more: whoever is owed something has it. Now
	// nobody may have anything else.
	for _, c := range clients {
		allowed := map[string]string{}
		var want []string
		for i, r := range record {
			if c.sees(r) {
				allowed[r.ID] = r.Raw
				if i >= before {
					want = append(want, r.ID)
				}
			}
		}
		once := map[string]int{}
		for _, it := range c.s.all() {
			if it.eventID == "" {
				continue
			}
			once[it.eventID]++
			if raw, ok := allowed[it.eventID]; !ok {
				t.Errorf("%s received foreign event %s", c.name, it.eventID)
			} else if raw != it.event {
				t.Errorf("%s received %q, want %q", c.name, it.event, raw)
			}
		}
		if got := c.live(want); !slices.Equal(got, want) {
			t.Errorf("%s: order %v, want %v", c.name, got, want)
		}
		for _, id := range want {
			if once[id] != 1 {
				t.Errorf("%s received %s %d times, want once", c.name, id, once[id])
			}
		}
	}
	if s := p.state(); s.MaxConnections != 1 {
		t.Errorf("upstream connections: %d at once, want 1", s.MaxConnections)
	}
}

// live returns those of want that the client has, in the order it got them.
func (c client) live(want []string) []string { return within(c.s.ids(), want) }

func within(ids, want []string) []string {
	var out []string
	for _, id := range ids {
		if slices.Contains(want, id) {
			out = append(out, id)
		}
	}
	return out
}

func TestResumeOnAnotherNode(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, a, b := w.pepay, w.nodes[0], w.nodes[1]
	claims := map[string]any{"customer_id": "cust_1"}
	m := a.mint(claims)
	first := openSSE(t, m.SSEURL, "")
	first.waitControl("replay_complete")
	lifecycle(p, "cust_1")
	first.waitIDs(len(w.owned("cust_1")))
	cursor, ids := first.cursor(), first.ids()
	first.close()
	lifecycle(p, "cust_2")
	lifecycle(p, "cust_1")
	truth := w.owned("cust_1")
	missed := truth[len(ids):]

	onB := func(url string) string { return strings.Replace(url, a.url, b.url, 1) }
	mb := b.mint(claims)
	for name, open := range map[string]func() *stream{
		"event id over WS":     func() *stream { return openWS(t, mb.WSURL, mb.Token, "since="+ids[len(ids)-1]) },
		"cursor over WS":       func() *stream { return openWS(t, mb.WSURL, mb.Token, "since="+cursor) },
		"native Last-Event-ID": func() *stream { return openSSE(t, onB(m.SSEURL), cursor) },
	} {
		s := open()
		if hello := s.waitControl("hello"); hello["resumed"] != true {
			t.Errorf("%s: hello = %v, want resumed", name, hello)
		}
		s.waitControl("replay_complete")
		if got := s.ids(); !slices.Equal(got, missed) {
			t.Errorf("%s: got %v, want %v", name, got, missed)
		}
		if n := s.count("reset") + s.count("snapshot"); n != 0 {
			t.Errorf("%s: %d resets and snapshots, want none", name, n)
		}
		s.close()
	}

	for _, since := range []string{"cur_AAAAAAAAAAAAAAAAAAAAAA", "evt_1700000000000-1", p.record()[0].ID + "0"} {
		s := openWS(t, mb.WSURL, mb.Token, "since="+since)
		s.waitControl("replay_complete")
		if hello := s.waitControl("hello"); hello["resumed"] != false {
			t.Errorf("since=%s: hello = %v, want not resumed", since, hello)
		}
		if r, n := s.count("reset"), s.count("snapshot"); r != 1 || n != 1 {
			t.Errorf("since=%s: %d resets and %d snapshots, want one each", since, r, n)
		}
		s.close()
	}
}

// A connection that dies anywhere resumes without a gap from what it holds.
func TestResumeAfterACutAnywhere(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, g := w.pepay, w.nodes[1]
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	for range 3 {
		lifecycle(p, "cust_1")
	}
	eventually(t, 20*time.Second, "the log has it all", func() bool {
		s := openSSE(t, m.SSEURL, "")
		defer s.close()
		s.waitControl("replay_complete")
		return len(s.ids()) == 9 // three objects of three orders
	})
	// Cut after n blocks, for every n through hello, snapshot and replay.
	const cuts = 14
	have, cursor := map[string]bool{}, ""
	for n := 1; n <= cuts; n++ {
		s := openSSE(t, m.SSEURL, cursor)
		eventually(t, 20*time.Second, "blocks", func() bool { return len(s.all()) >= min(n, 2) })
		s.close()
		items := s.all()[:min(n, len(s.all()))]
		for _, it := range items {
			if it.eventID != "" {
				have[it.eventID] = true
			}
			if it.sseID != "" {
				cursor = it.sseID
			}
		}
		p.simulate(p.order("cust_1").OrderID, "payment_confirmed")
	}
	s := openSSE(t, m.SSEURL, cursor)
	s.waitControl("replay_complete")
	eventually(t, 20*time.Second, "every event since is there, or its order's newest", func() bool {
		for _, it := range s.all() {
			have[it.eventID] = true
		}
		newest := map[string]string{}
		for _, r := range p.record() {
			if r.CustomerID == "cust_1" {
				newest[r.OrderID+strings.SplitN(r.Type, ".", 2)[0]] = r.ID
			}
		}
		for _, id := range newest {
			if !have[id] {
				return false
			}
		}
		return true
	})
}

func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p := w.pepay
	leader, others := leaderOf(t, w.nodes...)
	survivor := others[0]
	ws, sse := follow(t, survivor, map[string]any{"customer_id": "cust_1"})
	lifecycle(p, "cust_1")

	killed := time.Now()
	leader.kill()
	lifecycle(p, "cust_1") // nobody listens upstream now
	truth := w.owned("cust_1")
	for _, s := range []*stream{ws, sse} {
		s.waitIDs(len(truth))
	}
	t.Logf("first new event within %v of the kill (lease 2s)", time.Since(killed).Round(10*time.Millisecond))
	lifecycle(p, "cust_1")
	truth = w.owned("cust_1")
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		if got := s.waitIDs(len(truth)); !slices.Equal(got, truth) {
			t.Errorf("%s: got %d events %v, want %d in order", name, len(got), got, len(truth))
		}
		if n := s.count("reset"); n != 0 {
			t.Errorf("%s: %d resets, want none", name, n)
		}
	}
	if got, want := logged(t, survivor), recordedIDs(p); !slices.Equal(got, want) {
		t.Errorf("log has %d events %v, want the %d there were, once each", len(got), got, len(want))
	}
	if s := p.state(); s.MaxConnections > 1 {
		t.Errorf("upstream connections: %d at once, want 1", s.MaxConnections)
	}
}

// logged returns the ids of all events in the log, oldest first.
func logged(t testing.TB, g *gatewayProcess) []string {
	t.Helper()
	var out []string
	for cursor := ""; ; {
		var page struct {
			Data struct {
				Data    []struct{ ID string } `json:"data"`
				HasMore bool                  `json:"has_more"`
			} `json:"data"`
		}
		url := g.url + "/api/v1/events?limit=100"
		if cursor != "" {
			url += "&starting_after=" + cursor
		}
		status, body := get(t, url, testKey)
		if status != 200 {
			t.Fatalf("list: %d %s", status, body)
		}
		mustJSON(t, body, &page)
		for _, e := range page.Data.Data {
			out = append(out, e.ID)
			cursor = e.ID
		}
		if !page.Data.HasMore {
			slices.Reverse(out)
			return out
		}
	}
}

func recordedIDs(p *pepay) []string {
	var out []string
	for _, r := range p.record() {
		out = append(out, r.ID)
	}
	return out
}

func TestLeaderTerminated(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p := w.pepay
	leader, others := leaderOf(t, w.nodes...)
	ws, sse := follow(t, leader, map[string]any{"customer_id": "cust_1"})
	stay, _ := follow(t, others[0], map[string]any{"customer_id": "cust_1"})
	lifecycle(p, "cust_1")
	stay.waitIDs(len(w.owned("cust_1")))

	code := make(chan int, 1)
	go func() { code <- leader.terminate(15 * time.Second) }()
	leaderOf(t, others[0])
	lifecycle(p, "cust_1")
	truth := w.owned("cust_1")
	if got := stay.waitIDs(len(truth)); !slices.Equal(got, truth) {
		t.Errorf("got %v, want %v", got, truth)
	}
	if n := stay.count("reset"); n != 0 {
		t.Errorf("%d resets, want none", n)
	}
	if err := ws.waitEnd(); closeCode(err) != 1012 {
		t.Errorf("WS ended with %v, want close 1012", err)
	}
	sse.waitEnd()
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		d := s.waitControl("disconnect")
		if d["reconnect"] != true || d["retry_ms"] == nil {
			t.Errorf("%s: disconnect = %v, want reconnect with retry_ms", name, d)
		}
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code = %d, want 0", got)
	}
	stopped, leading := logTime(t, leader, "draining"), logTime(t, others[0], "leading")
	t.Logf("another node led %v after SIGTERM", leading.Sub(stopped).Round(100*time.Microsecond))
	if s := p.state(); s.MaxConnections != 1 {
		t.Errorf("upstream connections: %d at once, want 1", s.MaxConnections)
	}
}

// logTime returns when a process last logged a message.
func logTime(t testing.TB, g *gatewayProcess, msg string) time.Time {
	t.Helper()
	var at time.Time
	for _, line := range strings.Split(g.output(), "\n") {
		var entry struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == msg {
			at = entry.Time
		}
	}
	if at.IsZero() {
		t.Fatalf("%s never logged %q", g.url, msg)
	}
	return at
}

func TestRedisRestartsEmpty(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, g := w.pepay, w.nodes[1]
	ws, sse := follow(t, g, map[string]any{"customer_id": "cust_1"})
	o := lifecycle(p, "cust_1")
	ws.waitIDs(len(w.owned("cust_1")))

	w.redis.kill()
	for _, s := range []*stream{ws, sse} {
		s.waitStatus("stale")
	}
	p.order("cust_1")
	w.redis.restart(t)
	truth := w.owned("cust_1")
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		s.waitStatus("live")
		s.waitIDs(len(truth))
		if n := s.count("reset"); n != 1 {
			t.Errorf("%s: %d resets, want 1", name, n)
		}
	}
	if _, body := get(t, g.url+"/api/v1/orders/"+o.OrderID+"/state", testKey); !strings.Contains(body, `"status":"delivered"`) {
		t.Errorf("order state = %s, want it delivered", body)
	}

	// What a client names by its id it may have got from the log that is lost, which
	// had events in another order, perhaps.
	resume := func(g *gatewayProcess, id string) *stream {
		m := g.mint(map[string]any{"customer_id": "cust_1"})
		return openWS(t, m.WSURL, m.Token, "since="+id)
	}
	for _, id := range []string{truth[0], truth[len(truth)-1]} {
		for _, g := range w.nodes {
			resume(g, id).waitControl("reset")
		}
	}
	lifecycle(p, "cust_1")
	truth = w.owned("cust_1")
	ws.waitIDs(len(truth))
	for _, g := range w.nodes {
		again := resume(g, truth[len(truth)-3])
		if hello := again.waitControl("hello"); hello["resumed"] != true {
			t.Errorf("an event of the new log: hello = %v, want it resumed", hello)
		}
		if got := again.waitIDs(2); !slices.Equal(got, truth[len(truth)-2:]) {
			t.Errorf("behind an event of the new log: got %v, want %v", got, truth[len(truth)-2:])
		}
	}
}

// Redis comes back at once, with what it had saved, and then nothing happens at
// the shop: what it has lost is there again all the same, and once.
func TestRedisComesBackOlder(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	ws, sse := follow(t, w.nodes[1], map[string]any{"customer_id": "cust_1"})
	lifecycle(w.pepay, "cust_1")
	for _, s := range []*stream{ws, sse} {
		s.waitIDs(len(w.owned("cust_1")))
	}
	c := redis.NewClient(&redis.Options{Addr: w.redis.addr, DisableIdentity: true})
	defer func() { _ = c.Close() }()
	if err := c.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	o := lifecycle(w.pepay, "cust_1")
	truth := w.owned("cust_1")
	for _, s := range []*stream{ws, sse} {
		s.waitIDs(len(truth))
	}
	w.redis.kill()
	w.redis.restart(t)
	for _, g := range w.nodes {
		eventually(t, 10*time.Second, "the last order is delivered again", func() bool {
			status, body := get(t, g.url+"/api/v1/orders/"+o.OrderID+"/state", testKey)
			return status == 200 && strings.Contains(body, `"status":"delivered"`)
		})
	}
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		s.waitStatus("live")
		if n := s.count("reset"); n != 0 {
			t.Errorf("%s: %d resets, want none: nothing that it shows was lost", name, n)
		}
	}
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("the log has %v, want %v", got, truth)
		}
	}()
	// The state may have been looked up before that.
	eventually(t, 10*time.Second, "the log has what it lost, once", func() bool {
		_, body := get(t, w.nodes[0].url+"/api/v1/events?limit=100&customer_id=cust_1", testKey)
		got = nil
		for _, ev := range gjson.Get(body, "data.data.#.id").Array() {
			if id := ev.String(); !strings.HasPrefix(id, "gw_") { // what was looked up
				got = append(got, id)
			}
		}
		slices.Reverse(got)
		return slices.Equal(got, truth)
	})
}

// A page that only polls has no stream to ask for what the log lacks: polling
// has to.
func TestPolledOrderStateIsLookedUp(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	g := w.nodes[0]
	o := w.pepay.order("cust_1", "silent", true, "status", "placed")
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	eventually(t, 20*time.Second, "the order's state, looked up", func() bool {
		status, _ := get(t, g.url+"/api/v1/orders/"+o.OrderID+"/state", m.Token)
		return status == 200
	})
}

// subscribed says whether the default upstream.types ask for a type.
func subscribed(eventType string) bool {
	return strings.HasPrefix(eventType, "commerce.order.") || strings.HasPrefix(eventType, "invoice.") ||
		strings.HasPrefix(eventType, "invoice_payment.")
}

func TestByteIdentity(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, g := w.pepay, w.nodes[0]
	ws, sse := follow(t, g, map[string]any{"customer_id": "cust_1"})
	all, allSSE := follow(t, g, map[string]any{})
	lifecycle(p, "cust_1")
	o := p.order("cust_1")
	p.control("faults", map[string]any{"minimal": true, "unknown": []string{"type", "status", "object"}})
	p.simulate(o.OrderID, "payment_confirmed")
	p.control("faults/reset", nil)
	exotic := `{"object":"event","future":[1e400,{"a":"\u2028\u0000"}],  "id":"evt_1999999999999-1","type":"commerce.order.updated","created":1999999999,"data":{"object":{"object":"commerce_order","id":"` + o.OrderID + `","status":"teleported","customerId":"cust_1"}}}`
	p.control("emit", map[string]any{"frame": exotic, "listed": true, "order_id": o.OrderID, "customer_id": "cust_1"})

	raw := map[string]string{}
	var mine []string
	for _, r := range p.record() {
		raw[r.ID] = r.Raw
		if r.CustomerID == "cust_1" && subscribed(r.Type) {
			mine = append(mine, r.ID)
		}
	}
	raw["evt_1999999999999-1"] = exotic
	for name, s := range map[string]*stream{"ws": ws, "sse": sse, "ops ws": all, "ops sse": allSSE} {
		for _, id := range mine {
			eventually(t, 20*time.Second, name+" has "+id, func() bool { return s.has(id) })
		}
		for _, it := range s.all() {
			if it.eventID != "" && it.event != raw[it.eventID] {
				t.Errorf("%s: got %q, want %q", name, it.event, raw[it.eventID])
			}
		}
	}
	eventually(t, 10*time.Second, "the exotic event", func() bool { return ws.has("evt_1999999999999-1") && sse.has("evt_1999999999999-1") })
}

func TestMinimalFramesReachTheirCustomer(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, g := w.pepay, w.nodes[1]
	p.control("faults", map[string]any{"minimal": true})
	ws, sse := follow(t, g, map[string]any{"customer_id": "cust_1"})
	stranger, _ := follow(t, g, map[string]any{"customer_id": "cust_2"})
	ops, _ := follow(t, g, map[string]any{})
	o := p.order("cust_1")
	first := p.record()[0].ID
	eventually(t, 10*time.Second, "ops has it at once", func() bool { return ops.has(first) })
	for _, transition := range []string{"payment_confirmed", "payment_settled", "placed"} {
		p.simulate(o.OrderID, transition)
	}
	newest := map[string]string{}
	for _, r := range p.record() {
		newest[strings.SplitN(r.Type, ".", 2)[0]] = r.ID
	}
	for name, s := range map[string]*stream{"ws": ws, "sse": sse} {
		for _, id := range newest {
			eventually(t, 20*time.Second, name+" has the newest "+id, func() bool { return s.has(id) })
		}
	}
	if got := stranger.ids(); len(got) != 0 {
		t.Errorf("another customer received %v", got)
	}
}

func TestFirstInstallShowsOldOrders(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	old := p.order("cust_1", "age_seconds", 3*24*3600, "status", "shipped", "silent", true)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	for name, claims := range map[string]map[string]any{
		"by customer": {"customer_id": "cust_1"},
		"by order":    {"order_id": old.OrderID},
	} {
		m := g.mint(claims)
		s := openSSE(t, m.SSEURL, "")
		if name == "by customer" {
			if snapshot := s.waitControl("snapshot"); snapshot["complete"] != false {
				t.Errorf("%s: snapshot = %v, want complete:false", name, snapshot)
			}
		}
		eventually(t, 20*time.Second, name+": the truth", func() bool {
			for _, it := range s.all() {
				if strings.Contains(it.event, old.OrderID) && strings.Contains(it.event, `"status":"shipped"`) {
					return true
				}
			}
			return false
		})
		s.waitStatus("live")
		s.close()
	}
	s := openSSE(t, g.mint(map[string]any{"customer_id": "cust_1"}).SSEURL, "")
	if snapshot := s.waitControl("snapshot"); snapshot["complete"] != true {
		t.Errorf("second visit: snapshot = %v, want complete", snapshot)
	}
}

// A client that behaves as Pepay's own: one token, since, REST backfill with the
// token as key, and every ws_control read as a call to backfill.
func TestPepaysOwnClientWorks(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, g := w.pepay, w.nodes[0]
	var answer struct {
		Data minted `json:"data"`
	}
	status := postJSON(t, g.url+"/api/v1/ws/token", testKey, map[string]any{"scope": "commerce", "ttl_seconds": 600, "customer_id": "cust_1"}, &answer)
	if status != 200 {
		t.Fatalf("mint: %d", status)
	}
	m := answer.Data
	connect := func(since string) *stream {
		q := []string{"token", m.Token, "format", "event_v1", "types", "commerce.order.*,invoice.*", "sdk", "1"}
		if since != "" {
			q = append(q, "since", since)
		}
		return dialWS(t, withQuery(m.WSURL, q...), nil, nil)
	}
	s := connect("")
	eventually(t, 10*time.Second, "subscribed", func() bool {
		return strings.Contains(metrics(g), `pepay_gateway_subscribers{stream="commerce"} 1`)
	})
	lifecycle(p, "cust_1")
	lifecycle(p, "cust_2")
	var truth []string
	for _, r := range p.record() {
		if r.CustomerID == "cust_1" && !strings.HasPrefix(r.Type, "invoice_payment.") {
			truth = append(truth, r.ID)
		}
	}
	if got := s.waitIDs(len(truth)); !slices.Equal(got, truth) {
		t.Errorf("got %v, want %v", got, truth)
	}
	for _, it := range s.all() {
		if it.control != nil {
			t.Errorf("control %v: it would be read as a call to backfill", it.control)
		}
	}
	s.close()

	half := truth[len(truth)/2]
	again := connect(half)
	if got, want := again.waitIDs(len(truth)-len(truth)/2-1), truth[len(truth)/2+1:]; !slices.Equal(got, want) {
		t.Errorf("since: got %v, want %v", got, want)
	}
	lost := connect("evt_1600000000000-1")
	lost.waitControl("reset")

	var got []string
	cursor := ""
	for range 20 {
		page := struct {
			Data struct {
				Data    []struct{ ID string } `json:"data"`
				HasMore bool                  `json:"has_more"`
			} `json:"data"`
		}{}
		status, body := get(t, g.url+"/api/v1/events?limit=4&type=commerce.order.*,invoice.*"+cursor, m.Token)
		if status != 200 {
			t.Fatalf("backfill: %d %s", status, body)
		}
		mustJSON(t, body, &page)
		for _, e := range page.Data.Data {
			got = append(got, e.ID)
			cursor = "&starting_after=" + e.ID
		}
		if !page.Data.HasMore {
			break
		}
	}
	slices.Reverse(got)
	if !slices.Equal(got, truth) {
		t.Errorf("backfill: got %v, want %v", got, truth)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	g := w.nodes[0]
	m := g.mint(map[string]any{"customer_id": "cust_1"})
	sse := g.url + "/sse/commerce/events?token="
	mine := w.pepay.order("cust_1")
	theirs := w.pepay.order("cust_2")
	eventually(t, 10*time.Second, "the order's state", func() bool {
		status, _ := get(t, g.url+"/api/v1/orders/"+mine.OrderID+"/state", m.Token)
		return status == 200
	})
	for _, c := range []struct {
		name, url, key string
		status         int
		code           string
	}{
		{"no token", g.url + "/sse/commerce/events", "", 401, ""},
		{"bad token", sse + "nonsense", "", 401, ""},
		{"filter outside the scope", sse + m.Token + "&customer_id=cust_2", "", 403, ""},
		{"malformed types", sse + m.Token + "&types=a*b", "", 400, ""},
		{"malformed since", sse + m.Token + "&since=" + strings.Repeat("x", 200), "", 400, ""},
		{"another's order", g.url + "/api/v1/orders/" + theirs.OrderID + "/state", m.Token, 404, ""},
		{"unknown order", g.url + "/api/v1/orders/nope/state", m.Token, 404, ""},
		{"bad limit", g.url + "/api/v1/events?limit=0", m.Token, 400, ""},
		{"no key", g.url + "/api/v1/events", "", 401, ""},
		{"not ours", g.url + "/api/v1/invoices", m.Token, 404, "NOT_PROXIED"},
	} {
		status, body := get(t, c.url, c.key)
		var e struct {
			Success *bool `json:"success"`
			Error   struct{ Code, Message string }
		}
		mustJSON(t, body, &e)
		if status != c.status || e.Success == nil || *e.Success || e.Error.Code == "" || e.Error.Message == "" {
			t.Errorf("%s: %d %s, want %d and the envelope", c.name, status, body, c.status)
		}
		if c.code != "" && e.Error.Code != c.code {
			t.Errorf("%s: code %s, want %s", c.name, e.Error.Code, c.code)
		}
	}
	big := map[string]any{"customer_id": strings.Repeat("x", 8192)}
	if status := postJSON(t, g.url+"/api/v1/ws/token", testKey, big, nil); status != http.StatusRequestEntityTooLarge {
		t.Errorf("big body: %d, want 413", status)
	}
}

func TestBadFramesDoNotStopTheStream(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	p, g := w.pepay, w.nodes[0]
	ops, _ := follow(t, g, map[string]any{})
	for _, frame := range []string{
		"not json", "{}", `{"object":"event"}`, `{"object":"ws_control","type":"weather"}`, `{"object":"martian","id":1}`,
		strings.Repeat("[", 5000), `{"object":"event","id":7,"type":{},"data":[]}`, `{"object":"event","id":"evt_1-1","data":{"object":null}}`,
	} {
		p.control("emit", map[string]any{"frame": frame, "repeat": 3})
	}
	p.control("emit", map[string]any{"frame": `{"object":"event","pad":"` + strings.Repeat("x", 3<<20) + `"}`})
	o := lifecycle(p, "cust_1")
	_ = o
	truth := w.owned("cust_1")
	for _, id := range truth {
		eventually(t, 30*time.Second, "good events arrive: "+id, func() bool { return ops.has(id) })
	}
	if got := within(ops.ids(), truth); !reflect.DeepEqual(got, truth) {
		t.Errorf("order %v, want %v", got, truth)
	}
}

// A plain EventSource keeps the URL it was given. It must come back for as long
// as the session lasts, long after the short token has expired.
func TestSSEURLOutlivesTheToken(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	g, p := w.nodes[0], w.pepay
	m := g.mint(map[string]any{"customer_id": "cust_1", "ttl_seconds": 1, "session_seconds": 600})
	s := openSSE(t, m.SSEURL, "")
	s.waitControl("replay_complete")
	lifecycle(p, "cust_1")
	s.waitIDs(len(w.owned("cust_1")))
	had := len(s.ids())
	s.close()
	eventually(t, 10*time.Second, "the token has expired", func() bool {
		status, _ := get(t, g.url+"/api/v1/events", m.Token)
		return status == 401
	})
	lifecycle(p, "cust_1")
	truth := w.owned("cust_1")
	cursor := s.cursor()
	for range 3 {
		again := openSSE(t, m.SSEURL, cursor)
		if hello := again.waitControl("hello"); hello["resumed"] != true {
			t.Errorf("hello = %v, want resumed", hello)
		}
		if got, want := again.waitIDs(len(truth)-had), truth[had:]; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %v, want %v", got, want)
		}
		again.close()
	}
	if _, status := dialSSE(t, withQuery(m.SSEURL, "token", m.Token), ""); status != 401 {
		t.Errorf("the expired token opens SSE: status %d, want 401", status)
	}
}
