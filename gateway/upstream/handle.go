package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"pepay-gateway/gateway"
)

const (
	// putEvents bounds one Put: small enough to be a batch of the log.
	putEvents = 256
	// farFuture is what no clock is wrong by that anybody keeps.
	farFuture = 24 * time.Hour
	maxOdds   = 8 // events from the future that are remembered
)

// handle hands over the events among frames, in order, and obeys the others. more
// is as for gateway.SourceSink.Put.
func (r *run) handle(ctx context.Context, frames []frame, more bool) error {
	events := r.entries[:0]
	defer func() {
		clear(events)
		if r.entries = events[:0]; cap(events) > putEvents {
			r.entries = nil
		}
	}()
	for _, f := range frames {
		r.count.frames.Add(1)
		e, root, err := r.read(f)
		switch {
		case err == nil:
			events = append(events, e)
			continue
		case !errors.Is(err, ErrNotEvent):
			r.quarantine("stream", f.data, err)
			continue
		}
		// What came before belongs under the cursor that was.
		if err := r.putStream(ctx, events, true); err != nil {
			return err
		}
		clear(events)
		events = events[:0]
		if err := r.obey(root); err != nil {
			return err
		}
	}
	return r.putStream(ctx, events, more)
}

func (r *run) read(f frame) (entry, gjson.Result, error) {
	if f.binary {
		return entry{}, gjson.Result{}, ErrMalformed
	}
	root, err := parse(f.data)
	if err != nil {
		return entry{}, root, err
	}
	e, err := decodeEvent(f.data, root, f.received)
	return e, root, err
}

// obey does what a frame that is no event asks for.
func (r *run) obey(root gjson.Result) error {
	kind, _ := kindOf(root) // parsed before
	switch kind {
	case "ws_control":
		r.count.controls.Add(1)
		r.owe(truncates(root))
	case "ws_error":
		f := classifyFrame(root, !r.cursor.IsZero())
		f.text = redact(f.text, r.key)
		return f
	default:
		r.count.unknown.Add(1)
		if r.kinds.first(strings.Clone(kind)) {
			r.log.Debug("unknown kind of frame ignored", "bytes", len(root.Raw))
		}
	}
	return nil
}

// truncates says whether a control frame looks as if the upstream left events
// out. What its types are is not documented.
func truncates(root gjson.Result) bool {
	return strings.Contains(strings.ToLower(members(root, "type").value[0].Str), "truncat")
}

func (r *run) putBackfill(ctx context.Context, entries []entry) error {
	r.count.backfilled.Add(uint64(len(entries)))
	return r.putNext(ctx, entries, true, true)
}

func (r *run) putStream(ctx context.Context, entries []entry, more bool) error {
	return r.putNext(ctx, entries, false, more)
}

// putNext hands over events, each with the cursor that holds after it.
func (r *run) putNext(ctx context.Context, entries []entry, listed, more bool) error {
	horizon, grace := r.horizon()
	return r.put(ctx, entries, listed, more, func(e entry) gateway.UpstreamCursor {
		if !r.moves(e, horizon, listed) {
			return r.cursor
		}
		r.newest = e.cursor
		// Lists begin there, and what happens from now on is not to be left out.
		r.newest.Created = min(r.newest.Created, horizon-int64(grace/time.Second))
		r.furthest = max(r.furthest, r.newest.Created)
		if !r.holdsCursor() {
			r.cursor = r.newest
		}
		return r.cursor
	})
}

// moves says whether the cursor goes where e is. Not to a time that has not come,
// from where everything until then would count as had, unless the stream brought
// another such event right before: then clocks differ. Nor far back, to an event
// that comes again.
func (r *run) moves(e entry, horizon int64, listed bool) bool {
	if e.cursor.IsZero() {
		return false
	}
	before := r.odd
	if r.odd = ""; e.created > horizon {
		if listed {
			return false // lists have them side by side, however far apart they came
		}
		r.odd = e.ID
		if before == "" || slices.Contains(r.odds, e.ID) {
			r.noteOdd(e)
			return false
		}
	}
	return e.created >= r.furthest-int64(r.tune.stepBack/time.Second)
}

func (r *run) noteOdd(e entry) {
	if !slices.Contains(r.odds, e.ID) {
		r.odds = append(r.odds[max(0, len(r.odds)-maxOdds+1):], e.ID)
	}
	if suppressed, ok := r.quarantines.allow(); ok {
		r.log.Warn("an event is ahead of the upstream's clock: the cursor does not follow it", "id", e.ID, "created", e.created, "suppressed", suppressed)
	}
}

// horizon is the second behind which is the future, and how far that is from now: by
// the upstream's clock, or, where it does not tell it, beyond what ours may be wrong by.
func (r *run) horizon() (int64, time.Duration) {
	now := time.Now()
	if r.clock.IsZero() {
		return now.Add(farFuture).Unix(), farFuture
	}
	// Either clock of ours stands still while a machine sleeps, or is set.
	since := max(now.Sub(r.clockAt), now.Round(0).Sub(r.clockAt.Round(0)))
	return r.clock.Add(since + r.tune.future).Unix(), r.tune.future
}

// put hands over events, listed by REST or brought by the stream.
func (r *run) put(ctx context.Context, entries []entry, listed, more bool, cursor func(entry) gateway.UpstreamCursor) error {
	for len(entries) > 0 {
		n := min(len(entries), putEvents)
		arrivals, now := r.arrivals[:0], time.Now()
		for _, e := range entries[:n] {
			a := gateway.Arrival{Event: e.Event, Cursor: cursor(e), Prior: r.maybePrior(e, listed)}
			if a.Prior || !r.noted {
				a.Cursor.Began, r.noted = r.began, true
			}
			arrivals = append(arrivals, a)
			r.recent.add(e.ID, now)
		}
		entries = entries[n:]
		err := r.sink.Put(ctx, more || len(entries) > 0, arrivals...)
		clear(arrivals)
		r.arrivals = arrivals[:0]
		if err != nil {
			return err
		}
		r.count.events.Add(uint64(n))
	}
	return nil
}

// maybePrior says whether e may be older than the log's history.
func (r *run) maybePrior(e entry, listed bool) bool {
	until := r.began + int64(r.tune.clocks/time.Second)
	switch {
	case r.began == 0, r.afresh && !listed: // what a stream brings that replays nothing happens now
		return false
	case e.created == 0:
		return r.floor <= until // nothing older is listed or replayed
	}
	return e.created <= until
}

// quarantine counts what cannot be carried. The log line names it by its hash
// alone: it may be a customer's data.
func (s *Source) quarantine(where string, raw []byte, why error) {
	s.count.quarantined.Add(1)
	if errors.Is(why, ErrTooLarge) || errors.Is(why, errUnwieldy) {
		s.count.oversize.Add(1)
	}
	suppressed, ok := s.quarantines.allow()
	if !ok {
		return
	}
	sum := sha256.Sum256(raw)
	s.log.Warn("frame quarantined", "from", where, "reason", why, "bytes", len(raw),
		"sha256", hex.EncodeToString(sum[:8]), "suppressed", suppressed)
}
