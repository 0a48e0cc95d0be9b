package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"pepay-gateway/auth"
	"pepay-gateway/configs"
	"pepay-gateway/gateway"
	"pepay-gateway/gateway/admin"
	"pepay-gateway/gateway/downstream"
	"pepay-gateway/gateway/upstream"
	"pepay-gateway/redisbus"
	"pepay-gateway/web"
)

// startTimeout bounds the wait for Redis at the start. A node that cannot reach
// it then still starts: it says so, and heals.
const startTimeout = 5 * time.Second

// gcPercent is how much garbage there may be in proportion to what lives: most of
// what lives belongs to idle connections, and hardly anything makes garbage.
const gcPercent = 50

func serveCommand(env environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve -c gateway.yaml",
		Short: "Run a node of the gateway",
		Long: `Runs one node: it connects to Redis, serves browsers on listen and operators on
admin.listen, and takes part in electing the one node that holds the stream from Pepay.

Every setting may come from the file, from the environment (upstream.api_key is
GATEWAY_UPSTREAM_API_KEY, or GATEWAY_UPSTREAM_API_KEY_FILE), or both; the environment wins.
SIGTERM drains: the node hands the upstream over, sends its clients to other nodes over
drain.duration, and exits 0.`,
		Example: "  pepay-gateway serve -c /etc/pepay-gateway/gateway.yaml\n  pepay-gateway config check -c gateway.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configs.Load(file, env.vars, nil)
			if err != nil {
				return err
			}
			ln, adminLn, err := listen(cfg)
			if err != nil {
				return err
			}
			log := env.logger(cfg.Log.Level)
			redisbus.LogTo(log)
			if !env.has("GOGC") {
				debug.SetGCPercent(gcPercent)
			}
			n, err := newNode(cfg, nil, log)
			if err != nil {
				return errors.Join(err, ln.Close(), adminLn.Close())
			}
			return n.run(cmd.Context(), ln, adminLn)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (YAML); without it, the environment alone")
	return cmd
}

func listen(cfg configs.Config) (public, operators net.Listener, err error) {
	if public, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, nil, fmt.Errorf("listen: %w; choose another address with listen", err)
	}
	if operators, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
		_ = public.Close()
		return nil, nil, fmt.Errorf("admin.listen: %w; choose another address with admin.listen", err)
	}
	return public, operators, nil
}

// A node is one gateway process with all its parts.
type node struct {
	cfg     configs.Config
	log     *slog.Logger
	started time.Time

	bus     *redisbus.Bus
	source  *upstream.Source
	ingest  *gateway.Ingest
	node    *gateway.Node
	public  *downstream.Server
	admin   *admin.Server
	cluster *admin.Cluster

	adminURL  string
	unchecked bool // Redis did not answer at the start
	embedded  bool // its Redis is in this process and need not be checked
	draining  atomic.Bool
	memory    *memory
	reaches   atomic.Bool // the upstream, which the leader does not
}

// newNode builds a node; nothing runs or connects yet. site serves what is not
// the gateway's on the public listener; nil in production.
func newNode(cfg configs.Config, site http.Handler, log *slog.Logger) (*node, error) {
	n := &node{cfg: cfg, log: log, started: time.Now(), memory: newMemory()}
	log = log.With("node", cfg.Node)
	var problems configs.Problems
	note := func(where string, err error) {
		var several configs.Problems
		switch {
		case errors.As(err, &several):
			problems = append(problems, several...)
		case err != nil:
			problems = append(problems, configs.Problem{Where: where, What: err.Error()})
		}
	}
	var err error
	n.bus, err = redisbus.New(redisbus.Config{
		URL: cfg.Redis.URL.Reveal(), Stream: cfg.Stream,
		RetentionEvents: cfg.Log.RetentionEvents, MaxOrders: cfg.State.MaxOrders, Log: log,
	})
	note("redis.url", err)
	n.source, err = upstream.New(upstream.Config{
		APIURL: cfg.Upstream.APIURL, WSURL: cfg.Upstream.WSURL, APIKey: cfg.Upstream.APIKey.Reveal(),
		Auth: cfg.Upstream.Auth, Types: cfg.Upstream.Types, Environment: cfg.Upstream.Environment,
		Backfill: cfg.Upstream.Backfill,
	}, log.With("component", "upstream"))
	note("upstream", err)
	keyring, err := keyringOf(cfg.Auth)
	note("auth", err)
	apiKeys, err := apiKeysOf(cfg.Auth)
	note("auth.api_keys", err)
	if problems != nil {
		return nil, problems
	}
	n.ingest = gateway.NewIngest(n.bus, n.source, gateway.IngestConfig{
		Lease: cfg.Leader.Lease, Log: log, Elsewhere: func() bool { return n.cluster.OthersReachUpstream() },
		OnLead:   func(leading bool) { n.node.Lead(leading) },
		OnAppend: func(a gateway.Announcement) { n.node.Take(a) },
	})
	n.node = gateway.NewNode(n.bus, gateway.NodeConfig{Log: log, OnAsk: n.ingest.Ask, OnNudge: n.ingest.Nudge})

	n.public = downstream.New(downstream.Config{
		PublicURL: cfg.PublicURL, Origins: cfg.CORS.Origins, TrustedProxies: cfg.TrustedProxies,
		Environment: cfg.Upstream.Environment, PepayURL: cfg.Upstream.APIURL,
		Client: web.Client(), Site: site,
		ScopeKey: scopeKey(cfg.Auth.TokenSecret), Descriptors: descriptors(),
		Limits: downstream.Limits{
			Connections: cfg.Limits.Connections, ConnectionsPerIP: cfg.Limits.ConnectionsPerIP,
			ConnectionsPerToken: cfg.Limits.ConnectionsPerToken, ConnectionsPerCustomer: cfg.Limits.ConnectionsPerCustomer,
			HandshakesPerIP: cfg.Limits.HandshakesPerIP,
		},
	}, n.node, keyring, apiKeys, log)

	n.cluster = admin.NewCluster(n.bus, cfg.Stream, cfg.Node, n.report, log)
	n.admin = admin.New(admin.Config{
		Token: cfg.Admin.Token.Reveal(), Pprof: cfg.Admin.Pprof, Ready: n.ready,
		Cluster: n.cluster, Ops: web.Ops(), Log: log.With("component", "admin"),
	})
	return n, nil
}

// ready says whether a load balancer may send clients here.
func (n *node) ready() error {
	if n.draining.Load() {
		return errors.New("draining")
	}
	return n.node.Ready()
}

// run runs the node until ctx ends, then drains it. The parts end in the reverse
// of the order in which they depend on each other.
func (n *node) run(ctx context.Context, public, operators net.Listener) error {
	defer func() { _ = n.bus.Close() }() // nothing is in flight any more
	if err := n.check(ctx); err != nil {
		return errors.Join(err, public.Close(), operators.Close())
	}
	n.adminURL = adminURL(operators.Addr())
	// What serves clients outlives ctx, until they are drained.
	serving, stopServing := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopServing(nil)
	failed := make(chan error, 1)
	go func() {
		failed <- runAll(serving,
			n.node.Run, n.cluster.Run, n.checkLater, n.probeUpstream, n.watchMemory,
			func(ctx context.Context) error { return n.admin.Serve(ctx, operators) },
			func(ctx context.Context) error { return n.public.Serve(ctx, public) })
	}()
	leading, stopLeading := context.WithCancelCause(serving)
	campaign := make(chan struct{})
	go func() {
		defer close(campaign)
		_ = n.ingest.Run(leading) // ends only because it is told to
	}()
	n.log.Info("started", "node", n.cfg.Node, "listen", public.Addr().String(), "admin", operators.Addr().String(), "version", version())

	isolated := make(chan error, 1)
	go func() { isolated <- n.watchIsolation(serving) }()
	var cause error
	select {
	case err := <-failed:
		stopLeading(err)
		<-campaign
		return err
	case cause = <-isolated:
		isolated <- nil // for the wait below
		n.log.Error("draining", "reason", cause)
	case <-ctx.Done():
	}
	n.draining.Store(true)
	n.log.Info("draining", "delay", n.cfg.Drain.Delay, "duration", n.cfg.Drain.Duration)
	wait(serving, n.cfg.Drain.Delay)
	stopLeading(errStopped)
	<-campaign // the upstream is closed and the lease released before clients go
	n.public.Drain(serving, n.cfg.Drain.Duration)
	stopServing(errStopped)
	<-isolated
	if err := <-failed; err != nil && !errors.Is(err, errStopped) {
		return err
	}
	n.log.Info("stopped")
	return cause
}

// errStopped is the cause of an orderly end.
var errStopped = errors.New("stopped")

// check looks at Redis once. Being unreachable is no reason not to start; being
// set up so that events would get lost is.
func (n *node) check(ctx context.Context) error {
	if n.embedded {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := n.bus.Check(ctx)
	if err != nil && !errors.Is(err, redisbus.ErrEvicting) {
		n.unchecked = true
		n.log.Warn("redis is not reachable yet; this node starts anyway and is ready once it is", "err", err)
		return nil
	}
	return err
}

// checkLater looks at a Redis that was not reachable at the start, until it is.
func (n *node) checkLater(ctx context.Context) error {
	for n.unchecked && ctx.Err() == nil {
		err := n.bus.Check(ctx)
		if errors.Is(err, redisbus.ErrEvicting) {
			return err
		}
		if err == nil {
			break
		}
		wait(ctx, startTimeout)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// scopeKey derives the key of scope_id, which all nodes must share, from the
// secret they share.
func scopeKey(secret configs.Secret) []byte {
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write([]byte("scope_id"))
	return mac.Sum(nil)
}

func keyringOf(a configs.Auth) (*auth.Keyring, error) {
	signing, err := auth.SecretKey("", []byte(a.TokenSecret.Reveal()))
	if err != nil {
		return nil, configs.Problems{{Where: "auth.token_secret", What: err.Error()}}
	}
	var verify []auth.Key
	var problems configs.Problems
	for i, k := range a.VerifyKeys {
		var key auth.Key
		if k.Alg == "EdDSA" {
			key, err = auth.PublicKey(k.KID, k.Key.Reveal())
		} else {
			key, err = auth.SecretKey(k.KID, []byte(k.Key.Reveal()))
		}
		if err != nil {
			problems = append(problems, configs.Problem{Where: fmt.Sprintf("auth.verify_keys[%d]", i), What: err.Error()})
			continue
		}
		verify = append(verify, key)
	}
	if problems != nil {
		return nil, problems
	}
	ring, err := auth.NewKeyring(signing, verify...)
	if err != nil {
		return nil, configs.Problems{{Where: "auth.verify_keys", What: err.Error()}}
	}
	return ring, nil
}

func apiKeysOf(a configs.Auth) (auth.APIKeys, error) {
	var keys []auth.APIKey
	if a.APIKey != "" {
		keys = append(keys, auth.APIKey{Name: "api_key", Hash: auth.HashKey(a.APIKey.Reveal()), Permissions: auth.AllPermissions})
	}
	var problems configs.Problems
	for i, k := range a.APIKeys {
		hash, err := auth.HashKey(k.Key.Reveal()), error(nil)
		if k.Hash != "" {
			hash, err = auth.ParseHash(k.Hash)
		}
		permissions, err2 := auth.ParsePermissions(k.Permissions)
		if err := errors.Join(err, err2); err != nil {
			problems = append(problems, configs.Problem{Where: fmt.Sprintf("auth.api_keys[%d]", i), What: err.Error()})
			continue
		}
		keys = append(keys, auth.APIKey{Name: k.Name, Hash: hash, Permissions: permissions, CustomerRequired: k.CustomerRequired})
	}
	if problems != nil {
		return auth.APIKeys{}, problems
	}
	all, err := auth.NewAPIKeys(keys...)
	if err != nil {
		return all, configs.Problems{{Where: "auth.api_keys", What: err.Error()}}
	}
	return all, nil
}
