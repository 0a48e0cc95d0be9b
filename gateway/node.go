package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pollEvery   = time.Second     // how often the log is asked whether anything was missed
	pollTimeout = time.Second     // of one such question
	staleAfter  = 2 * time.Second // without an answer from the log
	leaderGrace = 2 * time.Second // a handover is no news
	healthGrace = time.Second     // nor is a moment of catching up
	healthEvery = 250 * time.Millisecond
	tailPage    = 512
	readTimeout = 3 * time.Second
	replayReads = 64 // concurrent reads of the log for subscribers
	retryMin    = 100 * time.Millisecond
	retryMax    = time.Second
)

// NodeConfig is what a Node needs besides its log. The functions may be nil.
type NodeConfig struct {
	Log     *slog.Logger
	OnAsk   func(Ask) // someone asks the leader for a look-up; must not block
	OnNudge func()    // the lease may be free; must not block
}

// A Node follows the log for the subscribers of this process: log → hub →
// subscribers. Safe for concurrent use.
type Node struct {
	cfg   NodeConfig
	log   Log
	hub   *Hub
	out   *slog.Logger
	tail  tail
	kicks chan struct{}
	reads chan struct{}
	Lag   struct{ Hub, Write Histogram } // received → hub, received → socket

	ringReplays, logReplays atomic.Int64
	short                   atomic.Bool
	within                  atomic.Pointer[func(func())] // set by OnDeliver

	mu       sync.Mutex // guards the fields below
	health   Health
	changed  chan struct{} // closed when health changes
	lastRead time.Time     // when the log last answered
	page     Page          // of that answer, without entries
	noLeader time.Time     // since when nobody holds the lease; zero while somebody does
	pending  Health        // what health will become if it lasts
}

// NewNode returns a node that does nothing until Run.
func NewNode(log Log, cfg NodeConfig) *Node {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Node{
		cfg: cfg, log: log, hub: newHub(), out: cfg.Log.With("component", "node"),
		kicks: make(chan struct{}, 1), reads: make(chan struct{}, replayReads),
		health:  Health{State: CatchingUp, Reason: "starting", Since: time.Now()},
		changed: make(chan struct{}), lastRead: time.Now(),
	}
}

// Run follows the log until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { n.pollLoop(ctx) })
	wg.Go(func() { n.healthLoop(ctx) })
	return n.tailLoop(ctx)
}

func (n *Node) announced(a Announcement) {
	if !a.Nudge { // one may be the subscription's own
		n.tail.heard()
	}
	switch {
	case a.Nudge:
		n.kick()
		if n.cfg.OnNudge != nil {
			n.cfg.OnNudge()
		}
	case a.Ask != Ask{}:
		if n.cfg.OnAsk != nil {
			n.cfg.OnAsk(a.Ask)
		}
	default:
		n.Take(a)
	}
}

// Take hands out what was appended by this node, or announced by another. It
// never blocks. What does not follow what was handed out before is read from the
// log instead.
func (n *Node) Take(a Announcement) {
	n.deliver(func() {
		if !n.hub.take(a) {
			n.kick() // a gap, a fork, or early: the log decides
			return
		}
		n.observe(a.Entries)
	})
}

// Lead says whether this node leads: then it takes what it appends itself, and
// follows what is meant for the leader. It never blocks.
func (n *Node) Lead(leading bool) { n.tail.lead(leading) }

// deliver runs hand, which hands frames out, within what OnDeliver has set.
func (n *Node) deliver(hand func()) {
	if within := n.within.Load(); within != nil {
		(*within)(hand)
		return
	}
	hand()
}

// OnDeliver has announced frames handed out within f, which must call hand
// before it returns, and must not block. What hand woke can be served by the
// same goroutine then, instead of waiting for another.
func (n *Node) OnDeliver(f func(hand func())) { n.within.Store(&f) }

func (n *Node) observe(entries []Entry) {
	now := time.Now().UnixMilli()
	for i := range entries {
		if ev := entries[i].Event; ev != nil {
			n.Lag.Hub.Observe(time.Duration(now-ev.Received) * time.Millisecond)
		}
	}
}

// kick makes the poll happen now.
func (n *Node) kick() {
	select {
	case n.kicks <- struct{}{}:
	default:
	}
}

// pollLoop finds what announcements did not bring: a dead subscription, a
// rewind without traffic, a leader that is gone.
func (n *Node) pollLoop(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	wait := retryMin
	for {
		if err := n.poll(ctx); err == nil {
			wait = retryMin
		} else if ctx.Err() == nil {
			n.out.Debug("poll", "err", err)
			sleep(ctx, jitter(wait))
			wait = min(2*wait, retryMax)
		}
		select {
		case <-ctx.Done():
			return
		case <-n.kicks:
		case <-tick.C:
		}
	}
}

// poll reads until the hub is at the tip.
func (n *Node) poll(ctx context.Context) error {
	for {
		pos, started := n.hub.Position()
		ctx, cancel := context.WithTimeout(ctx, pollTimeout)
		page, err := n.log.Read(ctx, ReadFrom{Tip: !started, Pos: pos}, tailPage)
		cancel()
		if err != nil {
			return err
		}
		more := n.hub.advance(pos, !started, page)
		n.answered(page)
		if !more {
			return nil
		}
	}
}

func (n *Node) answered(page Page) {
	now := time.Now()
	page.Entries = nil
	n.tail.rang(page.Rung, now)
	n.mu.Lock()
	n.lastRead, n.page = now, page
	switch {
	case page.Leader != "":
		n.noLeader = time.Time{}
	case n.noLeader.IsZero():
		n.noLeader = now
	}
	n.mu.Unlock()
	n.judge(now)
}

func (n *Node) healthLoop(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			n.judge(now)
		}
	}
}

// judge settles what clients are told.
func (n *Node) judge(now time.Time) {
	_, started := n.hub.Position()
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.page.Health
	switch {
	case now.Sub(n.lastRead) >= staleAfter:
		h = Health{Stale, ReasonLogUnreachable, n.lastRead}
	case !started:
		h = Health{CatchingUp, "starting", n.health.Since}
	case n.page.Status == PageLost:
		h = Health{CatchingUp, "history_lost", n.lastRead}
	case !n.noLeader.IsZero() && now.Sub(n.noLeader) >= leaderGrace:
		h = Health{Stale, "no_leader", n.noLeader}
	case !n.noLeader.IsZero():
		return // within the grace: as before
	}
	if h.State == n.health.State && h.Reason == n.health.Reason {
		n.pending = Health{}
		return
	}
	if n.health.State == Live && h.State == CatchingUp {
		if n.pending.State != CatchingUp {
			n.pending = Health{State: CatchingUp, Since: now}
		}
		if now.Sub(n.pending.Since) < healthGrace {
			return
		}
	}
	n.pending = Health{}
	n.health = h
	close(n.changed)
	n.changed = make(chan struct{})
	n.out.Info("stream status", "state", string(h.State), "reason", h.Reason)
}

// Health returns what clients are told of the stream, and a channel that is
// closed when that changes.
func (n *Node) Health() (Health, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health, n.changed
}

// Leader returns the fence of the lease's holder as last seen, "" if none.
func (n *Node) Leader() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.page.Leader
}

// Ready returns nil once the node has a position, which it keeps whatever
// happens to the log or the upstream.
func (n *Node) Ready() error {
	if _, started := n.hub.Position(); !started {
		return errors.New("no position in the log yet: Redis has not answered")
	}
	return nil
}

// Cursor returns the opaque text of p, "" for the start of an empty log.
func (n *Node) Cursor(p Position) string { return n.hub.Cursor(p) }

// Position returns the node's place in the log.
func (n *Node) Position() Position {
	p, _ := n.hub.Position()
	return p
}

// Subscribe returns a subscriber that stands at the node's present position and
// is not live yet: Seek and CatchUp make it so.
func (n *Node) Subscribe(scope Scope) *Subscriber {
	return &Subscriber{node: n, scope: scope, pos: n.Position()}
}

// A Start is where a stream with a since begins.
type Start struct {
	Resumed bool
	Pos     Position
	Reason  string // of the reset, when not resumed
}

// Locate resolves since, a cursor or an event id. Whatever cannot be resolved,
// another's ids included, is a Start that is not Resumed. An error means that
// the log is out of reach.
func (n *Node) Locate(ctx context.Context, since string, scope Scope) (Start, error) {
	from := ReadFrom{ID: since, Scope: scope}
	if LooksLikeCursor(since) {
		pos, ok := n.hub.decode(since)
		if !ok {
			return Start{Reason: "unknown"}, nil
		}
		if p, _, ok := n.hub.resolve(pos); ok && n.hub.ring.holds(p.Seq) {
			return Start{Resumed: true, Pos: pos}, nil
		}
		from = ReadFrom{Pos: pos}
	}
	page, err := n.read(ctx, from, 1)
	switch {
	case err != nil:
		return Start{}, err
	case page.Status == PageOK:
		return Start{Resumed: true, Pos: page.Start}, nil
	case page.Status == PageExpired:
		return Start{Reason: "expired"}, nil
	}
	return Start{Reason: "unknown"}, nil
}

// read reads the log for a subscriber. It waits for one of the few places, so
// that a storm of reconnects does not become one of Redis.
func (n *Node) read(ctx context.Context, from ReadFrom, count int) (Page, error) {
	if n.short.Load() {
		return Page{}, ErrBusy
	}
	select {
	case n.reads <- struct{}{}:
		defer func() { <-n.reads }()
	case <-ctx.Done():
		return Page{}, context.Cause(ctx)
	}
	n.logReplays.Add(1)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return n.log.Read(ctx, from, count)
}

// SetShort says that memory is short: until it is not, nothing is read from the
// log for subscribers. What is in memory already is replayed all the same.
func (n *Node) SetShort(short bool) { n.short.Store(short) }

// NodeStats are a node's counters since it started.
type NodeStats struct {
	Subscribers int   `json:"subscribers"` // live in the hub now
	Delivered   int64 `json:"delivered"`   // frames handed to subscribers
	Slow        int64 `json:"slow"`        // detached with a full queue
	Resets      int64 `json:"resets"`      // of all subscribers of this node
	Rewinds     int64 `json:"rewinds"`     // the log lost a suffix
	RingReplays int64 `json:"ring_replays"`
	LogReplays  int64 `json:"log_replays"`
	// TailSilent is how long the leader has rung without this node hearing it.
	TailSilent time.Duration `json:"-"`
	DeadTails  int64         `json:"dead_tails"` // subscriptions given up for that
}

// Stats returns the counters.
func (n *Node) Stats() NodeStats {
	h := n.hub
	h.mu.Lock()
	live := h.index.count
	h.mu.Unlock()
	silent, dead := n.tail.stats()
	return NodeStats{
		TailSilent: silent, DeadTails: dead,
		Subscribers: live, Delivered: h.delivered.Load(), Slow: h.slow.Load(), Resets: h.resets.Load(),
		Rewinds: h.rewinds.Load(), RingReplays: n.ringReplays.Load(), LogReplays: n.logReplays.Load(),
	}
}
