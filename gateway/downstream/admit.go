package downstream

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

// An admission is all that is known of a stream when its request has been read.
// It holds copies only: nothing of the request outlives its handler.
type admission struct {
	transport gateway.Transport
	path      string
	ip        netip.Addr
	origin    string // of an allowed page; "" when there is none
	offered   bool   // the client speaks pepay.v1
	refusal   *problem

	grant
	query
	from      *gateway.Position // where this node was when it was asked; nil when it had no place yet
	controls  bool              // the client wants to be told how the stream is doing
	resumable bool              // since is set, and unusable is no error but a reset
}

// admitStream reads a stream's request. A refusal that the client must be told
// is in the admission; how depends on the transport.
func (s *Server) admitStream(c *fiber.Ctx, transport gateway.Transport, origin string, now time.Time) *admission {
	a := &admission{transport: transport, path: ssePath, ip: s.clientIP(c), origin: origin}
	var offered []string
	if transport == gateway.WS {
		a.path, offered = wsPath, offeredSubprotocols(c)
		a.offered = slices.Contains(offered, subprotocol)
	}
	s.counts.handshakes.Add(1)
	if !s.limiter.allow(a.ip, now) {
		a.refusal = errHandshakes
		return a
	}
	a.refusal = s.streams.refuses(a.ip)
	switch {
	case a.refusal != nil:
	case !s.door.admits(c.Context().Conn()):
		a.refusal = errOverloaded
	default:
		a.refusal = s.readStream(c, a, offered, now)
	}
	return a
}

func (s *Server) readStream(c *fiber.Ctx, a *admission, offered []string, now time.Time) *problem {
	if !a.offered && slices.ContainsFunc(offered, isBearer) {
		return errSubprotocol
	}
	values, err := url.ParseQuery(string(c.Context().URI().QueryString()))
	if err != nil {
		return badParameter("query")
	}
	cred, p := streamCredential(c, values, offered, a.origin)
	if p != nil {
		if p == errTokenInvalid {
			s.limiter.punish(a.ip, now)
		}
		return p
	}
	if a.grant, p = s.prove(cred, a.ip, now); p != nil {
		return p
	}
	if a.kind == auth.KindSSE && a.transport != gateway.SSE {
		return errSSEOnly
	}
	filter, p := parseFilter(values, "types")
	if p != nil {
		return p
	}
	if a.query, p = parseQuery(values); p != nil {
		return p
	}
	if a.scope, p = narrow(a.scope, filter); p != nil {
		return p
	}
	a.resumable = a.since != ""
	if a.transport == gateway.SSE {
		if last := c.Get("Last-Event-ID"); last != "" {
			a.since, a.resumable = strings.Clone(last), true
		}
	}
	a.controls = a.transport == gateway.SSE || a.offered || a.control
	if s.node.Ready() == nil {
		p := s.node.Position()
		a.from = &p
	}
	return nil
}

// snapshots says whether the stream shows the state of its orders: when asked
// to or by default, and only within one customer or some orders.
func (a *admission) snapshots() bool {
	if a.query.snapshot != nil && !*a.query.snapshot || a.query.snapshot == nil && !a.controls {
		return false
	}
	return len(a.scope.SelectedOrders()) > 0 || len(a.scope.SelectedCustomers()) == 1
}

// perToken is how many streams the token may have; 0 means no limit. An API key
// is a server's, which may have many processes.
func (a *admission) perToken(limit int) int {
	switch a.kind {
	case auth.KindSSE:
		return 1
	case auth.KindStream:
		return limit
	}
	return 0
}
