package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// visitorSilence is when a visitor takes its stream for dead: more than two
// heartbeats.
const visitorSilence = 40 * time.Second

// A visitor is a page that follows the orders of one customer, and comes back
// with its cursor when its stream ends, no sooner than it was told. It is one
// goroutine, so that thousands fit.
type visitor struct {
	crowd    *crowd
	customer string
	ws       bool
	url      string // with the token, for SSE
	token    string // for WebSocket

	// For its goroutine only.
	cursor string
	retry  time.Duration
	left   time.Time // when it lost its stream; zero while it has one

	mu      sync.Mutex // guards the fields below
	ids     []string   // first occurrences
	have    map[string]struct{}
	settled bool // it holds a cursor
	doubled int
	resets  int
	lost    string // why it has given up, if it has
}

// A crowd is many visitors, and what the gateways see of them together.
type crowd struct {
	ctx      context.Context
	wg       sync.WaitGroup
	visitors []*visitor

	mu       sync.Mutex // guards the fields below
	connects []connect
	failures int // dials that reached no gateway
}

// A connect is a stream that a gateway answered, if only to turn it away.
type connect struct {
	left     time.Time // when the client lost the stream that it had; zero for its first
	at       time.Time
	admitted bool
}

// startCrowd starts n visitors of customers cust_1 to cust_<customers>, half of
// them on WebSockets, and waits until all of them hold a cursor. They end with
// the test.
func startCrowd(t testing.TB, g *gatewayProcess, n, customers int) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{ctx: ctx}
	t.Cleanup(func() {
		cancel()
		c.wg.Wait()
	})
	for i := range n {
		s := &visitor{crowd: c, customer: fmt.Sprintf("cust_%d", i%customers+1), ws: i/customers%2 == 0, have: map[string]struct{}{}}
		m := g.mint(map[string]any{"customer_id": s.customer, "ttl_seconds": 3600})
		s.url, s.token = m.SSEURL, m.Token
		if s.ws {
			s.url = m.WSURL
		}
		c.visitors = append(c.visitors, s)
		c.wg.Go(s.run)
		if i%100 == 99 { // what a listener's backlog holds
			c.waitSettled(t)
		}
	}
	c.waitSettled(t)
	return c
}

func (c *crowd) waitSettled(t testing.TB) {
	t.Helper()
	eventually(t, 60*time.Second, "every visitor holds a cursor", func() bool {
		for _, s := range c.visitors {
			s.mu.Lock()
			settled := s.settled
			s.mu.Unlock()
			if !settled {
				return false
			}
		}
		return true
	})
}

// run follows until the crowd's context ends, or it was told not to come back.
func (s *visitor) run() {
	for s.crowd.ctx.Err() == nil {
		s.retry = time.Second + rand.N(2*time.Second) // until told otherwise
		var err error
		if s.ws {
			err = s.followWS()
		} else {
			err = s.followSSE()
		}
		if err != nil {
			s.mu.Lock()
			s.lost = err.Error()
			s.mu.Unlock()
			return
		}
		if s.left.IsZero() {
			s.left = time.Now()
		}
		wait := time.NewTimer(s.retry)
		select {
		case <-s.crowd.ctx.Done():
			wait.Stop()
		case <-wait.C:
		}
	}
}

// followSSE follows one SSE stream. An error means that an EventSource would
// not come back.
func (s *visitor) followSSE() error {
	u, err := url.Parse(s.url)
	if err != nil {
		return err
	}
	conn, err := s.crowd.dial(u.Host)
	if err != nil {
		return nil
	}
	defer s.crowd.closing(conn)()
	last := ""
	if s.cursor != "" {
		last = "Last-Event-ID: " + s.cursor + "\r\n"
	}
	_ = conn.SetDeadline(time.Now().Add(visitorSilence)) // fails only when closed
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n%s\r\n", u.RequestURI(), u.Host, last); err != nil {
		return nil
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	r := bufio.NewReader(resp.Body)
	var event, id, data string
	first := true
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil
		}
		_ = conn.SetDeadline(time.Now().Add(visitorSilence))
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "retry":
			if ms, err := strconv.Atoi(value); err == nil {
				s.retry = time.Duration(ms) * time.Millisecond
			}
		case "event":
			event = value
		case "id":
			id = value
		case "data":
			data = value
		case "":
			if data != "" {
				s.take(event, data, id, first)
				first = false
			}
			event, id, data = "", "", ""
		}
	}
}

// followWS follows one WebSocket. An error means that a page should not come
// back.
func (s *visitor) followWS() error {
	d := websocket.Dialer{
		Subprotocols: []string{"pepay.v1", "bearer." + s.token}, HandshakeTimeout: visitorSilence,
		ReadBufferSize: 4096, WriteBufferSize: 512,
	}
	target := s.url
	if s.cursor != "" {
		target = withQuery(target, "since", s.cursor)
	}
	conn, resp, err := d.DialContext(s.crowd.ctx, target, nil)
	if err != nil {
		if resp != nil {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		s.crowd.failed()
		return nil
	}
	defer s.crowd.closing(conn.NetConn())()
	first := true
	for {
		_ = conn.SetReadDeadline(time.Now().Add(visitorSilence))
		_, msg, err := conn.ReadMessage()
		if websocket.IsCloseError(err, 1008, 1009, 4400, 4401, 4403, 4409) {
			return err // what protocol.md says not to come back from
		}
		if err != nil {
			return nil
		}
		kind := ""
		if strings.HasPrefix(string(msg), `{"object":"ws_`) {
			kind = "control"
		}
		s.take(kind, string(msg), "", first)
		first = false
	}
}

// take takes what a stream brought; first says that it is the first of its
// stream.
func (s *visitor) take(event, data, sseID string, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if event == "" {
		id := eventID(data)
		if s.ws {
			s.cursor = id
		}
		if _, ok := s.have[id]; ok {
			s.doubled++
		} else {
			s.have[id] = struct{}{}
			s.ids = append(s.ids, id)
		}
	}
	var control struct {
		Type   string `json:"type"`
		Cursor string `json:"cursor"`
		Retry  int64  `json:"retry_ms"`
	}
	if event != "" {
		_ = json.Unmarshal([]byte(data), &control) // what it is not, it has no type of
	}
	switch control.Type {
	case "reset":
		s.resets++
		s.cursor = ""
	case "disconnect":
		s.retry = time.Duration(control.Retry) * time.Millisecond
	case "tip", "replay_complete":
		if s.ws && control.Cursor != "" {
			s.cursor = control.Cursor
		}
	}
	if sseID != "" {
		s.cursor = sseID
	}
	s.settled = s.cursor != ""
	if first {
		admitted := control.Type == "hello"
		s.crowd.connected(connect{s.left, time.Now(), admitted})
		if admitted {
			s.left = time.Time{}
		}
	}
}

func (c *crowd) dial(host string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: visitorSilence}).DialContext(c.ctx, "tcp", host)
	if err != nil {
		c.failed()
	}
	return conn, err
}

// closing closes conn when the crowd ends, or when the returned function is called.
func (c *crowd) closing(conn net.Conn) func() {
	stop := context.AfterFunc(c.ctx, func() { _ = conn.Close() })
	return func() {
		stop()
		_ = conn.Close() // nothing is left to say
	}
}

func (c *crowd) connected(k connect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connects = append(c.connects, k)
}

// connectCount returns how many streams gateways have answered so far.
func (c *crowd) connectCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.connects)
}

func (c *crowd) failed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures++
}

// A crowdResult is what became of a crowd, held against the truth. Events may be
// repeated for those who resume from an event's id: it does not say on which
// side of a change of leaders it was received. All else must be zero.
type crowdResult struct {
	events, repeated                                  int
	missing, foreign, disorder, doubled, resets, lost int
}

// checkPerfect checks that some events came, and that nothing was wrong.
func (r crowdResult) checkPerfect(t testing.TB) {
	t.Helper()
	if want := (crowdResult{events: max(r.events, 1), repeated: r.repeated}); r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
}

// check holds every visitor against the events that were recorded since from.
func (c *crowd) check(t testing.TB, record []recorded) crowdResult {
	t.Helper()
	truth := map[string][]string{}
	for _, r := range record {
		if subscribed(r.Type) {
			truth[r.CustomerID] = append(truth[r.CustomerID], r.ID)
		}
	}
	var out crowdResult
	for _, s := range c.visitors {
		s.mu.Lock()
		want := truth[s.customer]
		owed := make(map[string]struct{}, len(want))
		for _, id := range want {
			owed[id] = struct{}{}
			if _, ok := s.have[id]; !ok {
				out.missing++
			}
		}
		i := 0
		for _, id := range s.ids {
			if _, ok := owed[id]; !ok {
				out.foreign++
				continue
			}
			if i < len(want) && want[i] == id {
				i++
			} else {
				out.disorder++
			}
		}
		out.events += len(s.ids)
		if s.ws {
			out.repeated += s.doubled
		} else {
			out.doubled += s.doubled
		}
		out.resets += s.resets
		if s.lost != "" {
			out.lost++
			t.Logf("a visitor of %s has given up: %s", s.customer, s.lost)
		}
		s.mu.Unlock()
	}
	return out
}

// waitComplete waits until nobody lacks anything, and returns what became of all.
func (c *crowd) waitComplete(t testing.TB, p *pepay) crowdResult {
	t.Helper()
	record := p.record()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		out := c.check(t, record)
		if out.missing == 0 || out.lost > 0 || time.Now().After(deadline) {
			return out
		}
		<-tick.C
	}
}
