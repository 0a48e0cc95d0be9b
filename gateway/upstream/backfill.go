package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"pepay-gateway/gateway"
)

const (
	eventsPath = "/api/v1/events"
	pageEvents = 100
	// maxPages bounds one walk to its floor. It is far beyond any retention, and
	// stops at an upstream that pages in a circle.
	maxPages = 100_000
)

// A backfill lists what the upstream has from floor on.
type backfill struct {
	*Source
	from  gateway.UpstreamCursor // what to look out for
	floor int64                  // unix seconds
	// found is called once, before the first hand, with whether the list reaches
	// back to from. Its error ends the backfill.
	found func(met bool) error
	// hand takes events, oldest first.
	hand func([]entry) error
	// again is asked after a failure that passes: an error ends the backfill.
	again func(*failure) error
	// has says whether an event need not be handed over; nil: all must.
	has func(id string) bool
}

// run pages newest first, because that is the only order the upstream has, and
// hands over oldest first. A window of bounded size keeps the oldest; when it
// was too small the walk is repeated from where it ended.
//
// It returns the floor of the last window. The error is a *failure, one of the
// callbacks' or of ctx.
func (b *backfill) run(ctx context.Context) (int64, error) {
	floor := b.floor
	handed := map[string]struct{}{} // with created ≥ floor, while it takes several windows
	for first := true; ; first = false {
		w, err := b.walk(ctx, floor, handed)
		if err != nil {
			return floor, err
		}
		if first {
			if err := b.found(w.met); err != nil {
				return floor, err
			}
		}
		entries := w.oldestFirst()
		if err := b.hand(entries); err != nil {
			return floor, err
		}
		if !w.cut {
			return floor, nil
		}
		if w.cutFloor > floor {
			floor = w.cutFloor
			clear(handed)
		}
		for _, e := range entries {
			// Many events share a second: those of the floor's come again.
			if e.created == 0 || e.created >= floor {
				handed[e.ID] = struct{}{}
			}
		}
	}
}

// A window is what one walk keeps: the oldest events, newest first.
type window struct {
	entries  []entry
	head     int // entries before it were dropped
	bytes    int
	met      bool
	cut      bool  // something was dropped
	cutFloor int64 // the oldest second of it
}

func (w *window) add(e entry, maxEvents, maxBytes int) {
	w.entries = append(w.entries, e)
	w.bytes += len(e.Data)
	for len(w.entries)-w.head > 1 && (len(w.entries)-w.head > maxEvents || w.bytes > maxBytes) {
		w.drop()
	}
	if w.head > 1024 && w.head > len(w.entries)/2 {
		w.entries = append([]entry(nil), w.entries[w.head:]...)
		w.head = 0
	}
}

func (w *window) drop() {
	e := w.entries[w.head]
	w.bytes -= len(e.Data)
	w.entries[w.head] = entry{}
	w.head++
	if !w.cut || e.created < w.cutFloor {
		w.cutFloor = e.created
	}
	w.cut = true
}

func (w *window) oldestFirst() []entry {
	kept := w.entries[w.head:]
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	return kept
}

// walk goes from the newest event to where a page's worth are below floor: a single
// old one may have been committed late.
func (b *backfill) walk(ctx context.Context, floor int64, handed map[string]struct{}) (*window, error) {
	w := &window{}
	query := url.Values{"created[gte]": {strconv.FormatInt(floor, 10)}}
	if len(b.types) > 0 {
		query.Set("type", strings.Join(b.types, ","))
	}
	olds := 0 // in a row
	for range maxPages {
		p, err := b.patientPage(ctx, query)
		if err != nil {
			return nil, err
		}
		for _, e := range p.entries {
			w.met = w.met || reaches(e, b.from)
			if e.created > 0 && e.created < floor {
				olds++
				continue
			}
			olds = 0
			if _, ok := handed[e.ID]; ok || e.skip || !gateway.MatchType(b.types, e.Type) {
				continue
			}
			w.add(e, b.tune.windowEvents, b.tune.windowBytes)
		}
		if olds >= pageEvents || !p.more {
			return w, nil
		}
		if p.last == "" || p.last == query.Get("starting_after") {
			return nil, &failure{class: down, text: "events: paging does not move on"}
		}
		query.Set("starting_after", p.last)
	}
	return nil, &failure{class: down, text: "events: paging does not end"}
}

// reaches says whether a list that holds e goes back to cursor.
func reaches(e entry, cursor gateway.UpstreamCursor) bool {
	if cursor.IsZero() || e.ID == cursor.ID {
		return true
	}
	v, ok := gateway.ParseEventID(e.ID)
	c, known := gateway.ParseEventID(cursor.ID)
	if ok && known {
		return v.Less(c)
	}
	return e.created > 0 && e.created < cursor.Created
}

// patientPage asks for a page until it gets one, or again has enough of it.
func (b *backfill) patientPage(ctx context.Context, query url.Values) (page, error) {
	wait := b.tune.backoff
	for {
		p, err := b.page(ctx, query)
		if ctx.Err() != nil {
			return page{}, context.Cause(ctx)
		}
		var f *failure
		if !errors.As(err, &f) || f.class != down && f.class != limited {
			return p, err
		}
		if err := b.again(f); err != nil {
			return page{}, err
		}
		if err := sleep(ctx, wait.next(f)); err != nil {
			return page{}, err
		}
	}
}

// A page of events, newest first.
type page struct {
	entries []entry
	last    string // id to continue after
	more    bool
}

// page asks for a page of full size, and for smaller ones while the answer is
// unwieldy. What is unwieldy all by itself is stepped over.
func (b *backfill) page(ctx context.Context, query url.Values) (page, error) {
	for limit := pageEvents; ; limit = max(limit/8, 1) {
		query.Set("limit", strconv.Itoa(limit))
		a, err := b.request(ctx, "events", http.MethodGet, eventsPath, query, "", b.tune.pageBytes)
		if err == nil {
			return b.readPage(a.body, limit)
		}
		if !errors.Is(err, errUnwieldy) {
			return page{}, err
		}
		if limit == 1 {
			return b.stepOver(a.body)
		}
	}
}

func (b *backfill) readPage(body []byte, limit int) (page, error) {
	list, more, err := listOf(body)
	if err != nil {
		return page{}, err
	}
	p := page{}
	now := time.Now()
	count := 0
	list.ForEach(func(_, element gjson.Result) bool {
		count++
		id := element.Get("id").String()
		if id != "" {
			p.last = id
		}
		if b.has != nil && b.has(id) {
			known := entry{created: seconds(element.Get("created")), skip: true}
			known.ID = id
			p.entries = append(p.entries, known)
			return true
		}
		raw := []byte(element.Raw)
		root, err := parse(raw)
		var e entry
		if err == nil {
			e, err = decodeEvent(raw, root, now)
		}
		if err != nil {
			b.quarantine("backfill", raw, err)
			return true
		}
		p.entries = append(p.entries, e)
		return true
	})
	p.more = count > 0 && (more.Type == gjson.True || !more.Exists() && count >= limit)
	return p, nil
}

// listOf finds the list of events and has_more, with or without an envelope.
func listOf(body []byte) (list, more gjson.Result, err error) {
	data, err := dataOf("events", body)
	if err != nil {
		return list, more, err
	}
	if data.IsArray() {
		return data, members(gjson.ParseBytes(body), "has_more").value[0], nil
	}
	m := members(data, "data", "has_more")
	if !m.value[0].IsArray() {
		return list, more, &failure{class: down, text: "events: answer has no list"}
	}
	return m.value[0], m.value[1], nil
}

// stepOver passes by an event that cannot be fetched. gjson finds its id in the
// beginning of the answer.
func (b *backfill) stepOver(beginning []byte) (page, error) {
	beginning = beginning[:min(len(beginning), maxAnswerBytes)]
	for _, path := range []string{"data.data.0.id", "data.0.id"} {
		id := gjson.GetBytes(beginning, path)
		if id.Type != gjson.String || !gateway.ValidID(id.Str) {
			continue
		}
		b.quarantine("backfill", beginning, errUnwieldy)
		return page{last: id.Str, more: true}, nil
	}
	return page{}, &failure{class: down, text: "events: an answer too large, and no id in it"}
}

// retains says whether the upstream still has an event as old as cursor.
func (s *Source) retains(ctx context.Context, cursor gateway.UpstreamCursor) (bool, error) {
	query := url.Values{"created[lte]": {strconv.FormatInt(cursor.Created, 10)}, "limit": {"1"}}
	a, err := s.request(ctx, "events", http.MethodGet, eventsPath, query, "", s.tune.pageBytes)
	if errors.Is(err, errUnwieldy) {
		return true, nil // it has something, and a large one
	}
	if err != nil {
		return false, err
	}
	list, _, err := listOf(a.body)
	if err != nil {
		return false, err
	}
	held := false
	list.ForEach(func(_, element gjson.Result) bool {
		created := seconds(element.Get("created"))
		// An upstream that ignores created[lte] answers with its newest event.
		held = held || created > 0 && created <= cursor.Created
		return true
	})
	return held, nil
}
