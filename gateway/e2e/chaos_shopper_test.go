package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fasthttp/websocket"
)

// The kinds of shoppers: how their page listens.
const (
	kindWS     = "ws"     // pepay.v1, cursors
	kindSSE    = "sse"    // fetch-SSE, a new token for every connection
	kindNative = "native" // EventSource on the sse_url
	kindBare   = "bare"   // Pepay's own client: no controls, event ids
)

var shopperKinds = [...]string{kindWS, kindSSE, kindNative, kindBare}

const (
	// A stream that brings nothing for this long is taken for dead: heartbeats
	// come each 15 s.
	deafAfter  = 38 * time.Second
	maxBackoff = 2 * time.Second
)

// A delivery is what a shopper was brought first under one id.
type delivery struct {
	hash     uint64
	order    string // of the gateway's own events, "" of others
	at       time.Time
	times    int
	snapshot bool
}

// A cover is what one snapshot showed: nothing older is owed any more. One that
// was not complete goes on until the stream says that it is.
type cover struct {
	at       time.Time
	shown    map[subject]version
	statuses map[string]string // order → status of a gateway's own event
	left     int               // events of it yet to come
	open     bool              // not complete
}

// A shopper is a page that follows one customer's orders, reconnects as the
// documentation says, and remembers everything it was brought.
type shopper struct {
	customer string
	kind     string
	byOrders bool // the token names the orders, not the customer
	claims   map[string]any
	site     *site
	born     time.Time
	rand     *rand.Rand

	mu         sync.Mutex // guards the fields below
	wake       chan struct{}
	got        map[string]*delivery
	firsts     []string // ids of live events, first occurrences in order; "" where a snapshot began
	covers     []*cover
	resets     []time.Time
	status     string
	statusAt   time.Time
	heard      time.Time
	connected  bool
	cursor     string    // as Last-Event-ID or since
	asleep     time.Time // until then the phone sleeps
	stalled    time.Time // until then nothing is read
	cut        func()    // ends the connection there is
	streams    int
	promised   bool // a cursor was presented and nothing has answered for it yet
	violations []string
	closes     map[string]int
	session    string // the sse_url in use, "" for a new one
	retry      time.Duration

	reads sync.WaitGroup // of order states
}

func newShopper(s *site, customer, kind string, seed uint64) *shopper {
	return &shopper{
		customer: customer, kind: kind, site: s, born: time.Now(), rand: rand.New(rand.NewPCG(seed, 1)),
		claims: map[string]any{"customer_id": customer}, wake: make(chan struct{}, 1),
		got: map[string]*delivery{}, closes: map[string]int{},
	}
}

func (s *shopper) violate(format string, args ...any) {
	if len(s.violations) < 20 {
		s.violations = append(s.violations, fmt.Sprintf("%s %s: ", s.kind, s.customer)+fmt.Sprintf(format, args...))
	}
}

// run keeps a stream open until ctx ends.
func (s *shopper) run(ctx context.Context) {
	defer s.reads.Wait()
	failures := 0
	for ctx.Err() == nil {
		s.mu.Lock()
		asleep, retry := time.Until(s.asleep), s.retry
		s.retry = 0
		s.mu.Unlock()
		if asleep > 0 {
			retry = asleep
		}
		s.pause(ctx, retry)
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		why := s.connect(ctx)
		s.mu.Lock()
		s.connected, s.cut = false, nil
		s.closes[why]++
		if time.Since(began) > 5*time.Second {
			failures = 0
		}
		if s.retry == 0 {
			s.retry = time.Duration(s.rand.Int64N(int64(min(maxBackoff, 250*time.Millisecond<<min(failures, 5)))))
		}
		failures++
		s.mu.Unlock()
	}
}

// pause waits for d, or until woken.
func (s *shopper) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-s.wake:
	}
}

// connect opens one stream and reads it until it ends; it returns why.
func (s *shopper) connect(ctx context.Context) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := s.site.someNode(s.rand)
	m, err := s.site.mint(ctx, n, s.claims)
	if err != nil {
		return "mint"
	}
	s.mu.Lock()
	cursor, session := s.cursor, s.session
	s.streams++
	s.mu.Unlock()
	switch s.kind {
	case kindWS:
		return s.readWS(ctx, n.front.addr(), m.Token, []string{"pepay.v1", "bearer." + m.Token}, cursor)
	case kindBare:
		return s.readWS(ctx, n.front.addr(), m.Token, nil, cursor)
	case kindSSE:
		return s.readSSE(ctx, "http://"+n.front.addr()+"/sse/commerce/events?token="+m.Token, cursor)
	}
	if session == "" {
		u, err := url.Parse(m.SSEURL)
		if err != nil {
			return "sse_url"
		}
		session = u.RequestURI()
		s.mu.Lock()
		s.session = session
		s.mu.Unlock()
	}
	return s.readSSE(ctx, "http://"+n.front.addr()+session, cursor)
}

// opened notes a connection and how to cut it. It refuses while the phone sleeps.
func (s *shopper) opened(cursor string, cut func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.asleep) {
		return false
	}
	s.connected, s.heard, s.status, s.cut = true, time.Now(), "", cut
	s.promised = cursor != "" && s.kind != kindBare
	if s.kind == kindBare && cursor == "" {
		s.readStatesLocked()
	}
	return true
}

// readStatesLocked reads the state of the orders by REST: a page that gets no
// snapshot does that when it begins, and on reset.
func (s *shopper) readStatesLocked() {
	c := s.coverLocked(0, true)
	s.reads.Go(func() { s.site.readStates(s, c) })
}

func (s *shopper) readWS(ctx context.Context, addr, token string, protocols []string, cursor string) string {
	q := url.Values{}
	if cursor != "" {
		q.Set("since", cursor)
	}
	if protocols == nil {
		q.Set("token", token)
	}
	d := websocket.Dialer{Subprotocols: protocols, HandshakeTimeout: 5 * time.Second}
	dctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	conn, resp, err := d.DialContext(dctx, "ws://"+addr+"/ws/commerce/events?"+q.Encode(), nil)
	cancel()
	if err != nil {
		if resp != nil {
			return fmt.Sprint("dial ", resp.StatusCode)
		}
		return "dial"
	}
	defer func() { _ = conn.Close() }() // it has been read to its end
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if !s.opened(cursor, func() { _ = conn.NetConn().Close() }) {
		return "asleep"
	}
	conn.SetPingHandler(func(data string) error { // a plain stream's heartbeat
		s.mu.Lock()
		s.heard = time.Now()
		s.mu.Unlock()
		_ = conn.SetReadDeadline(time.Now().Add(deafAfter))
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
	})
	for {
		s.stall(ctx)
		_ = conn.SetReadDeadline(time.Now().Add(deafAfter))
		_, msg, err := conn.ReadMessage()
		if err != nil {
			var ce *websocket.CloseError
			if errors.As(err, &ce) {
				s.ended(ce.Code)
				return strconv.Itoa(ce.Code)
			}
			return "cut"
		}
		var head struct {
			Object string `json:"object"`
		}
		_ = json.Unmarshal(msg, &head) // what is no object is an event, and foreign
		switch head.Object {
		case "ws_control":
			s.control(msg, "")
		case "ws_error":
		default:
			s.event(string(msg), "")
		}
	}
}

func (s *shopper) readSSE(ctx context.Context, rawURL, cursor string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		return "url"
	}
	if cursor != "" {
		req.Header.Set("Last-Event-ID", cursor)
	}
	deaf := time.AfterFunc(6*time.Second, cancel)
	defer deaf.Stop()
	resp, err := s.site.transport.RoundTrip(req)
	if err != nil {
		return "dial"
	}
	defer func() { _ = resp.Body.Close() }() // it has been read to its end
	if resp.StatusCode != http.StatusOK {
		// A native EventSource is dead for good now; its page makes a new one.
		s.mu.Lock()
		s.session, s.cursor = "", ""
		s.mu.Unlock()
		return fmt.Sprint("status ", resp.StatusCode)
	}
	if !s.opened(cursor, cancel) {
		return "asleep"
	}
	r := bufio.NewReaderSize(resp.Body, 4096)
	var event, id string
	var data []byte
	hasID := false
	for {
		s.stall(ctx)
		deaf.Reset(deafAfter)
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			more, err2 := r.ReadSlice('\n')
			line, err = append(bytes.Clone(line), more...), err2
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return "end"
			}
			return "cut"
		}
		text := strings.TrimSuffix(string(line), "\n")
		field, value, _ := strings.Cut(text, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case text == "":
			if hasID {
				s.mu.Lock()
				s.cursor = id
				s.mu.Unlock()
			}
			switch event {
			case "":
				if data != nil {
					s.event(string(data), id)
				}
			case "control":
				s.control(data, id)
			case "error_frame":
				var e struct{ Code string }
				_ = json.Unmarshal(data, &e) // only counted
				s.mu.Lock()
				s.closes[e.Code]++
				s.mu.Unlock()
			}
			event, id, data, hasID = "", "", nil, false
		case field == "event":
			event = value
		case field == "id":
			id, hasID = value, true
		case field == "retry":
			if ms, err := strconv.Atoi(value); err == nil {
				s.mu.Lock()
				s.retry = time.Duration(ms) * time.Millisecond
				s.mu.Unlock()
			}
		case field == "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(append(make([]byte, 0, len(data)+len(value)), data...), value...)
		}
	}
}

// stall reads nothing while it should not.
func (s *shopper) stall(ctx context.Context) {
	s.mu.Lock()
	d := time.Until(s.stalled)
	s.mu.Unlock()
	if d > 0 {
		s.pause(ctx, d)
	}
}

// ended obeys a close code.
func (s *shopper) ended(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code {
	case 4400, 4403, 1008, 1009, 1011:
		s.violate("closed with %d", code)
	}
}

func (s *shopper) event(raw, _ string) {
	p := parsePayload(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.heard = now
	if s.promised {
		s.violate("event %s before the cursor was answered", p.ID)
		s.promised = false
	}
	sub := subject{p.Data.Object.ID, objectOf(p.Type)}
	own := strings.HasPrefix(p.ID, "gw_")
	inSnapshot := false
	if n := len(s.covers); n > 0 && (s.covers[n-1].left > 0 || s.covers[n-1].open) {
		c := s.covers[n-1]
		inSnapshot = true // or completes one
		c.left = max(c.left-1, 0)
		if own {
			c.statuses[sub.order] = p.status()
		} else if f := s.site.truth.fact(p.ID); f != nil {
			c.shown[f.subject] = later(c.shown[f.subject], f.version)
		} else { // the record is read a moment later: by its own text
			c.shown[subject{s.orderOf(raw), sub.object}] = versionOf(p.ID)
		}
	}
	d := s.got[p.ID]
	if d == nil {
		d = &delivery{hash: hashOf(raw), at: now, snapshot: inSnapshot}
		if own {
			d.order = p.Data.Object.ID
		}
		s.got[p.ID] = d
		if !inSnapshot && !own {
			s.firsts = append(s.firsts, p.ID)
		}
	} else if d.hash != hashOf(raw) {
		s.violate("event %s came with two texts", p.ID)
	}
	d.times++
	if !own {
		if s.kind == kindBare {
			s.cursor = p.ID
		}
	}
}

func later(a, b version) version {
	if a.compare(b) < 0 {
		return b
	}
	return a
}

// orderOf reads an event's order as a page would.
func (s *shopper) orderOf(raw string) string {
	var p struct {
		Data struct {
			Object map[string]any `json:"object"`
		} `json:"data"`
	}
	_ = json.Unmarshal([]byte(raw), &p) // nothing to be found then
	for _, name := range []string{"orderId", "commerce_order_id"} {
		if id, ok := p.Data.Object[name].(string); ok {
			return id
		}
	}
	return ""
}

func (s *shopper) control(raw []byte, _ string) {
	var c struct {
		Type     string  `json:"type"`
		Resumed  bool    `json:"resumed"`
		Cursor   *string `json:"cursor"`
		Status   string  `json:"status"`
		Count    int     `json:"count"`
		Complete bool    `json:"complete"`
		RetryMS  int     `json:"retry_ms"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
	switch c.Type {
	case "hello":
		s.promised = s.promised && !c.Resumed
		s.statusIs(c.Status)
	case "status":
		s.statusIs(c.Status)
	case "reset":
		s.promised = false
		if !s.priorLocked() {
			s.resets = append(s.resets, time.Now())
		}
		if s.kind == kindWS {
			s.cursor = ""
		}
		if s.kind == kindBare {
			s.cursor = ""
			s.readStatesLocked()
		}
	case "snapshot":
		if s.promised {
			s.violate("snapshot instead of an answer to the cursor")
			s.promised = false
		}
		s.coverLocked(c.Count, !c.Complete)
	case "tip", "replay_complete":
		if s.promised {
			s.violate("%s before the cursor was answered", c.Type)
			s.promised = false
		}
		if c.Cursor != nil && s.kind == kindWS {
			s.cursor = *c.Cursor
		}
	case "disconnect":
		s.retry = time.Duration(c.RetryMS) * time.Millisecond
	}
}

// priorLocked says whether the event that the stream continues behind may be older
// than the log's history: that is told whenever it is named, not once.
func (s *shopper) priorLocked() bool {
	at := time.Now() // of what the record as read so far does not have
	if f := s.site.truth.fact(s.cursor); f != nil {
		at = f.at
	}
	return s.kind == kindBare && s.cursor != "" && at.Before(s.site.renewed().Add(youngLog))
}

// coverLocked begins a snapshot of n events.
func (s *shopper) coverLocked(n int, open bool) *cover {
	c := &cover{at: time.Now(), left: n, open: open, shown: map[subject]version{}, statuses: map[string]string{}}
	s.covers = append(s.covers, c)
	s.firsts = append(s.firsts, "")
	return c
}

func (s *shopper) statusIs(status string) {
	if status != s.status {
		s.status, s.statusAt = status, time.Now()
	}
	if n := len(s.covers); n > 0 && status == "live" {
		s.covers[n-1].open = false
	}
}

// shownLocked says what each snapshot showed of an order, for the report of
// what is missing.
func (s *shopper) shownLocked(order string) string {
	var b strings.Builder
	for _, c := range s.covers {
		fmt.Fprintf(&b, "at %s open %v", c.at.Format(clockFormat), c.open)
		for k, v := range c.shown {
			if k.order == order {
				fmt.Fprintf(&b, " %s %d-%d", k.object, v.ms, v.seq)
			}
		}
		if status, ok := c.statuses[order]; ok {
			fmt.Fprintf(&b, " %s", status)
		}
		b.WriteString("; ")
	}
	return b.String()
}

// sleep puts the phone to sleep: the connection is gone, without a word.
func (s *shopper) sleep(d time.Duration) {
	s.mu.Lock()
	s.asleep = time.Now().Add(d)
	cut := s.cut
	s.mu.Unlock()
	if cut != nil {
		cut()
	}
}

// stop reads nothing for d; the connection stays.
func (s *shopper) stop(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = time.Now().Add(d)
}

// forge makes the next connection present a cursor that is nobody's.
func (s *shopper) forge(cursor string) {
	s.mu.Lock()
	s.cursor = cursor
	cut := s.cut
	s.mu.Unlock()
	if cut != nil {
		cut()
	}
}

// missing returns what the shopper is owed and has neither received nor been
// shown newer of.
func (s *shopper) missing(facts []*fact) []*fact {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*fact
	for _, f := range facts {
		if s.got[f.id] == nil && !s.coveredLocked(f, time.Now()) {
			out = append(out, f)
		}
	}
	return out
}

// coveredLocked says whether a snapshot that began before then has shown f's
// object at least as new.
func (s *shopper) coveredLocked(f *fact, then time.Time) bool {
	for _, c := range s.covers {
		if c.at.After(then) {
			break
		}
		if v, ok := c.shown[f.subject]; ok && f.version.compare(v) <= 0 {
			return true
		}
		// An order tells of its invoice and its payment too.
		if v, ok := c.shown[subject{f.subject.order, "order"}]; ok && f.version.compare(s.site.truth.coveredUpTo(f.subject.order, v)) <= 0 {
			return true
		}
		if status, ok := c.statuses[f.subject.order]; ok && f.version.compare(s.site.truth.coveredBy(f.subject.order, status)) <= 0 {
			return true
		}
	}
	return false
}

// audit returns what is wrong with what the shopper was brought: another's
// events, other bytes, another order than the log's.
func (s *shopper) audit(tr *truth) (foreign, altered, disorder []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, d := range s.got {
		f := tr.fact(id)
		switch {
		case d.order != "":
			if tr.owner(d.order) != s.customer {
				foreign = append(foreign, id)
			}
		case f == nil || f.customer != s.customer:
			foreign = append(foreign, id)
		case f.hash != d.hash:
			altered = append(altered, id)
		}
	}
	last := &fact{}
	for _, id := range s.firsts {
		if id == "" {
			last = &fact{} // what follows a snapshot replaces all: a new log brings old events again
			continue
		}
		f := tr.fact(id)
		if f == nil || !tr.stableAt(f.at) || s.coveredLocked(f, s.got[id].at) {
			continue // a log that was rewound, and a look-up, bring again what a snapshot had shown
		}
		if f.version.compare(last.version) < 0 {
			disorder = append(disorder, fmt.Sprintf("%s at %s after %s", id, s.got[id].at.Format(clockFormat), last.id))
			continue
		}
		last = f
	}
	return foreign, altered, disorder
}
