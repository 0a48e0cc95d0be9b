// Package devnet is a faithful local Pepay: the commerce API's token mint,
// event stream, event and order reads, checkout and devnet simulator on sockets
// of its own. It exists for the demo, for tests and for load runs, so it can
// also play a shop by itself, misbehave on demand (Faults) and say afterwards
// what the truth was (Record).
//
// It keeps everything in bounded memory and forgets it with the process. It
// does not do merchant or payor streams, webhooks, API key management or real
// payments. Its control routes under /_devnet/ are unauthenticated: listen on
// loopback only.
package devnet

import (
	"context"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/contrib/websocket"
	"github.com/gofiber/fiber/v2"

	"pepay-gateway/gateway/socket"
)

const (
	maxBodyBytes    = 16 << 20 // of a request: a huge frame to emit must fit
	maxHeaderBytes  = 16 << 10 // a token in the URL and a browser's headers fit
	readTimeout     = 10 * time.Second
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 5 * time.Second
)

// A Server is one devnet. All its methods may be called at any time, from any
// goroutine; what it was told or did before Serve, or between two Serves, is
// kept.
type Server struct {
	cfg    Config       // fixed by New
	log    *slog.Logger // fixed by New
	secret []byte       // of tokens; fixed by New
	faults atomic.Pointer[Faults]

	shopChanged chan struct{} // capacity 1: wakes shopLoop

	mu        sync.Mutex // guards the fields below
	rand      *rand.Rand
	events    *eventLog
	orders    *orderBook
	carts     map[string][]lineItem // by estimate id
	addresses map[string]any        // by address id
	shop      *shopRun              // nil while closed
	used      map[string]time.Time  // spent single-use tokens and their expiry
	streams   map[*stream]struct{}
	serving   context.Context // of the running Serve; nil while there is none
	wsURL     string
	maxOpen   int // most streams ever open at once
	opened    int // streams ever opened
	mints     int
	reads     int // REST reads of events, orders and invoices, answered or refused

	sessions sync.WaitGroup // the open streams' handlers
}

// New makes a devnet. It does nothing until Serve. log may not be nil.
func New(cfg Config, log *slog.Logger) *Server {
	cfg = cfg.withDefaults()
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	s := &Server{
		cfg: cfg, log: log.With("component", "devnet"), secret: make([]byte, 32),
		shopChanged: make(chan struct{}, 1),
		rand:        rand.New(rand.NewPCG(cfg.Seed, 0)),
		events:      newEventLog(cfg.Recorded), orders: newOrderBook(cfg.MaxOrders),
		carts: make(map[string][]lineItem), addresses: make(map[string]any),
		used: make(map[string]time.Time), streams: make(map[*stream]struct{}),
		wsURL: cfg.WSURL,
	}
	_, _ = crand.Read(s.secret) // never fails, by its contract
	s.faults.Store(&Faults{})
	return s
}

// now is the devnet's clock.
func (s *Server) now() time.Time { return time.Now().Add(s.cfg.ClockOffset) }

// Serve answers on ln, and lets the shop and the invoices' expiry run, until
// ctx ends. It then closes ln and every stream (close code 1001), waits for all
// it started, and returns nil. A Server may be served again afterwards, on
// another listener and with all it knows, but not twice at once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.open(ctx, ln.Addr()); err != nil {
		return err
	}
	app := s.app()
	s.log.Info("devnet serving", "addr", ln.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() { s.shopLoop(ctx) })
	wg.Go(func() { s.expireLoop(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		s.close()
		_ = app.ShutdownWithTimeout(shutdownTimeout) // best effort: our own sockets are closed
		_ = ln.Close()                               // again, for a ctx that ended before the app listened
	})
	err := app.Listener(skewed(socket.Listener(ln), s.cfg.ClockOffset))
	ended := ctx.Err() != nil
	stop()
	wg.Wait()
	s.sessions.Wait()
	s.log.Info("devnet stopped")
	if ended {
		return nil
	}
	return err
}

func (s *Server) open(ctx context.Context, addr net.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving != nil {
		return errors.New("devnet: already serving")
	}
	s.serving = ctx
	if s.cfg.WSURL == "" {
		s.wsURL = "ws://" + addr.String()
	}
	return nil
}

// close ends all streams and admits no more.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = nil
	for st := range s.streams {
		st.cut(Ending{CloseCode: websocket.CloseGoingAway})
	}
}

func (s *Server) app() *fiber.App {
	app := fiber.New(fiber.Config{
		DisableStartupMessage: true,
		Immutable:             true, // strings of a request end up in orders and filters
		UnescapePath:          true,
		BodyLimit:             maxBodyBytes,
		ReadBufferSize:        maxHeaderBytes,
		ReadTimeout:           readTimeout,
		IdleTimeout:           idleTimeout,
		ErrorHandler:          answerError,
	})
	app.Server().KeepHijackedConns = true // or Close on a stream's connection does nothing
	app.Post("/api/v1/ws/token", s.mint)
	app.Get("/ws/commerce/events", s.admit, websocket.New(s.serveStream, websocket.Config{RecoverHandler: s.recoverStream}))
	s.routeEvents(app)
	s.routeMerchant(app)
	s.routeControl(app)
	return app
}

// pause waits for d, or less when the server stops.
func (s *Server) pause(d time.Duration) {
	s.mu.Lock()
	ctx := s.serving
	s.mu.Unlock()
	if d <= 0 || ctx == nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// answerRefusal plays a Refusal.
func (s *Server) answerRefusal(c *fiber.Ctx, r *Refusal) error {
	if r.RetryAfter != "" {
		c.Set(fiber.HeaderRetryAfter, r.RetryAfter)
	}
	code := map[int]string{
		400: "VALIDATION_ERROR", 401: "API_KEY_INVALID", 403: "FORBIDDEN", 404: "NOT_FOUND", 429: "RATE_LIMIT_EXCEEDED",
	}[r.Status]
	if code == "" {
		code = "INTERNAL_SERVER_ERROR"
	}
	return answerProblem(c, &problem{r.Status, code, "Refused by a fault switch"}, r.Body)
}
