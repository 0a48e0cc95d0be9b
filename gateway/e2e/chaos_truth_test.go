package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A version orders the events of one object, as clients are told to.
type version struct{ ms, seq int64 }

func (v version) compare(w version) int {
	return cmp.Or(cmp.Compare(v.ms, w.ms), cmp.Compare(v.seq, w.seq))
}

// versionOf reads evt_<ms>-<seq>; the gateway's own events have none, and are
// older than all.
func versionOf(id string) version {
	ms, seq, ok := strings.Cut(strings.TrimPrefix(id, "evt_"), "-")
	if !ok || !strings.HasPrefix(id, "evt_") {
		return version{}
	}
	m, _ := strconv.ParseInt(ms, 10, 64)
	n, _ := strconv.ParseInt(seq, 10, 64)
	return version{m, n}
}

// A subject is one object of one order: what has a newest event.
type subject struct{ order, object string }

// A fact is one event as the devnet recorded it.
type fact struct {
	id, customer, invoice string
	status                string // of the object, as the event tells it
	subject               subject
	version               version
	hash                  uint64 // of the exact bytes
	at                    time.Time
}

// objectOf is the kind of object that events of a type are about.
func objectOf(eventType string) string {
	i := strings.LastIndexByte(eventType, '.')
	return strings.TrimPrefix(eventType[:max(i, 0)], "commerce.")
}

func hashOf(raw string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(raw)) // never fails
	return h.Sum64()
}

// A payload is the little that clients here read of an event.
type payload struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		Object struct {
			ID        string `json:"id"`
			Status    string `json:"status"`
			Substatus string `json:"substatus"`
		} `json:"object"`
	} `json:"data"`
}

func parsePayload(raw string) (p payload) {
	_ = json.Unmarshal([]byte(raw), &p) // what cannot be read has no id, and is foreign
	return p
}

func (p payload) status() string { return p.Data.Object.Status + "/" + p.Data.Object.Substatus }

// A truth is what really happened: it follows the devnet's record. Safe for
// concurrent use.
type truth struct {
	url string

	mu        sync.Mutex // guards the fields below
	last      string
	facts     []*fact
	byID      map[string]*fact
	customers map[string][]*fact
	owners    map[string]string // order → customer
	unstable  []*window         // when the upstream's order was not
}

type window struct{ from, to time.Time }

func newTruth(devnetURL string) *truth {
	return &truth{url: devnetURL, byID: map[string]*fact{}, customers: map[string][]*fact{}, owners: map[string]string{}}
}

// follow reads the record until ctx ends.
func (tr *truth) follow(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		_ = tr.read(ctx) // again soon
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// read takes in what was recorded since.
func (tr *truth) read(ctx context.Context) error {
	tr.mu.Lock()
	after := tr.last
	tr.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, tr.url+"/_devnet/events?after="+after, nil)
	if err != nil {
		return err
	}
	resp, err := testClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var page struct {
		Events []recorded `json:"events"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	now := time.Now()
	for _, r := range page.Events {
		if _, known := tr.byID[r.ID]; known {
			continue
		}
		f := &fact{
			id: r.ID, customer: r.CustomerID, invoice: r.InvoiceID, status: parsePayload(r.Raw).status(), version: versionOf(r.ID),
			subject: subject{r.OrderID, objectOf(r.Type)}, hash: hashOf(r.Raw), at: now,
		}
		tr.facts = append(tr.facts, f)
		tr.byID[f.id] = f
		tr.customers[f.customer] = append(tr.customers[f.customer], f)
		tr.owners[r.OrderID] = f.customer
		tr.last = f.id
	}
	return nil
}

func (tr *truth) of(customer string) []*fact {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.customers[customer]
}

func (tr *truth) fact(id string) *fact {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.byID[id]
}

// lacks says whether a shopper was brought what the record as read so far does
// not have.
func (tr *truth) lacks(s *shopper) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, d := range s.got {
		if d.order == "" && tr.fact(id) == nil {
			return true
		}
	}
	return false
}

func (tr *truth) owner(order string) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.owners[order]
}

// coveredUpTo returns up to where an order is shown by its event of version v:
// short of its next one, for an order tells of its invoice and payment too.
func (tr *truth) coveredUpTo(order string, v version) version {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	end := version{ms: 1 << 62}
	for _, f := range tr.customers[tr.owners[order]] {
		if f.subject == (subject{order, "order"}) && f.version.compare(v) > 0 && f.version.compare(end) < 0 {
			end = version{f.version.ms, f.version.seq - 1}
		}
	}
	return end
}

// coveredBy is coveredUpTo for the gateway's own event of an order, which has no
// version: it shows what the newest event with the same status does.
func (tr *truth) coveredBy(order, status string) version {
	tr.mu.Lock()
	newest := version{}
	for _, f := range tr.customers[tr.owners[order]] {
		if f.subject == (subject{order, "order"}) && f.status == status {
			newest = later(newest, f.version)
		}
	}
	tr.mu.Unlock()
	if newest == (version{}) {
		return newest
	}
	return tr.coveredUpTo(order, newest)
}

// all returns every fact so far, in the upstream's order.
func (tr *truth) all() []*fact {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.facts[:len(tr.facts):len(tr.facts)]
}

// unsettle notes that from now on, and what is older by up to age, may come in
// another order than the upstream's, until settled is called and for a while
// longer.
func (tr *truth) unsettle(age time.Duration) (settled func(longer time.Duration)) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	w := &window{from: time.Now().Add(-age), to: time.Now().Add(time.Hour)}
	tr.unstable = append(tr.unstable, w)
	return func(longer time.Duration) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		w.to = time.Now().Add(longer)
	}
}

func (tr *truth) stableAt(at time.Time) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, w := range tr.unstable {
		if at.After(w.from) && at.Before(w.to) {
			return false
		}
	}
	return true
}
