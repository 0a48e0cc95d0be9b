package gateway

import (
	"context"
	"time"
)

// A Log is the ordered record of one stream, shared by all nodes. Its methods
// are safe for concurrent use; those that take a Term are for the leader. An
// error that is none of this package's sentinels means that the outcome is
// unknown: for a write, send the same again.
type Log interface {
	// Acquire takes the lease and starts a term, whose health is catching up until
	// it is renewed, or returns ErrHeld and how long
	// the present lease still runs, or ErrNonceUsed. After any other error the
	// lease may have been taken; the same nonce finds out. Missing or disagreeing keys, and
	// req.NewHistory, start a new history: every older cursor stops resolving.
	Acquire(ctx context.Context, req AcquireRequest) (Term, time.Duration, error)
	// Renew extends the lease by ttl, publishes the stream's health with it, and
	// rings: it announces the tip, without entries. acked is as in Append, for who
	// appends seldom. ErrFenced: another epoch writes now. ErrHistoryLost: a key is gone.
	// ErrRewound: the log is shorter than acked.
	Renew(ctx context.Context, t Term, acked uint64, ttl time.Duration, h Health) error
	// Release gives the lease up, so that another node need not wait for it to
	// run out, and rings the doorbell. Only the holder's own lease is released.
	Release(ctx context.Context, t Term) error
	// Append writes records in order, each at most once, together with the
	// cursor, and announces them. acked is the highest seq this term saw
	// acknowledged. The events are not copied, records is not kept. It ends
	// within seconds by itself, for a timer for each event is dear. ErrFenced,
	// ErrRewound and ErrHistoryLost end the term; nothing was written then.
	Append(ctx context.Context, t Term, acked uint64, records []Record, c UpstreamCursor) (Appended, error)
	// Links returns what the log knows of orders and invoices, in the order asked.
	Links(ctx context.Context, orders, invoices []string) ([]OrderLink, []InvoiceLink, error)

	// Read resolves a place in the log and returns up to count entries after it.
	Read(ctx context.Context, from ReadFrom, count int) (Page, error)
	// Snapshot returns the newest events of orders, or of a customer's orders when
	// orders is empty, at most MaxSnapshotOrders orders, with the position they
	// are the state of. With a customer it also says whether all of the customer's
	// orders are known.
	Snapshot(ctx context.Context, orders []string, customer string) (Snapshot, error)
	// Scan returns up to count entries with a seq below before (0: from the
	// tip), newest first.
	Scan(ctx context.Context, before uint64, count int) ([]Entry, error)
	// ScanUp returns up to count entries with a seq above after, oldest first.
	ScanUp(ctx context.Context, after uint64, count int) ([]Entry, error)
	// Recent returns the recent events of orders, or of a customer's orders when
	// orders is empty, newest first, with the keys the log knows now.
	Recent(ctx context.Context, orders []string, customer string) ([]Entry, error)
	// Find returns the entry of an event id, with the keys the log knows now.
	Find(ctx context.Context, id string) (Entry, error)

	// Ask asks whoever leads to look an order or a customer up. It is a hint and
	// may get lost.
	Ask(ctx context.Context, a Ask) error
	// Tail hands every announcement to f until ctx ends: with leading, those for
	// the leader, which knows what it appends, namely Asks, rings and Nudges that
	// its health changed; else all. Announcements may be lost, doubled and late; after every reconnect f
	// gets a Nudge. f must not block.
	Tail(ctx context.Context, leading bool, f func(Announcement)) error
	// Beat stores what this node says of itself and returns what all live nodes
	// said last, by node name.
	Beat(ctx context.Context, node string, report []byte) (map[string][]byte, error)
}

// MaxSnapshotOrders is how many orders one snapshot covers.
const MaxSnapshotOrders = 100

// An AcquireRequest asks for the lease.
type AcquireRequest struct {
	Nonce      Epoch // fresh and random for each term; repeated only to learn a lost reply
	TTL        time.Duration
	Previous   string // fence of this process's own last term, which it gives up
	NewHistory bool   // continuity with the upstream is lost
}

// A Term is one leadership: the right to append under one epoch.
type Term struct {
	Fence  string // "<number>-<epoch>", what the log compares
	Epoch  Epoch
	Seq    uint64 // the log's tip when the term began
	Cursor UpstreamCursor
}

// A Record is what Append writes: an event, or a join entry.
type Record struct {
	ID       string // dedupes the record
	Event    *Event
	Join     *Join
	NewLinks bool // the event names links (order, invoice, customer) that the log may not have yet
	Newest   bool // no state that the event could replace is newer: the log need not compare
	// Prior says that the event may be older than the log's history: an older log
	// may have had it, in another order, and its id is no place to resume at.
	Prior bool
	// Settled, when not 0, says that the event's order was put in front of its
	// customer's, and its activity noted, so many records ago, and that nothing
	// appended since moved it: the log need do neither, unless it forgot the order.
	Settled uint64
}

// A Join entry tells what became known of an order after events of it were
// logged without it. States, added by the log when Link is set, are the order's
// newest events as logged, each with the keys it had then.
type Join struct {
	Order, Invoice, Customer string
	Link                     bool // States go to subscribers that newly match
	Covered                  bool // the order (or, without order, the customer) was looked up: its state is complete
	Missing                  bool // the upstream does not know the order
	More                     bool // the customer may have more orders than were looked up: for snapshots, the entry does not tell it
	States                   []Event
}

// Keys returns ev's keys with what j knows filled in. Contested events stay as they are.
func (j *Join) Keys(ev *Event) Keys {
	return fill(ev, j.Order, j.Invoice, j.Customer)
}

func fill(ev *Event, order, invoice, customer string) Keys {
	k := ev.Keys
	if k.Order == "" {
		k.Order = order
	}
	if k.Order != order {
		return k
	}
	if k.Invoice == "" {
		k.Invoice = invoice
	}
	if k.Customer == "" && !ev.Contest {
		k.Customer = customer
	}
	return k
}

// Appended is the outcome of an Append.
type Appended struct {
	Seq        uint64 // the log's tip
	Added      int
	Duplicates int
	Entries    []Entry // the Added ones, as announced; none when they cannot be told
}

// An OrderLink is what the log knows of an order.
type OrderLink struct {
	Customer, Invoice string
	Seen              bool    // it has logged events
	HasOrder          bool    // its state holds a commerce_order
	Newest            Version // no state of it is newer
}

// An InvoiceLink is what the log knows of an invoice.
type InvoiceLink struct {
	Order  string
	Seen   bool    // it has logged events that no order is known for
	Newest Version // none of their states is newer
}

// ReadFrom names a place to read from.
type ReadFrom struct {
	Tip bool     // the tip: no entries, just where it is
	Pos Position // else after this position; the zero position is the log's start
	ID  string   // else, when not empty, after this event
	// Scope decides whether ID may be resolved. The id of another's event
	// answers exactly as an unknown one.
	Scope Scope
}

// A PageStatus says how a place in the log resolved.
type PageStatus int

// The outcomes of Read.
const (
	PageOK      PageStatus = iota
	PageNone               // the log is empty: no leader yet
	PageUnknown            // the place does not resolve: reset
	PageExpired            // it lies before what the log still holds: reset
	PageLost               // a key is missing; the leader will start a new history
)

// A Page is a resolved place in the log and the entries after it.
type Page struct {
	Status  PageStatus
	Start   Position // the place asked for, on today's timeline; the tip unless PageOK
	Tip     uint64
	Entries []Entry          // seqs Start.Seq+1, +2, …
	Forks   map[Epoch]uint64 // where older epochs ended; only when the place was of another epoch
	Key     string           // of the cursors
	Health  Health           // as the leader last said
	Leader  string           // fence of the lease's holder, "" when nobody holds it
	Rung    uint64           // how often leaders have rung
}

// An Entry is one numbered record of the log.
type Entry struct {
	Seq      uint64
	Epoch    Epoch // of the term that wrote it
	Event    *Event
	Join     *Join
	NewLinks bool // the event names links (order, invoice, customer) that the log may not have yet
}

// A Snapshot is the newest event of each object of the orders in scope.
type Snapshot struct {
	None      bool // there is no log yet
	Pos       Position
	Key       string
	States    []Event  // oldest first, with the keys the log knows now
	Missing   []string // orders whose state is not known
	Uncovered bool     // the customer may have older orders that are not known
	Truncated bool     // there are more than MaxSnapshotOrders, or than the log had room for
}

// An Ask names an order or a customer whose state is not complete.
type Ask struct {
	Order, Customer string
}

// An Announcement is what the log's channel carries.
type Announcement struct {
	Nudge   bool    // read the log: something changed, or may have been missed
	Ask     Ask     // for the leader
	Epoch   Epoch   // of Entries
	From    uint64  // the tip before Entries
	Entries []Entry // From+1, From+2, …; none when the leader rings
}
