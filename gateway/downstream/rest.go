package downstream

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

const (
	defaultLimit = 10
	maxLimit     = 100
	maxCreated   = 1 << 40         // unix seconds, beyond any date
	restTimeout  = 5 * time.Second // of the work for one request
)

// authorize returns what a REST request may see.
func (s *Server) authorize(c *fiber.Ctx) (gateway.Scope, error) {
	now, ip := time.Now(), s.clientIP(c)
	if s.limiter.exhausted(ip, now) {
		return gateway.Scope{}, errHandshakes
	}
	origin, err := s.origin(c)
	if err != nil {
		return gateway.Scope{}, err
	}
	cred, p := restCredential(c, origin)
	if p != nil {
		return gateway.Scope{}, p
	}
	g, p := s.prove(cred, ip, now)
	switch {
	case p != nil:
		return gateway.Scope{}, p
	case g.kind == auth.KindSSE:
		return gateway.Scope{}, errSSEOnly
	}
	s.setStreamStatus(c, true)
	c.Set(streamScope, s.scopeID(g.scope))
	return g.scope, nil
}

// listEvents serves GET /api/v1/events.
func (s *Server) listEvents(c *fiber.Ctx) error {
	scope, err := s.authorize(c)
	if err != nil {
		return err
	}
	q, p := parseList(string(c.Context().URI().QueryString()))
	if p != nil {
		return p
	}
	if q.Scope, p = narrow(scope, q.filter); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(context.Background(), restTimeout)
	defer cancel()
	list, err := s.node.List(ctx, q.ListQuery)
	if err != nil {
		return s.logFailed("list", err)
	}
	data := []byte(`{"object":"list","data":`)
	data = appendEvents(data, list.Events)
	data = append(data, `,"has_more":`...)
	data = strconv.AppendBool(data, list.HasMore)
	return answerData(c, append(data, '}'))
}

// appendEvents appends a JSON array of events, their bytes as they came.
func appendEvents(dst []byte, events []*gateway.Event) []byte {
	dst = append(dst, '[')
	for i, ev := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, ev.Data...)
	}
	return append(dst, ']')
}

type listRequest struct {
	gateway.ListQuery
	filter gateway.Filter
}

// parseList reads the parameters of a listing. As on streams, unknown ones are
// ignored and malformed ones refused.
func parseList(raw string) (listRequest, *problem) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return listRequest{}, badParameter("query")
	}
	q := listRequest{ListQuery: gateway.ListQuery{Limit: defaultLimit}}
	var p *problem
	if q.filter, p = parseRESTFilter(values); p != nil {
		return listRequest{}, p
	}
	for name, to := range map[string]*int64{"created[gte]": &q.CreatedGTE, "created[lte]": &q.CreatedLTE} {
		if p := number(values, name, to, 0, maxCreated); p != nil {
			return listRequest{}, p
		}
	}
	limit := int64(defaultLimit)
	if p := number(values, "limit", &limit, 1, maxLimit); p != nil {
		return listRequest{}, p
	}
	q.Limit = int(limit)
	for name, to := range map[string]*string{"starting_after": &q.StartingAfter, "ending_before": &q.EndingBefore} {
		if *to, p = single(values, name); p != nil {
			return listRequest{}, p
		}
		if values.Has(name) && !gateway.ValidID(*to) {
			return listRequest{}, badParameter(name)
		}
	}
	if q.StartingAfter != "" && q.EndingBefore != "" {
		return listRequest{}, badParameter("ending_before")
	}
	return q, nil
}

// parseRESTFilter is parseFilter by the names of Pepay's REST API, and by those of
// streams where they differ.
func parseRESTFilter(values url.Values) (gateway.Filter, *problem) {
	for _, names := range [][2]string{{"commerce_order_id", "order_id"}, {"types", "type"}} {
		given := values[names[0]]
		if len(given) == 0 {
			continue
		}
		if values.Has(names[1]) {
			return gateway.Filter{}, badParameter(names[0])
		}
		values[names[1]] = given
	}
	return parseFilter(values, "type")
}

// number reads a whole number if the parameter is present.
func number(values url.Values, name string, to *int64, least, most int64) *problem {
	text, p := single(values, name)
	if p != nil || !values.Has(name) {
		return p
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return badParameter(name)
	}
	*to = n
	return nil
}

// findEvent serves GET /api/v1/events/{id}.
func (s *Server) findEvent(c *fiber.Ctx) error {
	scope, err := s.authorize(c)
	if err != nil {
		return err
	}
	id, ok := pathID(c)
	if !ok {
		return errNotFound
	}
	ctx, cancel := context.WithTimeout(context.Background(), restTimeout)
	defer cancel()
	ev, err := s.node.Find(ctx, id, scope)
	switch {
	case errors.Is(err, gateway.ErrNotFound):
		return errNotFound
	case err != nil:
		return s.logFailed("find", err)
	}
	return answerData(c, ev.Data)
}

// pathID returns a copy of the path's id.
func pathID(c *fiber.Ctx) (string, bool) {
	id, err := url.PathUnescape(c.Params("id"))
	return strings.Clone(id), err == nil && gateway.ValidID(id)
}

// orderState serves GET /api/v1/orders/{order_id}/state.
func (s *Server) orderState(c *fiber.Ctx) error {
	scope, err := s.authorize(c)
	if err != nil {
		return err
	}
	order, ok := pathID(c)
	if !ok {
		return errNotFound
	}
	values, err := url.ParseQuery(string(c.Context().URI().QueryString()))
	if err != nil {
		return badParameter("query")
	}
	filter, p := parseRESTFilter(values)
	if p != nil {
		return p
	}
	filter.Orders = []string{order}
	one, p := narrow(scope, filter)
	if p != nil {
		return errNotFound // as if unknown: it must not tell that the order exists
	}
	ctx, cancel := context.WithTimeout(context.Background(), restTimeout)
	defer cancel()
	snap, err := s.node.Snapshot(ctx, one)
	if err != nil {
		return s.logFailed("order state", err)
	}
	if !snap.Complete {
		_ = s.node.Ask(ctx, snap.Asks) // a hint; the next poll asks again
		s.setStreamStatus(c, false)
	}
	if len(snap.Frames) == 0 {
		return errNotFound
	}
	return s.answerState(c, order, snap)
}

// answerState answers with the state and a strong ETag of it. The cursor, which
// moves with every event of the shop, is not part of the ETag: state that has
// not changed since an older cursor resumes from that one as well.
func (s *Server) answerState(c *fiber.Ctx, order string, snap gateway.ScopedSnapshot) error {
	events := make([]*gateway.Event, len(snap.Frames))
	for i, f := range snap.Frames {
		events[i] = f.Event
	}
	name, err := json.Marshal(order)
	if err != nil {
		return err
	}
	data := append([]byte(`{"object":"order_state","order_id":`), name...)
	data = append(data, `,"complete":`...)
	data = strconv.AppendBool(data, snap.Complete)
	data = appendEvents(append(data, `,"data":`...), events)
	sum := sha256.Sum256(data)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`

	setPrivate(c)
	c.Set(fiber.HeaderCacheControl, "private, no-cache")
	c.Set(fiber.HeaderETag, etag)
	if matches(c.Get(fiber.HeaderIfNoneMatch), etag) {
		return c.SendStatus(fiber.StatusNotModified)
	}
	cursor, err := json.Marshal(cursorText(s.node.Cursor(snap.Pos)))
	if err != nil {
		return err
	}
	data = append(append(data, `,"cursor":`...), cursor...)
	return answerData(c, append(data, '}'))
}

// setStreamStatus tells a client that polls what a stream would tell it: how
// fresh the answer is and, where it is not, since when; also where the answer is
// that there is nothing.
func (s *Server) setStreamStatus(c *fiber.Ctx, complete bool) {
	health, _ := s.node.Health()
	if health.State == gateway.Live && !complete {
		health = gateway.Health{State: gateway.CatchingUp, Since: time.Now()}
	}
	c.Set(streamStatus, string(health.State))
	if health.State != gateway.Live {
		c.Set(streamSince, strconv.FormatInt(health.Since.UnixMilli(), 10))
	}
}

// matches says whether an If-None-Match names etag. The comparison is weak, as
// RFC 9110 wants it there: proxies that compress mark ETags as weak.
func matches(header, etag string) bool {
	for _, one := range strings.Split(header, ",") {
		one = strings.TrimSpace(one)
		if one == "*" || strings.TrimPrefix(one, "W/") == etag {
			return true
		}
	}
	return false
}

// logFailed ends the life of an error of the log.
func (s *Server) logFailed(operation string, err error) error {
	s.log.Warn("log unavailable", "operation", operation, "err", err)
	return errLogAway
}
