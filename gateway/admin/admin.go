// Package admin is the listener for operators: health, readiness, metrics, the
// cluster-wide numbers dashboards poll, and the ops page. It changes nothing,
// and it never serves the public.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pepay-gateway/gateway"
)

// readyWithLog is what a node answers that is ready and has the log; its peers
// look for it.
const readyWithLog = "ready\n"

const (
	readHeaderTimeout = 5 * time.Second
	writeTimeout      = 60 * time.Second // a CPU profile takes 30 s
	shutdownTimeout   = 2 * time.Second
	maxHeaderBytes    = 16 << 10
)

// Config is what the listener serves.
type Config struct {
	Token   string       // demanded of everything but health and readiness, when not empty
	Pprof   bool         // serve /debug/pprof/
	Ready   func() error // nil when this node may get traffic, else why not
	Cluster *Cluster     // the numbers
	Ops     http.Handler // the page under /ops/
	Log     *slog.Logger
}

// A Server is the admin listener.
type Server struct {
	cfg     Config
	handler http.Handler
}

// New returns a server for cfg.
func New(cfg Config) *Server {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(cfg.Cluster))

	inner := http.NewServeMux()
	inner.HandleFunc("GET /api/v1/stats", cfg.Cluster.serveStats)
	inner.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	inner.Handle("GET /ops/", cfg.Ops)
	inner.Handle("GET /ops", http.RedirectHandler("/ops/", http.StatusPermanentRedirect))
	if cfg.Pprof {
		inner.HandleFunc("GET /debug/pprof/", pprof.Index)
		inner.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		inner.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		inner.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	}

	s := &Server{cfg: cfg}
	outer := http.NewServeMux()
	outer.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	outer.HandleFunc("GET /readyz", s.serveReady)
	outer.Handle("/", s.guard(inner))
	s.handler = outer
	return s
}

// Serve serves until ctx ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: readHeaderTimeout, WriteTimeout: writeTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // whoever is left is cut
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.cfg.Ready(); err != nil {
		writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
		return
	}
	if n := s.cfg.Cluster.local(); n.Status.Reason == gateway.ReasonLogUnreachable {
		writeText(w, http.StatusOK, "ready, but without the log\n")
		return
	}
	writeText(w, http.StatusOK, readyWithLog)
}

// guard demands the token where there is one. Without one the listener is on
// loopback, and only names of this machine are answered: a web page that lets
// its own name resolve to 127.0.0.1 must not read it.
func (s *Server) guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if s.cfg.Token == "" {
			if !localHost(r.Host) {
				writeText(w, http.StatusMisdirectedRequest, "ask for this listener by its address or as localhost\n")
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		got := sha256.Sum256([]byte(presented(r)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="pepay-gateway admin"`)
			writeText(w, http.StatusUnauthorized, "send admin.token as a bearer token, or as the password of basic auth\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func presented(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	_, password, _ := r.BasicAuth()
	return password
}

func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the peer may be gone
}
