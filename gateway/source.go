package gateway

import (
	"context"
	"time"
)

// An UpstreamCursor is the place in the upstream's stream that the log has
// reached: the last event appended, by id and by the second it was created. It
// is stored with the log, in the same script, and nowhere else. Without an ID the
// log has reached none, and the source starts cold.
type UpstreamCursor struct {
	ID      string
	Created int64 // unix seconds, by the upstream's clock; never ours
	Began   int64 // in the same unit: when the log's history began; 0: not known, or told before. It needs no ID
}

// IsZero says whether the cursor names no event.
func (c UpstreamCursor) IsZero() bool { return c.ID == "" }

// move makes c the cursor after what d belongs to, which c's came before.
func (c *UpstreamCursor) move(d UpstreamCursor) {
	began := max(c.Began, d.Began)
	if !d.IsZero() {
		*c = d
	}
	c.Began = began
}

// An Arrival is one event as a Source hands it over, with the cursor that holds
// once it is in the log. Cursor names no event for what does not come from the stream.
type Arrival struct {
	Event  Event
	Cursor UpstreamCursor
	Prior  bool // it may be older than the log's history; Cursor says when that began
}

// A Source is the upstream as Ingest sees it. At most one of its Runs is active
// at a time in a process, and while none is, it holds no connection.
type Source interface {
	// Run connects, catches up from the cursor (cold start: the configured
	// window), and hands every event to sink in arrival order until ctx ends. It
	// reconnects by itself, and asks sink.Confirm before each dial. It returns
	// ErrGap when it cannot prove continuity from the cursor, else ctx's cause
	// or the error of a sink method. On return its socket is closed.
	Run(ctx context.Context, from UpstreamCursor, sink SourceSink) error
	// Order fetches one order. ErrNotFound: the upstream does not know it. An error
	// of a look-up that has a method RetryAfter() time.Duration says for how long
	// the upstream asks to be left alone.
	Order(ctx context.Context, id string) (OrderInfo, error)
	// OrderOfInvoice finds the order an invoice belongs to, ErrNotFound if none.
	OrderOfInvoice(ctx context.Context, invoice string) (string, error)
	// OrdersOf lists a customer's orders, newest first, at most limit.
	OrdersOf(ctx context.Context, customer string, limit int) ([]OrderInfo, error)
}

// A SourceSink is where a Source puts what it reads. Its methods are called
// from one goroutine at a time.
type SourceSink interface {
	// Confirm returns nil if this node may still hold the upstream connection;
	// a leader that was paused past its lease must not kick its successor.
	Confirm(ctx context.Context) error
	// Put takes the next events in arrival order, and does not keep the slice. more says that the source has
	// the ones after them at hand already; without it the caller has nothing else
	// to do, and may find itself doing the rest of the way into the log. It blocks
	// while the queue to the log is full; that is the backpressure onto the
	// upstream socket.
	Put(ctx context.Context, more bool, arrivals ...Arrival) error
	// Report tells how the upstream is doing. It never blocks.
	Report(Health)
}

// An OrderInfo is what a look-up in the upstream's REST API says of an order.
// Event is a commerce.order.updated event built from the answer, for orders whose
// own events are out of reach. Its Keys are the order's.
type OrderInfo struct {
	Event   Event
	Updated time.Time
}

// State is what a page is told about the freshness of what it shows.
type State string

// The states of the stream.
const (
	Live       State = "live"        // events arrive as they happen
	CatchingUp State = "catching_up" // connected, older events still arriving
	Stale      State = "stale"       // cut off; what is shown may be old
)

// The reasons that others than clients look at.
const (
	ReasonLogUnreachable = "log_unreachable" // this node has lost sight of the log
	ReasonUpstreamDown   = "upstream_down"   // the leader does not reach the upstream
)

// Health is the state of the stream, why, and since when.
type Health struct {
	State  State
	Reason string // constant snake_case word: upstream_down, no_leader, log_unreachable, …
	Since  time.Time
}
