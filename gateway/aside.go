package gateway

import (
	"context"
	"errors"
	"time"
)

const (
	// A leader that cannot reach the upstream for awayLimit and awayTries dials
	// stands aside, if others have said for elsewhereFor that they can: an upstream
	// that comes back comes back for the leader too.
	awayLimit    = 10 * time.Second
	awayTries    = 3
	elsewhereFor = 5 * time.Second
	// asideFor is how long it then does not campaign, while another node leads.
	asideFor = time.Minute
	// asideAgain is how long it does not stand aside a second time, unless it
	// reached the upstream meanwhile: where every node is mistaken about what
	// another could do, the lease must not go round.
	asideAgain = 5 * time.Minute
)

// errCutOff ends a term of a leader that alone is without the upstream.
var errCutOff = errors.New("gateway: cut off from the upstream while another node is not")

// cutOff says whether this leader had better stand aside. A refusal is no reason:
// every node would get it. Called with each renewal.
func (t *term) cutOff() bool {
	t.mu.Lock()
	down := t.reported != nil && t.reported.State == Stale && t.reported.Reason == ReasonUpstreamDown
	long := down && time.Since(t.reported.Since) >= awayLimit && t.tries >= awayTries
	t.mu.Unlock()
	if !down || t.in.cfg.Elsewhere == nil || !t.in.mayStandAside() || !t.in.cfg.Elsewhere() {
		t.elsewhere = time.Time{}
		return false
	}
	if t.elsewhere.IsZero() {
		t.elsewhere = time.Now()
	}
	return long && time.Since(t.elsewhere) >= elsewhereFor
}

func (in *Ingest) mayStandAside() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stoodAside.IsZero() || time.Since(in.stoodAside) >= asideAgain
}

func (in *Ingest) setStoodAside(at time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stoodAside = at
}

// standAside waits for asideFor, or until nobody has led for longer than a lease:
// a leader without the upstream is better than none.
func (in *Ingest) standAside(ctx context.Context) {
	in.setStoodAside(time.Now())
	in.aside.Add(1)
	var free time.Time // since when nobody leads; zero while somebody does or may
	for end := time.Now().Add(asideFor); ctx.Err() == nil && time.Now().Before(end); {
		sleep(ctx, jitter(contendEvery))
		rctx, cancel := context.WithTimeout(ctx, commandTimeout)
		page, err := in.log.Read(rctx, ReadFrom{Tip: true}, 0)
		cancel()
		switch {
		case err != nil || page.Leader != "":
			free = time.Time{}
		case free.IsZero():
			free = time.Now()
		case time.Since(free) > in.cfg.Lease:
			return
		}
	}
}
