package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

var (
	errDown      = errors.New("memlog: down")
	errLostReply = errors.New("memlog: applied, reply lost")
)

// A memLog is one log in memory that behaves as redisbus does. Each node
// reaches it through a memClient of its own, which has faults of its own. It
// does no I/O and knows no time but time.Now, so it works in synctest bubbles.
type memLog struct {
	mu      sync.Mutex // guards the fields below, and those of the clients
	data    *memData
	scripts []memScript         // what data was made by; a rewind forgets the end of it
	named   map[Position]string // every name ever given, on every timeline
	broken  []string            // records that were given the name of another, or called newest or settled falsely
	clients []*memClient
	retain  int // entries kept, when not 0
}

type memScript struct {
	seq   uint64 // the tip after it
	apply func(*memData)
}

// memData is what Redis holds of a stream.
type memData struct {
	term          uint64
	fence         string
	epoch         Epoch
	seq           uint64
	cursor        UpstreamCursor
	prior         uint64 // seq of the newest event that may be older than the history
	history       Epoch  // zero: there is no log
	key           string
	health        Health
	rung          uint64
	lease         string
	until         time.Time
	keyGone       bool // one of the keys was deleted by hand
	entries       []Entry
	seen          map[string]uint64
	fork          map[Epoch]uint64
	states        map[string]map[Object]memState // by "o"+order or "v"+invoice
	recent        map[string][]uint64
	at            map[string]bool
	customerOf    map[string]string   // of an order
	orderOf       map[string]string   // of an invoice
	invoicesOf    map[string][]string // of an order
	ordersOf      map[string][]string // of a customer, newest first
	missing, done map[string]bool     // orders unknown upstream, customers looked up
	more          map[string]bool     // customers of more orders than were looked up
}

type memState struct {
	seq uint64
	ev  *Event
}

func newMemLog() *memLog {
	return &memLog{data: newMemData(), named: map[Position]string{}}
}

func newMemData() *memData {
	d := &memData{health: Health{State: CatchingUp, Reason: "starting"}}
	d.clear()
	return d
}

func (d *memData) clear() {
	d.entries, d.seq, d.prior, d.cursor, d.keyGone = nil, 0, 0, UpstreamCursor{}, false
	d.seen, d.fork = map[string]uint64{}, map[Epoch]uint64{}
	d.states, d.recent, d.at = map[string]map[Object]memState{}, map[string][]uint64{}, map[string]bool{}
	d.customerOf, d.orderOf = map[string]string{}, map[string]string{}
	d.invoicesOf, d.ordersOf = map[string][]string{}, map[string][]string{}
	d.missing, d.done, d.more = map[string]bool{}, map[string]bool{}, map[string]bool{}
}

// runLocked applies a script and remembers it.
func (l *memLog) runLocked(apply func(*memData)) {
	apply(l.data)
	l.scripts = append(l.scripts, memScript{l.data.seq, apply})
}

// rewind loses the newest scripts, until the tip is at most seq: a replica was
// promoted that had not seen them.
func (l *memLog) rewind(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.scripts)
	for n > 0 && l.scripts[n-1].seq > seq {
		n--
	}
	l.scripts, l.data = l.scripts[:n:n], newMemData()
	for _, s := range l.scripts {
		s.apply(l.data)
	}
}

// wipe is a restart without data.
func (l *memLog) wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scripts, l.data = nil, newMemData()
}

// deleteKey is somebody's DEL on one of the keys.
func (l *memLog) deleteKey() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runLocked(func(d *memData) { d.keyGone = true })
}

// entries returns the log as it is now.
func (l *memLog) entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.data.entries)
}

func (l *memLog) tip() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.seq
}

// check fails when the log broke what every reader relies on.
func (l *memLog) check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.broken {
		t.Errorf("%s", b)
	}
	ids := map[string]bool{}
	for i, e := range l.data.entries {
		if want := l.data.entries[0].Seq + uint64(i); e.Seq != want {
			t.Errorf("entry %d has seq %d, want %d", i, e.Seq, want)
		}
		if e.Event == nil {
			continue
		}
		if ids[e.Event.ID] {
			t.Errorf("event %s is in the log twice", e.Event.ID)
		}
		ids[e.Event.ID] = true
	}
}

// A memFault is what happens to one call.
type memFault struct {
	delay     time.Duration // before it is done
	lateReply time.Duration // after it
	refuse    bool          // an error at once, nothing done
	hang      bool          // no answer, nothing done
	late      bool          // no answer, done by heal: it lay in a buffer; for acquire alone
	loseReply bool          // done, and then an error
}

// A memClient is one node's way to a memLog.
type memClient struct {
	log *memLog

	// Guarded by log.mu. fault and announce may be nil.
	fault    func(op string) memFault
	announce func(Announcement) []time.Duration // when an announcement arrives: never, once, or several times
	calls    map[string]int
	appends  []memAppend
	waiting  []Announcement
	buffered []func() error

	fed chan struct{}
}

// A memAppend is one call of Append.
type memAppend struct {
	fence   string
	acked   uint64
	records []Record
	cursor  UpstreamCursor
	err     error
}

func (l *memLog) client() *memClient {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &memClient{log: l, calls: map[string]int{}, fed: make(chan struct{}, 1)}
	l.clients = append(l.clients, c)
	return c
}

// setFault replaces the client's faults; nil ends them.
func (c *memClient) setFault(fault func(op string) memFault) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.fault = fault
}

func (c *memClient) setAnnounce(f func(Announcement) []time.Duration) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.announce = f
}

// cut separates the client from the log, announcements included.
func (c *memClient) cut(how memFault) {
	c.setFault(func(string) memFault { return how })
	c.setAnnounce(func(Announcement) []time.Duration { return nil })
}

func (c *memClient) heal() {
	c.log.mu.Lock()
	for _, f := range c.buffered {
		_ = f() // nobody hears of it
	}
	c.buffered = nil
	c.log.mu.Unlock()
	c.setFault(nil)
	c.setAnnounce(nil)
	c.push(Announcement{Nudge: true}, 0)
}

func (c *memClient) called(op string) int {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	return c.calls[op]
}

func (c *memClient) appended() []memAppend {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	return slices.Clone(c.appends)
}

// do runs one call with its fault.
func (c *memClient) do(ctx context.Context, op string, f func() error) error {
	c.log.mu.Lock()
	c.calls[op]++
	var fault memFault
	if c.fault != nil {
		fault = c.fault(op)
	}
	c.log.mu.Unlock()
	if fault.delay > 0 {
		sleep(ctx, fault.delay)
	}
	if fault.late {
		c.log.mu.Lock()
		c.buffered = append(c.buffered, f)
		c.log.mu.Unlock()
	}
	if fault.hang || fault.late {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fault.refuse {
		return errDown
	}
	c.log.mu.Lock()
	err := f()
	c.log.mu.Unlock()
	if fault.lateReply > 0 {
		sleep(ctx, fault.lateReply)
	}
	if fault.loseReply || ctx.Err() != nil {
		return errLostReply
	}
	return err
}

// publishLocked hands an announcement to every client.
func (l *memLog) publishLocked(a Announcement) {
	for _, c := range l.clients {
		if c.announce == nil {
			c.waiting = append(c.waiting, a)
			signal(c.fed)
			continue
		}
		for _, d := range c.announce(a) {
			if d == 0 {
				c.waiting = append(c.waiting, a)
				signal(c.fed)
			} else {
				time.AfterFunc(d, func() { c.push(a, 0) })
			}
		}
	}
}

// push hands a to this client alone, after d.
func (c *memClient) push(a Announcement, d time.Duration) {
	if d > 0 {
		time.AfterFunc(d, func() { c.push(a, 0) })
		return
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.waiting = append(c.waiting, a)
	signal(c.fed)
}

func (c *memClient) Tail(ctx context.Context, leading bool, f func(Announcement)) error {
	c.log.mu.Lock()
	c.calls["tail"]++
	c.log.mu.Unlock()
	f(Announcement{Nudge: true})
	for {
		c.log.mu.Lock()
		all := c.waiting
		c.waiting = nil
		c.log.mu.Unlock()
		for _, a := range all {
			if !leading || len(a.Entries) == 0 {
				f(a)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.fed:
		}
	}
}

func (c *memClient) Acquire(ctx context.Context, req AcquireRequest) (Term, time.Duration, error) {
	var got struct { // touched by nobody else when the fault is late
		term Term
		wait time.Duration
	}
	err := c.do(ctx, "acquire", func() (err error) {
		got.term, got.wait, err = c.log.acquireLocked(req)
		return err
	})
	if err != nil && !errors.Is(err, ErrHeld) {
		return Term{}, 0, err
	}
	return got.term, got.wait, err
}

func (d *memData) holder() string {
	if d.lease == "" || !time.Now().Before(d.until) {
		return ""
	}
	return d.lease
}

func (l *memLog) acquireLocked(req AcquireRequest) (Term, time.Duration, error) {
	d, held := l.data, l.data.holder()
	now := time.Now()
	until := now.Add(req.TTL)
	if d.epoch == req.Nonce && (held == "" || held == d.fence) {
		l.runLocked(func(d *memData) { d.lease, d.until = d.fence, until })
		return d.asTerm(), 0, nil
	}
	if held != "" && held != req.Previous {
		return Term{}, time.Until(d.until), ErrHeld
	}
	if _, used := d.fork[req.Nonce]; used {
		return Term{}, 0, ErrNonceUsed
	}
	fresh := req.NewHistory || d.history == 0 || d.keyGone
	l.runLocked(func(d *memData) {
		if fresh {
			d.clear()
			d.history = req.Nonce
		} else {
			d.fork[d.epoch] = d.seq
		}
		if d.key == "" {
			d.key = fmt.Sprintf("%016x", uint64(req.Nonce))
		}
		d.term++
		d.epoch = req.Nonce
		d.fence = fmt.Sprintf("%d-%s", d.term, req.Nonce)
		d.lease, d.until = d.fence, until
		d.health = Health{State: CatchingUp, Reason: "starting", Since: now}
	})
	return d.asTerm(), 0, nil
}

func (d *memData) asTerm() Term {
	return Term{Fence: d.fence, Epoch: d.epoch, Seq: d.seq, Cursor: d.cursor}
}

func (c *memClient) Renew(ctx context.Context, t Term, acked uint64, ttl time.Duration, h Health) error {
	return c.do(ctx, "renew", func() error {
		d, until := c.log.data, time.Now().Add(ttl)
		if d.fence != t.Fence {
			return ErrFenced
		}
		changed := d.health != h
		c.log.runLocked(func(d *memData) { d.lease, d.until, d.health = t.Fence, until, h })
		if d.keyGone {
			return ErrHistoryLost
		}
		if d.seq < acked {
			return ErrRewound
		}
		c.log.runLocked(func(d *memData) { d.rung++ })
		c.log.publishLocked(Announcement{Epoch: d.epoch, From: d.seq}) // the ring
		if changed {
			c.log.publishLocked(Announcement{Nudge: true})
		}
		return nil
	})
}

func (c *memClient) Release(ctx context.Context, t Term) error {
	return c.do(ctx, "release", func() error {
		if c.log.data.holder() == t.Fence {
			c.log.runLocked(func(d *memData) { d.lease = "" })
			c.log.publishLocked(Announcement{Nudge: true})
		}
		return nil
	})
}

func (c *memClient) Append(ctx context.Context, t Term, acked uint64, records []Record, cur UpstreamCursor) (out Appended, err error) {
	records = slices.Clone(records) // the caller uses it again
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	err = c.do(ctx, "append", func() error {
		out, err = c.log.appendLocked(t, acked, records, cur)
		return err
	})
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.appends = append(c.appends, memAppend{t.Fence, acked, records, cur, err})
	return out, err
}

func (l *memLog) appendLocked(t Term, acked uint64, records []Record, cur UpstreamCursor) (Appended, error) {
	d := l.data
	switch {
	case d.fence != t.Fence:
		return Appended{}, ErrFenced
	case d.seq < acked:
		return Appended{}, ErrRewound
	case d.keyGone:
		return Appended{}, ErrHistoryLost
	}
	from, retain := d.seq, l.retain
	l.runLocked(func(d *memData) {
		for i := range records {
			before, settled := d.seq, d.settled(&records[i])
			d.append(t.Epoch, &records[i])
			if d.seq > before && records[i].Prior {
				d.prior = d.seq
			}
			if d.seq > before && !settled {
				l.broken = append(l.broken, records[i].ID+" is called settled and is not")
			}
			if d.seq > before && !d.holds(&records[i]) {
				l.broken = append(l.broken, records[i].ID+" is called the newest and is not")
			}
		}
		d.cursor.move(cur)
		if retain > 0 && len(d.entries) > retain {
			d.entries = slices.Clone(d.entries[len(d.entries)-retain:])
		}
	})
	n := int(d.seq - from)
	out := Appended{Seq: d.seq, Added: n, Duplicates: len(records) - n}
	if n == 0 {
		return out, nil
	}
	added := slices.Clone(d.entries[max(0, len(d.entries)-n):])
	for _, e := range added {
		l.nameLocked(e)
	}
	l.publishLocked(Announcement{Epoch: t.Epoch, From: from, Entries: added})
	out.Entries = added
	return out, nil
}

func (l *memLog) nameLocked(e Entry) {
	name := Position{e.Epoch, e.Seq}
	what := "join"
	if e.Event != nil {
		what = e.Event.ID
	}
	if old, ok := l.named[name]; ok && old != what {
		l.broken = append(l.broken, fmt.Sprintf("two records of one name, %v: %s and %s", name, old, what))
	}
	l.named[name] = what
}

func (d *memData) append(epoch Epoch, r *Record) {
	if _, ok := d.seen[r.ID]; ok {
		return
	}
	d.seq++
	d.seen[r.ID] = d.seq
	if r.Join != nil {
		d.appendJoin(epoch, *r.Join)
		return
	}
	ev := r.Event
	d.entries = append(d.entries, Entry{Seq: d.seq, Epoch: epoch, Event: ev, NewLinks: r.NewLinks})
	if r.NewLinks {
		d.learn(ev.Keys.Order, ev.Keys.Invoice, ev.Keys.Customer)
	}
	subject := "v" + ev.Keys.Invoice
	if ev.Keys.Order != "" {
		subject = "o" + ev.Keys.Order
	}
	if len(subject) > 1 {
		if ev.Object != ObjectOther {
			d.keep(subject, memState{d.seq, ev})
		}
		d.recent[subject] = append(d.recent[subject], d.seq)
		d.at[subject] = true
	}
	if ev.Keys.Customer != "" && d.customerOf[ev.Keys.Order] == "" {
		d.learn(ev.Keys.Order, ev.Keys.Invoice, ev.Keys.Customer) // the writer remembers what was trimmed, or came with a duplicate
	}
	d.toFront(ev.Keys.Order, ev.Keys.Customer)
}

func (d *memData) appendJoin(epoch Epoch, j Join) {
	d.learn(j.Order, j.Invoice, j.Customer)
	if j.Link {
		j.States = d.statesOf(j.Order)
	}
	d.entries = append(d.entries, Entry{Seq: d.seq, Epoch: epoch, Join: &j})
	d.toFront(j.Order, j.Customer)
	switch {
	case !j.Covered:
	case j.Order != "":
		d.at["o"+j.Order] = true
		d.missing[j.Order] = d.missing[j.Order] || j.Missing
	case j.Customer != "":
		d.done[j.Customer], d.more[j.Customer] = true, j.More
	}
}

// keep holds the newest version; without versions the later in the log.
func (d *memData) keep(subject string, s memState) {
	m := d.states[subject]
	if m == nil {
		m = map[Object]memState{}
		d.states[subject] = m
	}
	old, ok := m[s.ev.Object]
	v, w := s.ev.Version, Version{}
	if ok {
		w = old.ev.Version
	}
	switch {
	case !ok:
	case v.Millis == 0 || w.Millis == 0 || v == w:
		if s.seq < old.seq {
			return
		}
	case v.Less(w):
		return
	}
	m[s.ev.Object] = s
}

func (d *memData) learn(order, invoice, customer string) {
	if order == "" {
		return
	}
	if invoice != "" && d.orderOf[invoice] == "" {
		d.orderOf[invoice] = order
		d.invoicesOf[order] = append(d.invoicesOf[order], invoice)
		d.adopt(order, invoice)
	}
	if customer != "" && d.customerOf[order] == "" {
		d.customerOf[order] = customer
	}
}

// adopt makes the events of an invoice without order the order's.
func (d *memData) adopt(order, invoice string) {
	from, to := "v"+invoice, "o"+order
	if !d.at[from] {
		return
	}
	for _, s := range d.states[from] {
		d.keep(to, s)
	}
	d.recent[to] = append(d.recent[to], d.recent[from]...)
	delete(d.states, from)
	delete(d.recent, from)
	delete(d.at, from)
	d.at[to] = true
}

func (d *memData) toFront(order, customer string) {
	if order == "" || customer == "" || d.customerOf[order] != customer {
		return
	}
	rest := slices.DeleteFunc(slices.Clone(d.ordersOf[customer]), func(o string) bool { return o == order })
	d.ordersOf[customer] = append([]string{order}, rest...)
}

func (d *memData) statesOf(order string) []Event {
	var out []Event
	for _, o := range []Object{ObjectOrder, ObjectInvoice, ObjectPayment} {
		if s, ok := d.states["o"+order][o]; ok {
			out = append(out, *s.ev)
		}
	}
	return out
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// settled says whether the order of r, called settled, is in front.
func (d *memData) settled(r *Record) bool {
	if r.Settled == 0 {
		return true
	}
	k := r.Event.Keys
	return d.at["o"+k.Order] && first(d.ordersOf[k.Customer]) == k.Order
}

// holds says whether r, called newest, took its place in the state.
func (d *memData) holds(r *Record) bool {
	if !r.Newest || r.Event.Object == ObjectOther || r.Event.Contest {
		return true
	}
	k := r.Event.Keys
	if k.Order != "" {
		return d.states["o"+k.Order][r.Event.Object].ev == r.Event
	}
	return k.Invoice == "" || d.states["v"+k.Invoice][r.Event.Object].ev == r.Event
}

func (d *memData) newest(subject string) (v Version) {
	for _, s := range d.states[subject] {
		v.raise(s.ev.Version)
	}
	return v
}

func (c *memClient) Links(ctx context.Context, orders, invoices []string) (ol []OrderLink, il []InvoiceLink, err error) {
	err = c.do(ctx, "links", func() error {
		d := c.log.data
		for _, o := range orders {
			_, has := d.states["o"+o][ObjectOrder]
			ol = append(ol, OrderLink{Customer: d.customerOf[o], Invoice: first(d.invoicesOf[o]), Seen: d.at["o"+o], HasOrder: has, Newest: d.newest("o" + o)})
		}
		for _, v := range invoices {
			il = append(il, InvoiceLink{Order: d.orderOf[v], Seen: d.at["v"+v], Newest: d.newest("v" + v)})
		}
		return nil
	})
	return ol, il, err
}

func (c *memClient) Read(ctx context.Context, from ReadFrom, count int) (p Page, err error) {
	err = c.do(ctx, "read", func() error {
		p = c.log.data.read(from, count)
		return nil
	})
	return p, err
}

func (d *memData) read(from ReadFrom, count int) Page {
	p := Page{Tip: d.seq, Key: d.key, Health: d.health, Leader: d.holder(), Rung: d.rung, Start: Position{d.epoch, d.seq}}
	failed := func(s PageStatus) Page {
		p.Status = s
		return p
	}
	if d.history == 0 {
		return Page{Status: PageNone, Health: d.health, Leader: p.Leader, Rung: d.rung}
	}
	if d.keyGone {
		return failed(PageLost)
	}
	var s uint64
	switch {
	case from.Tip:
		return p
	case from.ID != "":
		var ok bool
		if s, ok = d.place(from); !ok {
			return failed(PageUnknown)
		}
	case from.Pos.IsNone():
		s = 0
	case from.Pos.Epoch == d.epoch:
		s = from.Pos.Seq
	default:
		p.Forks = maps.Clone(d.fork)
		end, ok := d.fork[from.Pos.Epoch]
		if !ok {
			return failed(PageUnknown)
		}
		s = min(from.Pos.Seq, end)
	}
	s = min(s, d.seq)
	if s < d.seq && count > 0 {
		if s+1 < d.entries[0].Seq {
			return failed(PageExpired)
		}
		at := int(s + 1 - d.entries[0].Seq)
		p.Entries = slices.Clone(d.entries[at:min(at+count, len(d.entries))])
	}
	p.Start.Seq = s
	return p
}

// place resolves an event id for a reader.
func (d *memData) place(from ReadFrom) (uint64, bool) {
	s, ok := d.seen[from.ID]
	e := d.entry(s)
	if !ok || s <= d.prior || e == nil || e.Event == nil || !from.Scope.Allows(d.filled(e.Event).Keys) {
		return 0, false
	}
	if o := from.Scope.SelectedOrders(); len(o) == 1 {
		if r := d.recent["o"+o[0]]; len(r) > 0 && r[len(r)-1] == s {
			return d.seq, true // nothing newer of this order exists
		}
	}
	end := s
	for _, f := range d.fork {
		if f+500 >= s && f < end {
			end = f
		}
	}
	return end, true
}

func (d *memData) entry(seq uint64) *Entry {
	if len(d.entries) == 0 || seq < d.entries[0].Seq || seq > d.seq {
		return nil
	}
	return &d.entries[seq-d.entries[0].Seq]
}

// filled returns ev with the keys that the log knows now.
func (d *memData) filled(ev *Event) *Event {
	order := ev.Keys.Order
	if order == "" {
		order = d.orderOf[ev.Keys.Invoice]
	}
	if order == "" {
		return ev
	}
	return d.withLink(ev, order)
}

func (d *memData) withLink(ev *Event, order string) *Event {
	j := Join{Order: order, Invoice: first(d.invoicesOf[order]), Customer: d.customerOf[order]}
	filled := *ev
	filled.Keys = j.Keys(ev)
	return &filled
}

func (c *memClient) Snapshot(ctx context.Context, orders []string, customer string) (s Snapshot, err error) {
	err = c.do(ctx, "snapshot", func() error {
		s, err = c.log.data.snapshot(orders, customer)
		return err
	})
	return s, err
}

func (d *memData) snapshot(orders []string, customer string) (Snapshot, error) {
	if d.history == 0 {
		return Snapshot{None: true, Missing: orders, Uncovered: customer != ""}, nil
	}
	if d.keyGone {
		return Snapshot{}, ErrHistoryLost
	}
	s := Snapshot{Pos: Position{d.epoch, d.seq}, Key: d.key, Uncovered: customer != "" && !d.done[customer]}
	if len(orders) == 0 {
		orders = d.ordersOf[customer]
		s.Truncated = len(orders) > MaxSnapshotOrders || d.more[customer]
		orders = orders[:min(len(orders), MaxSnapshotOrders)]
	}
	var states []memState
	for _, o := range orders {
		if _, ok := d.states["o"+o][ObjectOrder]; !ok && !d.missing[o] {
			s.Missing = append(s.Missing, o)
		}
		for _, st := range d.states["o"+o] {
			states = append(states, memState{st.seq, d.withLink(st.ev, o)})
		}
	}
	slices.SortFunc(states, func(a, b memState) int { return int(a.seq) - int(b.seq) })
	for _, st := range states {
		s.States = append(s.States, *st.ev)
	}
	return s, nil
}

func (c *memClient) Scan(ctx context.Context, before uint64, count int) (out []Entry, err error) {
	err = c.do(ctx, "scan", func() error {
		for i := len(c.log.data.entries) - 1; i >= 0 && len(out) < count; i-- {
			if e := c.log.data.entries[i]; before == 0 || e.Seq < before {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

func (c *memClient) ScanUp(ctx context.Context, after uint64, count int) (out []Entry, err error) {
	err = c.do(ctx, "scan", func() error {
		for _, e := range c.log.data.entries {
			if e.Seq > after && len(out) < count {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

func (c *memClient) Recent(ctx context.Context, orders []string, customer string) (out []Entry, err error) {
	err = c.do(ctx, "recent", func() error {
		d := c.log.data
		if len(orders) == 0 {
			orders = d.ordersOf[customer]
		}
		for _, o := range orders {
			for _, seq := range d.recent["o"+o] {
				if e := d.entry(seq); e != nil {
					out = append(out, Entry{Seq: e.Seq, Epoch: e.Epoch, Event: d.withLink(e.Event, o)})
				}
			}
		}
		slices.SortFunc(out, func(a, b Entry) int { return int(b.Seq) - int(a.Seq) })
		out = out[:min(len(out), 500)]
		return nil
	})
	return out, err
}

func (c *memClient) Find(ctx context.Context, id string) (e Entry, err error) {
	err = c.do(ctx, "find", func() error {
		d := c.log.data
		found := d.entry(d.seen[id])
		if found == nil || found.Event == nil {
			return ErrNotFound
		}
		e = *found
		e.Event = d.filled(e.Event)
		return nil
	})
	return e, err
}

func (c *memClient) Ask(ctx context.Context, a Ask) error {
	return c.do(ctx, "ask", func() error {
		c.log.publishLocked(Announcement{Ask: a})
		return nil
	})
}

func (c *memClient) Beat(ctx context.Context, node string, report []byte) (map[string][]byte, error) {
	return map[string][]byte{node: report}, c.do(ctx, "beat", func() error { return nil })
}

var _ Log = (*memClient)(nil)
