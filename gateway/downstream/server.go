// Package downstream is the public listener: it turns tokens into scopes, and
// serves the streams (WebSocket and SSE), the REST API and the mint to browsers
// and to the merchant's servers. It admits, paces and drains connections.
//
// It does not decide who may see what: that is gateway.Scope. It keeps no
// events: they come from the gateway.Node, which every session reads through
// its own gateway.Subscriber.
package downstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"

	"pepay-gateway/auth"
	"pepay-gateway/gateway"
)

const (
	maxHeaderBytes = 16 << 10 // a token in URL or header, and a browser's cookies
	maxBodyBytes   = 4 << 10  // the mint's body, with 50 order ids of usual length
	readTimeout    = 10 * time.Second
	idleTimeout    = 60 * time.Second
	// shutdownTimeout bounds the wait for plain requests after the streams ended.
	shutdownTimeout = 5 * time.Second
)

const (
	wsPath   = "/ws/commerce/events"
	ssePath  = "/sse/commerce/events"
	mintPath = "/api/v1/ws/token"
)

// Config is what a Server needs besides its parts. Zero durations take the
// defaults named, and zero limits mean no limit.
type Config struct {
	PublicURL      string         // base of the URLs that clients are given, such as https://events.shop.com
	PepayURL       string         // Pepay's API, named to those who ask for what is not served here
	Origins        []string       // pages that may read, exactly as browsers send it; none when empty
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	Limits         Limits
	Descriptors    int // files the process may have open; 0 when not limited

	Heartbeat     time.Duration // between two signs of life, at most; default 15 s
	DrainDuration time.Duration // over which Serve ends what Drain has not; default 1 s

	TokenTTL      time.Duration // of a minted token that names none; default 60 s
	AccountMaxTTL time.Duration // default and most: auth.MaxAccountTTL
	ScopedMaxTTL  time.Duration // default and most: auth.MaxScopedTTL
	Session       time.Duration // of a stream whose mint names none; default 1 h
	MaxSession    time.Duration // default and most: auth.MaxSession

	MerchantID  int64  // told to those who mint; 0 when unknown
	Environment string // devnet or mainnet; "" when unknown

	// ScopeKey keys scope_id, the hash of a scope that clients see. The nodes of
	// one gateway share it. Random when empty.
	ScopeKey []byte
	// Client serves what is below /client/, to every page; nil answers 404.
	Client http.Handler
	// Site serves every path that is not the gateway's; nil answers 404.
	Site http.Handler
}

// Limits bound what clients take from this node. 0 means no limit.
type Limits struct {
	Connections            int
	ConnectionsPerIP       int
	ConnectionsPerToken    int
	ConnectionsPerCustomer int
	HandshakesPerIP        int // per second
}

func (c *Config) setDefaults() {
	defaultTo := func(d *time.Duration, value, most time.Duration) {
		if *d <= 0 || most > 0 && *d > most {
			*d = value
		}
	}
	defaultTo(&c.Heartbeat, 15*time.Second, 0)
	defaultTo(&c.DrainDuration, time.Second, 0)
	defaultTo(&c.AccountMaxTTL, auth.MaxAccountTTL, auth.MaxAccountTTL)
	defaultTo(&c.ScopedMaxTTL, auth.MaxScopedTTL, auth.MaxScopedTTL)
	defaultTo(&c.MaxSession, auth.MaxSession, auth.MaxSession)
	defaultTo(&c.TokenTTL, min(time.Minute, c.AccountMaxTTL, c.ScopedMaxTTL), min(c.AccountMaxTTL, c.ScopedMaxTTL))
	defaultTo(&c.Session, min(time.Hour, c.MaxSession), c.MaxSession)
	if len(c.ScopeKey) == 0 {
		c.ScopeKey = []byte(rand.Text())
	}
}

// A Server is the public listener of one node. Safe for concurrent use.
type Server struct {
	cfg     Config
	node    *gateway.Node
	keys    *auth.Keyring
	apiKeys auth.APIKeys
	log     *slog.Logger
	app     *fiber.App
	origins map[string]bool
	limiter *limiter
	door    *door
	streams *registry
	crew    *crew
	wheel   *wheel
	poller  *poller // nil where the system has none, and before Serve
	counts  counters
	// refusing counts the WebSockets that are being told why they are refused.
	refusing atomic.Int64
}

// New returns a Server that does nothing until Serve.
func New(cfg Config, node *gateway.Node, keys *auth.Keyring, apiKeys auth.APIKeys, log *slog.Logger) *Server {
	cfg.setDefaults()
	s := &Server{
		cfg: cfg, node: node, keys: keys, apiKeys: apiKeys, log: log.With("component", "downstream"),
		origins: make(map[string]bool), limiter: newLimiter(cfg.Limits.HandshakesPerIP),
		door: newDoor(cfg.Descriptors), streams: newRegistry(cfg.Limits), crew: newCrew(),
	}
	s.wheel = newWheel(s.crew.during)
	node.OnDeliver(s.crew.during)
	for _, o := range cfg.Origins {
		s.origins[o] = true
	}
	s.app = fiber.New(fiber.Config{
		DisableStartupMessage:        true,
		CaseSensitive:                true,
		StrictRouting:                true,
		ReadBufferSize:               maxHeaderBytes,
		ReduceMemoryUsage:            true,
		BodyLimit:                    maxBodyBytes,
		ReadTimeout:                  readTimeout,
		IdleTimeout:                  idleTimeout,
		DisablePreParseMultipartForm: true,
		ErrorHandler:                 s.handleError,
	})
	// Without this, closing a hijacked connection does nothing, and the library
	// gives the connection's object to another client once the handler returns.
	s.app.Server().KeepHijackedConns = true
	s.routes()
	return s
}

func (s *Server) routes() {
	// Add instead of Get: Get would answer HEAD with a stream.
	s.app.Use(s.accessLog, s.unambiguous)
	s.app.Add(fiber.MethodPost, mintPath, s.mint)
	s.app.All(mintPath, func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderAllow, fiber.MethodPost)
		return errMethod
	})
	s.readable(wsPath, s.serveWS())
	s.app.Add(fiber.MethodGet, ssePath, s.neverAgain)
	s.readable(ssePath, s.serveSSE)
	s.readable("/api/v1/events", s.listEvents)
	s.readable("/api/v1/events/:id", s.findEvent)
	s.readable("/api/v1/orders/:id/state", s.orderState)
	for _, prefix := range []string{"/api/", "/ws/", "/sse/"} {
		s.app.Use(prefix, s.notProxied)
	}
	if s.cfg.Client != nil {
		s.app.Use("/client/", adapted(s.cfg.Client))
	}
	if s.cfg.Site != nil {
		s.app.Use(adapted(s.cfg.Site))
	}
}

// adapted is h as the library calls it. The context of a request is used again
// for the next one as soon as it is answered, while a call that h has made with it
// may still ask it something: h gets one that is nobody's.
func adapted(h http.Handler) fiber.Handler {
	return adaptor.HTTPHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.Background()))
	}))
}

// readable routes what pages of the allowed origins may read.
func (s *Server) readable(path string, handler fiber.Handler) {
	s.app.Add(fiber.MethodGet, path, s.cors, handler)
	s.app.Add(fiber.MethodOptions, path, s.preflight)
	s.app.All(path, s.cors, func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderAllow, "GET, OPTIONS")
		return errMethod
	})
}

// Serve serves ln until ctx ends, then ends the streams that Drain has left,
// and returns nil. It owns ln. Another error means that accepting failed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	_, changed := s.node.Health()
	go func() {
		defer close(watched)
		s.watchHealth(watching, changed)
	}()
	defer func() {
		stop()
		<-watched
	}()
	if p, err := newPoller(s.crew.during); err == nil { // else connections are read in goroutines
		s.poller = p
		defer p.close()
	}
	failed := make(chan error, 1)
	if s.door.room > 0 && s.door.room < s.cfg.Limits.Connections {
		s.log.Info("ulimit -n is lower than limits.connections needs", "descriptors", s.cfg.Descriptors, "streams", s.door.room)
	}
	go func() { failed <- s.app.Listener(&listener{ln, s.door}) }()
	select {
	case err := <-failed:
		s.end(context.WithoutCancel(ctx), 0)
		if err == nil {
			err = errors.New("listener closed")
		}
		return fmt.Errorf("downstream: serve: %w", err)
	case <-ctx.Done():
	}
	s.end(context.WithoutCancel(ctx), s.cfg.DrainDuration)
	if err := s.app.ShutdownWithTimeout(shutdownTimeout); err != nil {
		s.log.Warn("shutdown", "err", err)
	}
	_ = ln.Close() // already closed, unless Serve ended before the server began
	<-failed
	return nil
}

// watchHealth wakes all sessions whenever what they tell their clients changes,
// first when changed is closed.
func (s *Server) watchHealth(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		_, changed = s.node.Health() // before they look, so that no change is missed
		s.streams.wake()
	}
}

// end ends all streams and waits for their goroutines.
func (s *Server) end(ctx context.Context, over time.Duration) {
	s.Drain(ctx, over)
	s.streams.close()
}
