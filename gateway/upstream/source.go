// Package upstream is the client of Pepay's realtime API: it mints tokens, holds
// the one stream, catches up by REST, and turns frames into gateway events
// without changing a byte of them.
//
// It does not dedupe, order, store or filter by customer; that is the log's and
// the hub's business. It keeps no cursor beyond one Run.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"pepay-gateway/gateway"
)

const streamPath = "/ws/commerce/events"

// Ways to authenticate the stream.
const (
	AuthToken = "token" // mint a token for each dial
	AuthKey   = "key"   // send the API key with the handshake
)

// A Config says where the upstream is and who we are there. It prints, logs and
// marshals without its key.
type Config struct {
	APIURL      string        // base of the REST API, http or https
	WSURL       string        // base of the stream, or its full URL; empty: as APIURL
	APIKey      string        `json:"-"` // a commerce key
	Auth        string        // AuthToken, also when empty, or AuthKey
	Types       []string      // what to subscribe to, as in gateway.MatchType; empty: everything
	Environment string        // devnet or mainnet; empty: whatever the key is for
	Backfill    time.Duration // how far a cold start reaches back
	HTTP        *http.Client  // nil: one of our own; redirects are never followed
}

// Format implements fmt.Formatter.
func (c Config) Format(w fmt.State, _ rune) {
	_, _ = io.WriteString(w, "upstream.Config{"+c.APIURL+"}")
}

// LogValue implements slog.LogValuer.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// A Source is Pepay as gateway.Ingest sees it. Order, OrderOfInvoice, OrdersOf
// and Stats may be called at any time, from any goroutine; Run by one at a time.
type Source struct {
	api         *url.URL
	ws          *url.URL
	key         secret
	byKey       bool
	types       []string
	environment string
	backfill    time.Duration
	client      *http.Client
	tls         *tls.Config
	log         *slog.Logger
	tune        tuning
	count       counters
	quarantines warner
	kinds       kinds
}

var _ gateway.Source = (*Source)(nil)

// New checks cfg. It makes no connection.
func New(cfg Config, log *slog.Logger) (*Source, error) {
	api, err := parseURL(cfg.APIURL, "http", "https")
	if err != nil {
		return nil, fmt.Errorf("upstream: API URL: %w", err)
	}
	if cfg.WSURL == "" {
		cfg.WSURL = cfg.APIURL
	}
	ws, err := parseURL(cfg.WSURL, "ws", "wss")
	if err != nil {
		return nil, fmt.Errorf("upstream: stream URL: %w", err)
	}
	if !strings.HasSuffix(ws.Path, streamPath) {
		ws.Path += streamPath
	}
	if cfg.APIKey == "" || strings.ContainsFunc(cfg.APIKey, unfitForHeader) {
		return nil, errors.New("upstream: API key is missing or has characters no header can carry")
	}
	if cfg.Auth != "" && cfg.Auth != AuthToken && cfg.Auth != AuthKey {
		return nil, fmt.Errorf("upstream: auth %q is neither %q nor %q", cfg.Auth, AuthToken, AuthKey)
	}
	if cfg.Backfill < 0 {
		return nil, errors.New("upstream: backfill is negative")
	}
	client, tlsConfig := newClient(cfg.HTTP)
	return &Source{
		api: api, ws: ws, key: newSecret(cfg.APIKey), byKey: cfg.Auth == AuthKey,
		types: cfg.Types, environment: cfg.Environment, backfill: cfg.Backfill,
		client: client, tls: tlsConfig, log: log, tune: defaultTuning(),
	}, nil
}

// parseURL never repeats its input in an error: people put keys into URLs.
func parseURL(raw, plain, secure string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errors.New("not an absolute URL")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("has a user, query or fragment")
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = plain
	case "https", "wss":
		u.Scheme = secure
	default:
		return nil, errors.New("scheme is none of http, https, ws, wss")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

func unfitForHeader(r rune) bool { return r <= ' ' || r > '~' }

// newClient returns a client that follows no redirect (net/http would repeat
// the x-api-key header to whatever host it is sent to), and the TLS settings
// which the stream shares with it.
func newClient(given *http.Client) (*http.Client, *tls.Config) {
	client := &http.Client{}
	if given != nil {
		*client = *given
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if t, ok := client.Transport.(*http.Transport); ok && t.TLSClientConfig != nil {
		tlsConfig = t.TLSClientConfig.Clone()
		tlsConfig.NextProtos = nil // h2 cannot carry our handshake
	}
	return client, tlsConfig
}

// tuning holds what only tests change.
type tuning struct {
	backoff backoff
	look    time.Duration // between two looks for an upstream that is away, at most
	healthy time.Duration // a connection this old forgives earlier failures
	settled time.Duration // a clean close this long after the open is a normal end

	ping    time.Duration
	silence time.Duration // U2: at most 2.5 × ping

	overlap      time.Duration // how late the upstream may commit an event
	stepBack     time.Duration // by how much an event that comes again may move the cursor back
	future       time.Duration // how far an event may be ahead of the upstream's own clock
	clocks       time.Duration // how far those of the upstream's hosts may be apart, and what cutting to seconds takes
	recheck      time.Duration // REST may lag the stream: look twice before calling it a gap
	sweeps       []time.Duration
	controlEvery time.Duration // at most one backfill for control frames in this time

	holdFrames, holdBytes     int // buffered during a backfill; then the socket is closed
	windowEvents, windowBytes int // of a backfill held in memory at once
	// pageBytes bounds a page of events. A larger one is asked for again with fewer
	// events; one event is at most gateway.MaxEventBytes.
	pageBytes int64
}

func defaultTuning() tuning {
	return tuning{
		backoff: newBackoff(),
		look:    3 * time.Second,
		healthy: 5 * time.Second,
		settled: time.Second,
		ping:    10 * time.Second,
		silence: 25 * time.Second,

		overlap:      60 * time.Second,
		stepBack:     time.Hour,
		future:       15 * time.Minute,
		clocks:       2 * time.Second,
		recheck:      2 * time.Second,
		sweeps:       []time.Duration{2 * time.Second, 30 * time.Second},
		controlEvery: 10 * time.Second,

		holdFrames: 50_000, holdBytes: 64 << 20,
		windowEvents: 50_000, windowBytes: 64 << 20,
		pageBytes: 4 << 20,
	}
}

// Run implements gateway.Source.
func (s *Source) Run(ctx context.Context, from gateway.UpstreamCursor, sink gateway.SourceSink) error {
	defer s.client.CloseIdleConnections()
	r := newRun(s, from, sink)
	wait := s.tune.backoff
	for {
		r.opened = time.Time{}
		err := r.connectOnce(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var f *failure
		if !errors.As(err, &f) {
			return err // the sink's, or ErrGap
		}
		if f.class == gap {
			s.log.Error("upstream refuses the cursor", "reason", f.text)
			return gateway.ErrGap
		}
		d, pause := r.endOf(f, &wait), sleep
		if f.class == down {
			pause = r.waitOut
		}
		if pause(ctx, d) != nil {
			return context.Cause(ctx)
		}
		s.count.reconnects.Add(1)
	}
}

// endOf accounts for a connection that ended with f, and says how long to wait.
func (r *run) endOf(f *failure, wait *backoff) time.Duration {
	r.count.failures[f.class].Add(1)
	r.noteOversize(f)
	var lived time.Duration
	if !r.opened.IsZero() {
		lived = time.Since(r.opened)
	}
	if lived >= r.tune.healthy {
		wait.reset()
	}
	class := f.class
	if class == closed && lived < r.tune.settled {
		f = &failure{class: down, text: f.text} // a server that closes at once must not be hammered
	}
	d := wait.next(f)
	level := slog.LevelWarn
	switch class {
	case forbidden, rejected:
		level = slog.LevelError
	case closed:
		level = slog.LevelInfo
	}
	r.report(gateway.Stale, class.reason())
	r.log.Log(context.Background(), level, "upstream connection ended", "class", class.reason(),
		"reason", f.text, "lived", lived.Round(time.Millisecond), "retry_in", d.Round(time.Millisecond))
	return d
}
