package gateway

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// ringEvery is how often a leader announces where the log is, at least, so
	// that a channel that brings nothing is not taken for a quiet shop.
	ringEvery = time.Second
	// A subscription that brings nothing while the log says that a leader rings
	// is dead after tailPatience, however well its connection answers pings. Each
	// one that was in vain doubles that, for a channel may be denied to us.
	tailPatience    = 2 * time.Second
	maxTailPatience = time.Minute
	// ringPause is how long nobody must have rung for the count to begin anew:
	// there was no leader, or no log.
	ringPause = 3 * time.Second
)

var (
	errDeadTail  = errors.New("gateway: the channel is silent while the leader rings")
	errOtherTail = errors.New("gateway: this node leads now, or does not any more")
)

// A tail tells a dead subscription from a quiet shop. Safe for concurrent use.
type tail struct {
	mu       sync.Mutex // guards the fields below
	rung     uint64     // how often leaders have rung, as the log last said
	rungAt   time.Time  // when it first said so
	unheard  time.Time  // when it told of the first ring after heard; zero: none
	since    time.Time  // of the present subscription
	fruitful bool       // it has brought something
	patience time.Duration
	giveUp   context.CancelCauseFunc // ends the present subscription
	dead     int64                   // subscriptions given up
	leading  bool                    // what the next subscription is to be
}

// heard notes that the channel brought something.
func (t *tail) heard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unheard, t.fruitful, t.patience = time.Time{}, true, tailPatience
}

// rang takes what the log says of the rings. It gives a subscription up that
// should have brought some of them.
func (t *tail) rang(rung uint64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rung == t.rung {
		return
	}
	if t.unheard.IsZero() || now.Sub(t.rungAt) > ringPause {
		t.unheard = now
	}
	t.rung, t.rungAt = rung, now
	if t.giveUp != nil && min(t.silenceLocked(), now.Sub(t.since)) >= t.patience {
		t.dead++
		t.giveUp(errDeadTail)
		t.giveUp = nil
	}
}

// silenceLocked is how long leaders have rung without being heard. It is up to
// the time between two polls on a sound subscription.
func (t *tail) silenceLocked() time.Duration {
	if t.unheard.IsZero() {
		return 0
	}
	return t.rungAt.Sub(t.unheard)
}

// lead has the present subscription replaced by a leader's, or by a follower's.
func (t *tail) lead(leading bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if leading == t.leading {
		return
	}
	t.leading, t.fruitful = leading, true // it is not to blame
	if t.giveUp != nil {
		t.giveUp(errOtherTail)
		t.giveUp = nil
	}
}

// begin notes a new subscription, and says whether it is a leader's.
func (t *tail) begin(giveUp context.CancelCauseFunc) (leading bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.fruitful {
		t.patience = min(max(2*t.patience, tailPatience), maxTailPatience)
	}
	t.since, t.fruitful, t.giveUp = time.Now(), false, giveUp
	return t.leading
}

func (t *tail) stats() (silence time.Duration, dead int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.silenceLocked(), t.dead
}

// tailLoop follows the log's channel until ctx ends, afresh whenever the
// subscription is found dead or another is called for.
func (n *Node) tailLoop(ctx context.Context) error {
	for {
		subscribed, giveUp := context.WithCancelCause(ctx)
		leading := n.tail.begin(giveUp)
		err := n.log.Tail(subscribed, leading, n.announced)
		why := context.Cause(subscribed)
		giveUp(nil)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(why, errOtherTail):
		case errors.Is(why, errDeadTail):
			n.out.Warn("subscribing afresh", "reason", why)
		default:
			return err
		}
	}
}
