package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The clients that people take from npm. They read the specification in
// different ways, and a browser's is a fourth: see browser_test.go.
//
//   - eventsource follows it: it comes back after an end and a cut, and never
//     after 204 or any other status but 200.
//   - @microsoft/fetch-event-source takes an end for a goodbye, and 204 for a
//     failure to be repeated, unless its handlers say otherwise, as its README
//     shows. It moves its cursor when it reads an id, not when the block is whole.
//   - eventsource-client comes back after everything but 204, also after a 401.
//   - eventsource-parser reads blocks, and leaves the rest to its caller.
var sseLibraries = []string{"eventsource", "fetch-event-source", "eventsource-client", "eventsource-parser"}

// bareFetch is fetch-event-source without handlers.
const bareFetch = "fetch-event-source-bare"

// An sseClient is one of them, in a node process of its own.
type sseClient struct {
	*process
	library string
}

// An sseLine is what web/test/sse-client.mjs prints.
type sseLine struct {
	Kind   string // request, answer, ended, block, stopped
	At     int64  // unix milliseconds
	Cursor string // of a request
	Status int    // of an answer
	Event  string // of a block
	ID     string // of the event, if it is one
	Data   string // of any other block
	Why    string // it stopped
}

// startSSEClient starts a client of a library, with the further arguments of
// web/test/sse-client.mjs.
func startSSEClient(t testing.TB, library string, args ...string) *sseClient {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: make setup installs what the tests need")
	}
	if _, err := os.Stat(filepath.Join(webDir, "node_modules", "eventsource")); err != nil {
		t.Fatal("web/node_modules is not complete: make setup installs what the tests need")
	}
	args = append([]string{filepath.Join(webDir, "test", "sse-client.mjs"), library}, args...)
	return &sseClient{start(t, node, args, []string{"API_KEY=" + testKey}), library}
}

// startSSEClients starts one of each library. Each mints a token of its own for
// the claims when it is ready to use it: sessions are short, and node is slow to
// start.
func startSSEClients(t testing.TB, g *gatewayProcess, claims map[string]any, libraries ...string) []*sseClient {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	var all []*sseClient
	for _, library := range libraries {
		all = append(all, startSSEClient(t, library, g.url+"/api/v1/ws/token", string(body)))
	}
	return all
}

func (c *sseClient) lines() []sseLine {
	var out []sseLine
	for line := range strings.Lines(c.output()) {
		var l sseLine
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &l) == nil {
			out = append(out, l)
		}
	}
	return out
}

func (c *sseClient) kind(kind string) []sseLine {
	return slices.DeleteFunc(c.lines(), func(l sseLine) bool { return l.Kind != kind })
}

// ids returns the ids of the events, as often as they came.
func (c *sseClient) ids() []string {
	var out []string
	for _, l := range c.kind("block") {
		if l.Event == "" {
			out = append(out, l.ID)
		}
	}
	return out
}

// controls returns the controls of a type.
func (c *sseClient) controls(kind string) []map[string]any {
	var out []map[string]any
	for _, l := range c.kind("block") {
		var control map[string]any
		if l.Event == "control" && json.Unmarshal([]byte(l.Data), &control) == nil && control["type"] == kind {
			out = append(out, control)
		}
	}
	return out
}

func (c *sseClient) waitControls(kind string, n int) {
	c.t.Helper()
	eventually(c.t, 30*time.Second, c.library+" is told "+kind, func() bool { return len(c.controls(kind)) >= n })
}

func (c *sseClient) waitIDs(n int) {
	c.t.Helper()
	eventually(c.t, 30*time.Second, c.library+" has its events", func() bool { return len(c.ids()) >= n })
}

// waitExit waits until the client has given up, and with it the process.
func (c *sseClient) waitExit() {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%s has not given up", c.library)
	}
	if got := c.cmd.ProcessState.ExitCode(); got != 0 {
		c.t.Errorf("%s: exit code = %d, want 0", c.library, got)
	}
}

// checkResumed checks that the client got exactly the truth, in its order, and
// resumed each time it came back.
func (c *sseClient) checkResumed(truth []string, connections int) {
	c.t.Helper()
	if got := c.ids(); !slices.Equal(got, truth) {
		c.t.Errorf("%s: events %v, want %v", c.library, got, truth)
	}
	if got := len(c.controls("reset")); got != 0 {
		c.t.Errorf("%s: %d resets, want none", c.library, got)
	}
	hellos := c.controls("hello")
	if got := len(hellos); got != connections {
		c.t.Errorf("%s: admitted %d times, want %d", c.library, got, connections)
	}
	for i, hello := range hellos {
		if got, want := hello["resumed"], i > 0; got != want {
			c.t.Errorf("%s: stream %d: resumed = %v, want %v", c.library, i, got, want)
		}
	}
	for i, request := range c.kind("request") {
		if got, want := strings.HasPrefix(request.Cursor, "cur_"), i > 0; got != want {
			c.t.Errorf("%s: request %d: Last-Event-ID = %q, want a cursor: %v", c.library, i, request.Cursor, want)
		}
	}
}

// checkPatience checks that the client stayed away for as long as it was told
// when it was sent away with this code.
func (c *sseClient) checkPatience(code float64) {
	c.t.Helper()
	var told, ended int64
	checked := 0
	for _, l := range c.lines() {
		switch l.Kind {
		case "block":
			var control struct {
				Type      string  `json:"type"`
				Code      float64 `json:"code"`
				Reconnect bool    `json:"reconnect"`
				RetryMS   int64   `json:"retry_ms"`
			}
			told = 0
			if l.Event == "control" && json.Unmarshal([]byte(l.Data), &control) == nil && control.Type == "disconnect" {
				if !control.Reconnect || control.RetryMS <= 0 {
					c.t.Errorf("%s: %s, want one to come back after a while", c.library, l.Data)
				}
				if control.Code == code {
					told = control.RetryMS
				}
			}
		case "ended":
			ended = l.At
		case "request":
			const slack = 20 // a timer's and a clock's rounding
			if told > 0 {
				checked++
				if got := l.At - ended; got < told-slack {
					c.t.Errorf("%s: came back after %d ms, want the %d ms it was told", c.library, got, told)
				}
			}
			told = 0
		}
	}
	if checked == 0 {
		c.t.Errorf("%s: never came back from %v, want at least once", c.library, code)
	}
}

// startGatewayAt starts a node at an address of the caller's choice, which
// clients reach under public.
func startGatewayAt(t testing.TB, name, addr, public string, redis *redisServer, p *pepay, env ...string) *gatewayProcess {
	t.Helper()
	g := launchGateway(t, name, redis, p, append([]string{"GATEWAY_LISTEN=" + addr, "GATEWAY_PUBLIC_URL=" + public}, env...)...)
	g.url = "http://" + addr
	g.waitReady()
	return g
}

func TestSSEClientsResumeAfterCutCrashAndDrain(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	b := startGateway(t, "node-b", redis, p)
	b.waitLive()
	addr := freeAddr(t)
	way := startProxy(t, addr)
	a := startGatewayAt(t, "node-a", addr, way.url(), redis, p)
	a.waitLive()
	clients := startSSEClients(t, a, map[string]any{"customer_id": "cust_1"}, append([]string{bareFetch}, sseLibraries...)...)
	for _, c := range clients {
		c.waitControls("replay_complete", 1)
	}
	w := &world{redis: redis, pepay: p}
	settle := func(who []*sseClient) {
		lifecycle(p, "cust_1")
		lifecycle(p, "cust_2")
		for _, c := range who {
			c.waitIDs(len(w.owned("cust_1")))
		}
	}
	settle(clients)
	bare, clients := clients[0], clients[1:]
	had := w.owned("cust_1")
	way.end(true)
	// Node takes even a reset for the end of an answer without a length.
	bare.waitExit()
	bare.checkResumed(had, 1)
	settle(clients)

	a.kill()
	a = startGatewayAt(t, "node-a", addr, way.url(), redis, p)
	settle(clients)

	way.retarget(b.url)
	if code := a.terminate(15 * time.Second); code != 0 {
		t.Errorf("exit code of the drained node = %d, want 0", code)
	}
	settle(clients)
	for _, c := range clients {
		c.checkResumed(w.owned("cust_1"), 4)
		c.checkPatience(1012)
	}
}

// A connection that dies within a block: whoever has read its id, and not all of
// its data, must not come back behind it.
func TestSSEClientsLoseNothingToACutWithinABlock(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	w := &world{redis: redis, pepay: p}
	var clients []*sseClient
	for _, library := range sseLibraries {
		way := startProxy(t, g.url)
		way.cutAt(`"status":"shipped"`)
		c := startSSEClient(t, library, strings.Replace(g.mint(map[string]any{"customer_id": "cust_1"}).SSEURL, g.url, way.url(), 1))
		c.waitControls("replay_complete", 1)
		clients = append(clients, c)
	}
	lifecycle(p, "cust_1")
	for _, c := range clients {
		c.waitControls("hello", 2)
		c.waitIDs(len(w.owned("cust_1")))
		c.checkResumed(w.owned("cust_1"), 2)
	}
}

func TestSSEClientsComeBackFromOverload(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	addr := freeAddr(t)
	way := startProxy(t, addr)
	g := startGatewayAt(t, "node-a", addr, way.url(), redis, p, "GATEWAY_LIMITS_CONNECTIONS="+strconv.Itoa(len(sseLibraries)))
	g.waitLive()
	w := &world{redis: redis, pepay: p}
	clients := startSSEClients(t, g, map[string]any{"customer_id": "cust_1"}, sseLibraries...)
	for _, c := range clients {
		c.waitControls("replay_complete", 1)
	}
	lifecycle(p, "cust_1")
	for _, c := range clients {
		c.waitIDs(len(w.owned("cust_1")))
	}

	var urls []string // past the way; each is good for one stream
	for range clients {
		urls = append(urls, strings.Replace(g.mint(map[string]any{"customer_id": "cust_2"}).SSEURL, way.addr(), addr, 1))
	}
	way.freeze(requests) // nobody is back before the others are there
	way.end(true)
	var others []*stream
	eventually(t, 10*time.Second, "others have taken their places", func() bool {
		s := openSSE(t, urls[len(others)], "")
		eventually(t, 10*time.Second, "an answer", func() bool { return s.count("hello")+s.count("disconnect") > 0 })
		if s.count("hello") > 0 {
			others = append(others, s)
		}
		return len(others) == len(clients)
	})
	way.heal()
	lifecycle(p, "cust_1")
	for _, c := range clients {
		c.waitControls("disconnect", 1)
	}
	for _, s := range others {
		s.close()
	}
	for _, c := range clients {
		c.waitIDs(len(w.owned("cust_1")))
		c.checkResumed(w.owned("cust_1"), 2)
		c.checkPatience(1013)
	}
}

func TestSSEClientsStopWhenTheyShould(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	g.waitLive()
	p.order("cust_1")
	all := append([]string{bareFetch}, sseLibraries...)
	expiring := startSSEClients(t, g, map[string]any{"customer_id": "cust_1", "ttl_seconds": 1, "session_seconds": 8}, all...)
	var replaced []*sseClient
	var newer []*stream
	for _, library := range all {
		url := g.mint(map[string]any{"customer_id": "cust_1"}).SSEURL
		c := startSSEClient(t, library, url)
		c.waitControls("replay_complete", 1)
		newer = append(newer, openSSE(t, url, ""))
		replaced = append(replaced, c)
	}
	var refused []*sseClient
	for _, library := range all {
		refused = append(refused, startSSEClient(t, library, g.url+"/sse/commerce/events?token=nonsense"))
	}

	check := func(c *sseClient, code, end string) {
		t.Helper()
		c.waitExit()
		var last sseLine
		for _, l := range c.kind("block") {
			last = l
		}
		if last.Event != "error_frame" || !strings.Contains(last.Data, `"`+code+`"`) {
			t.Errorf("%s: last told %q %s, want %s", c.library, last.Event, last.Data, code)
		}
		// All but the one that takes an orderly end for the last word ask once
		// more, and are answered that there is nothing for them, for good.
		wantCursors, wantStatuses := []string{"", end}, []int{200, 204}
		if c.library == bareFetch {
			wantCursors, wantStatuses = wantCursors[:1], wantStatuses[:1]
		}
		var cursors []string
		for _, l := range c.kind("request") {
			cursors = append(cursors, l.Cursor)
		}
		var statuses []int
		for _, l := range c.kind("answer") {
			statuses = append(statuses, l.Status)
		}
		if !slices.Equal(cursors, wantCursors) || !slices.Equal(statuses, wantStatuses) {
			t.Errorf("%s: asked with %q, answered %v; want %q and %v", c.library, cursors, statuses, wantCursors, wantStatuses)
		}
		if got := len(c.kind("stopped")); got != 1 {
			t.Errorf("%s: says %d times that it has stopped, want once", c.library, got)
		}
	}
	for _, c := range expiring {
		check(c, "SESSION_EXPIRED", "end_4401")
	}
	for _, c := range replaced {
		check(c, "REPLACED", "end_4409")
	}
	for _, s := range newer {
		if n := s.count("disconnect"); n != 0 {
			t.Errorf("the newer stream was sent away")
		}
		select {
		case <-s.done:
			t.Errorf("the newer stream has ended: %v", s.waitEnd())
		default:
		}
	}
	for _, c := range refused {
		switch c.library {
		case "eventsource", "fetch-event-source", "eventsource-parser":
			c.waitExit()
			if got := len(c.kind("request")); got != 1 {
				t.Errorf("%s: asked %d times with a bad token, want once", c.library, got)
			}
		default: // nothing that a server says stops these, but they do not hurry
			eventually(t, 10*time.Second, c.library+" asks again", func() bool { return len(c.kind("answer")) > 1 })
		}
		for _, l := range c.kind("answer") {
			if l.Status != 401 {
				t.Errorf("%s: status = %d with a bad token, want 401", c.library, l.Status)
			}
		}
	}
}
