// Package gateway is the core of the product: what an event is, who may see
// it, how it gets from the upstream into the log (Ingest), and from the log to
// the subscribers of this process (Node, Hub, Subscriber).
//
// It does no I/O of its own. The log is behind the Log interface (redisbus),
// the upstream behind the Source interface (gateway/upstream), and the sockets
// of the browsers belong to gateway/downstream.
package gateway

import "errors"

// Errors that callers branch on.
var (
	// ErrFenced says that another epoch writes now, or that this one may not
	// write any more. The term is over; start again with Acquire.
	ErrFenced = errors.New("gateway: fenced")
	// ErrRewound says that the log is shorter than what this term had
	// acknowledged: Redis lost a suffix. The term is over.
	ErrRewound = errors.New("gateway: log rewound")
	// ErrHistoryLost says that meta and another key of the log disagree: one of
	// them was deleted or evicted. The next Acquire starts a new history.
	ErrHistoryLost = errors.New("gateway: history lost")
	// ErrHeld says that another node holds the lease.
	ErrHeld = errors.New("gateway: lease held")
	// ErrNonceUsed says that a nonce named an epoch that is over.
	ErrNonceUsed = errors.New("gateway: nonce used before")
	// ErrGap is returned by a Source that cannot prove it has every event since
	// its cursor. Continuity is over: the log starts a new history.
	ErrGap = errors.New("gateway: upstream gap")
	// ErrNotFound says that there is no such thing, or none this caller may know
	// of; the two are never told apart.
	ErrNotFound = errors.New("gateway: not found")
	// ErrUnusable says that the upstream answered, but nothing of use about this one
	// thing. Of others it may know more.
	ErrUnusable = errors.New("gateway: unusable answer")
	// ErrOutsideScope says that a filter asks for more than the token allows.
	ErrOutsideScope = errors.New("gateway: filter outside the scope")
	// ErrSlow ends a subscriber that filled its queue too often.
	ErrSlow = errors.New("gateway: subscriber too slow")
	// ErrBusy says that a bounded resource (replay slots, look-up queue) is taken.
	ErrBusy = errors.New("gateway: busy")
)
