package devnet

import (
	"bytes"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	defaultPage = 10
	maxPage     = 100
)

func (s *Server) routeEvents(app *fiber.App) {
	app.Get("/api/v1/events", s.readable, s.requireCommerce, s.listEvents)
	app.Get("/api/v1/events/:id", s.readable, s.requireCommerce, s.retrieveEvent)
}

// readable plays the faults of REST reads.
func (s *Server) readable(c *fiber.Ctx) error {
	s.mu.Lock()
	s.reads++
	s.mu.Unlock()
	s.pause(time.Duration(s.faults.Load().RESTDelay) * time.Millisecond)
	if r := s.takeRefusal(func(f *Faults) **Refusal { return &f.REST }); r != nil {
		return s.answerRefusal(c, r)
	}
	return c.Next()
}

// A listRequest is the query of GET /api/v1/events.
type listRequest struct {
	filter        filter
	gte, lte      int64 // unix seconds; lte 0 is open
	limit         int
	after, before *eventID // starting_after, ending_before
	environment   string
}

func (s *Server) parseList(c *fiber.Ctx) (listRequest, error) {
	r := listRequest{limit: defaultPage, environment: c.Query("environment")}
	types, err := parseTypes(c.Query("type"))
	if err != nil {
		return r, err
	}
	r.filter = filter{types, keys{invoice: c.Query("invoice_id")}}
	if r.environment != "" && r.environment != "devnet" && r.environment != "mainnet" {
		return r, invalid("environment must be devnet or mainnet")
	}
	if limit := c.Query("limit"); limit != "" {
		r.limit, err = strconv.Atoi(limit)
		if err != nil || r.limit < 1 || r.limit > maxPage {
			return r, invalid("limit must be 1 to %d", maxPage)
		}
	}
	if r.gte, err = querySeconds(c, "created[gte]"); err != nil {
		return r, err
	}
	if r.lte, err = querySeconds(c, "created[lte]"); err != nil {
		return r, err
	}
	return r, s.parseCursors(c, &r)
}

func querySeconds(c *fiber.Ctx, name string) (int64, error) {
	v := c.Query(name)
	if v == "" {
		return 0, nil
	}
	n, err := parseDigits(v)
	if err != nil {
		return 0, invalid("%s must be unix seconds", name)
	}
	return n, nil
}

func (s *Server) parseCursors(c *fiber.Ctx, r *listRequest) error {
	after, before := c.Query("starting_after"), c.Query("ending_before")
	if after != "" && before != "" {
		return invalid("starting_after and ending_before exclude each other")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if after != "" {
		at, ok := s.events.resolve(after)
		if !ok {
			return invalid("malformed starting_after")
		}
		r.after = &at
	}
	if before != "" {
		at, ok := s.events.resolve(before)
		if !ok {
			return invalid("malformed ending_before")
		}
		r.before = &at
	}
	return nil
}

// listEvents is GET /api/v1/events.
func (s *Server) listEvents(c *fiber.Ctx) error {
	r, err := s.parseList(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	page, more := s.pageLocked(r)
	s.mu.Unlock()
	// Written by hand, because an encoder would reformat the events' bytes.
	var out bytes.Buffer
	out.WriteString(`{"success":true,"data":{"object":"list","data":[`)
	for i, ev := range page {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(ev.data)
	}
	out.WriteString(`],"has_more":` + strconv.FormatBool(more) + `}}`)
	return sendJSON(c, out.Bytes())
}

func sendJSON(c *fiber.Ctx, data []byte) error {
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Send(data)
}

// pageLocked returns one page, newest first, and whether the direction it was
// read in holds more.
func (s *Server) pageLocked(r listRequest) ([]*event, bool) {
	if r.environment != "" && r.environment != s.cfg.Environment {
		return nil, false
	}
	kept := s.listedLocked()
	if r.after != nil {
		kept = kept[:search(kept, *r.after)]
	}
	walk := slices.Backward(kept)
	up := false
	if r.before != nil {
		kept = kept[search(kept, eventID{r.before.ms, r.before.seq + 1}):]
		walk = slices.Backward(kept)
		if up = !s.cfg.EndingBeforeNewest; up {
			walk = slices.All(kept)
		}
	}
	page, more := s.take(walk, r)
	if up {
		slices.Reverse(page)
	}
	return page, more
}

func (s *Server) take(walk iter.Seq2[int, *event], r listRequest) (page []*event, more bool) {
	for _, ev := range walk {
		if !s.listed(ev, r) {
			continue
		}
		if len(page) == r.limit {
			return page, true
		}
		page = append(page, ev)
	}
	return page, false
}

// listedLocked returns what REST still keeps.
func (s *Server) listedLocked() []*event {
	return s.events.events[s.events.window(retained(s.cfg.Recorded, s.faults.Load().RESTRetention)):]
}

func (s *Server) listed(ev *event, r listRequest) bool {
	return s.visible(ev) && ev.created >= r.gte && (r.lte == 0 || ev.created <= r.lte) && r.filter.match(ev)
}

// visible says whether REST knows ev yet.
func (s *Server) visible(ev *event) bool {
	delay := s.faults.Load().RESTVisibility
	return delay <= 0 || time.Since(ev.emitted) >= time.Duration(delay)*time.Millisecond
}

// retrieveEvent is GET /api/v1/events/{id}.
func (s *Server) retrieveEvent(c *fiber.Ctx) error {
	s.mu.Lock()
	ev, ok := s.events.byID[c.Params("id")]
	if ok {
		kept := s.listedLocked()
		ok = s.visible(ev) && len(kept) > 0 && ev.at.compare(kept[0].at) >= 0
	}
	s.mu.Unlock()
	if !ok {
		return unknown("Event")
	}
	out := append([]byte(`{"success":true,"data":`), ev.data...)
	return sendJSON(c, append(out, '}'))
}
