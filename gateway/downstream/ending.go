package downstream

import (
	"math/rand/v2"
	"time"
)

// An ending is why a stream ends, and what its client is told. It is the cause
// of the session's context.
type ending struct {
	code    int           // close code; 0 when there is nobody left to tell
	reason  string        // constant, for logs
	problem *problem      // told before the close, when not nil
	retry   time.Duration // when to come back; 0 when the client's own pace is right
}

func (e *ending) Error() string { return e.reason }

// The endings that need no problem.
var (
	errClientGone = &ending{reason: "client left"}
	errSilent     = &ending{reason: "client silent"}
	errBroken     = &ending{reason: "write failed"}
)

// ended makes the ending of a problem.
func ended(p *problem) *ending { return &ending{code: p.close, reason: p.code, problem: p} }

// away ends a stream whose client should come back after about d: at random, so
// that those who were ended together do not come back together.
func away(p *problem, d time.Duration) *ending {
	return &ending{code: p.close, reason: p.code, retry: d/2 + rand.N(d)}
}

// How long those who were turned away stay away, about.
const (
	retryDrain    = 2 * time.Second // another node has room
	retryOverload = 10 * time.Second
)

// turnedAway is the ending of a stream that was refused for want of room.
func turnedAway(p *problem) *ending {
	if p == errDraining {
		return away(p, retryDrain)
	}
	return away(p, retryOverload)
}

// roomless says whether p is a refusal that says nothing against the client.
func roomless(p *problem) bool {
	return p == errRateLimit || p == errHandshakes || p == errOverloaded || p == errDraining
}
