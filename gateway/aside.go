package gateway

import (
	"context"
	"errors"
	"time"
)

const (
	// A leader that cannot reach the upstream for awayLimit and awayTries dials
	// stands aside, if another node says that it can.
	awayLimit = 10 * time.Second
	awayTries = 3
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
// every node would get it.
func (t *term) cutOff() bool {
	t.mu.Lock()
	away := t.reported != nil && t.reported.State == Stale && t.reported.Reason == ReasonUpstreamDown &&
		time.Since(t.reported.Since) >= awayLimit && t.tries >= awayTries
	t.mu.Unlock()
	return away && t.in.cfg.Elsewhere != nil && t.in.mayStandAside() && t.in.cfg.Elsewhere()
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
