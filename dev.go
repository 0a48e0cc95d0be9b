package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"pepay-gateway/configs"
	"pepay-gateway/gateway/devnet"
	"pepay-gateway/redisbus"
)

// devKey is the gateway API key of dev. It opens nothing but made-up orders.
const devKey = "gwk_dev_local_only_0000000000"

// Drains of dev are short: nobody waits behind a load balancer.
const (
	devDrainDelay    = 50 * time.Millisecond
	devDrainDuration = 500 * time.Millisecond
)

type devFlags struct {
	listen, adminListen string
	rate                float64
	seed                uint64
}

func devCommand(env environment) *cobra.Command {
	var flags devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try everything on this machine, with nothing to install or configure",
		Long: `Starts a local Pepay (devnet) whose shop plays by itself, a Redis inside this process, one
gateway node, and a demo storefront. Nothing is kept: stop it, and it is gone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDev(cmd.Context(), env, flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8080", "address of the storefront and the gateway")
	f.StringVar(&flags.adminListen, "admin-listen", "127.0.0.1:9090", "address of health, metrics and the ops page")
	f.Float64Var(&flags.rate, "rate", 0.2, "orders per second that the shop makes by itself; 0 for none")
	f.Uint64Var(&flags.seed, "seed", 1, "seed of the shop, so that runs repeat")
	return cmd
}

// A dev is the whole product on one machine.
type dev struct {
	cfg      configs.Config
	log      *slog.Logger
	pepay    *devnet.Server
	pepayURL string
	public   string // as bound
	admin    string

	mu      sync.Mutex         // guards the fields below
	restart context.CancelFunc // ends the gateway half, which then starts again
	current *node
	stalled *time.Timer // ends the stall that is being played
}

func runDev(ctx context.Context, env environment, flags devFlags) error {
	log := env.logger("warn")
	redisbus.LogTo(log)
	redis, err := redisbus.StartEmbedded()
	if err != nil {
		return err
	}
	pepayLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	public, operators, err := listenDev(flags)
	if err != nil {
		_ = pepayLn.Close()
		return err
	}
	d := &dev{
		log: log, pepayURL: "http://" + pepayLn.Addr().String(),
		public: public.Addr().String(), admin: operators.Addr().String(),
		pepay: devnet.New(devnet.Config{}, log.With("component", "devnet")),
	}
	d.cfg = devConfig(d, redis.URL())
	if err := d.pepay.SetShop(devnet.Shop{OrdersPerSecond: flags.rate, Seed: flags.seed}); err != nil {
		_ = public.Close()
		_ = operators.Close()
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	d.printURLs(env.stdout)

	// The store and the devnet end after the gateway, which drains into them.
	below, stopBelow := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopBelow(nil)
	ended := make(chan error, 1)
	go func() {
		ended <- runAll(below, redis.Run, func(ctx context.Context) error { return d.pepay.Serve(ctx, pepayLn) })
	}()
	err = d.gatewayLoop(ctx, public, operators)
	stopBelow(errStopped)
	<-ended
	return err
}

func listenDev(flags devFlags) (public, operators net.Listener, err error) {
	if public, err = net.Listen("tcp", flags.listen); err != nil {
		return nil, nil, fmt.Errorf("%w: %w; choose another address with --listen", errUsage, err)
	}
	if operators, err = net.Listen("tcp", flags.adminListen); err != nil {
		_ = public.Close()
		return nil, nil, fmt.Errorf("%w: %w; choose another address with --admin-listen", errUsage, err)
	}
	return public, operators, nil
}

func devConfig(d *dev, redisURL string) configs.Config {
	cfg := configs.Default()
	cfg.Listen, cfg.PublicURL, cfg.Admin.Listen = d.public, "http://"+d.public, d.admin
	cfg.Upstream.APIURL = d.pepayURL
	cfg.Upstream.WSURL = "ws" + d.pepayURL[len("http"):]
	cfg.Upstream.APIKey = devnet.DefaultAPIKey
	cfg.Upstream.Environment = "devnet"
	cfg.Redis.URL = configs.RedisURL(redisURL)
	cfg.Auth.APIKey = devKey
	cfg.Auth.TokenSecret = configs.Secret(rand.Text() + rand.Text())
	cfg.CORS.Origins = []string{cfg.PublicURL}
	if _, port, err := net.SplitHostPort(d.public); err == nil {
		cfg.CORS.Origins = append(cfg.CORS.Origins, "http://localhost:"+port)
	}
	cfg.Drain = configs.Drain{Delay: devDrainDelay, Duration: devDrainDuration}
	cfg.Limits = configs.Limits{Connections: 10_000} // everyone here is 127.0.0.1
	return cfg
}

// gatewayLoop runs the gateway half, and starts it again when the demo asks.
func (d *dev) gatewayLoop(ctx context.Context, public, operators net.Listener) error {
	for {
		n, err := newNode(d.cfg, newDemo(d), d.log)
		if err != nil {
			return err
		}
		n.embedded = true
		life, end := context.WithCancel(ctx)
		d.mu.Lock()
		d.restart, d.current = end, n
		d.mu.Unlock()
		err = n.run(life, public, operators)
		end()
		if err != nil || ctx.Err() != nil {
			return err
		}
		if public, err = relisten(d.public); err != nil {
			return err
		}
		if operators, err = relisten(d.admin); err != nil {
			_ = public.Close()
			return err
		}
	}
}

// relisten binds an address that this process has just left.
func relisten(addr string) (net.Listener, error) {
	var err error
	for range 50 {
		var ln net.Listener
		if ln, err = net.Listen("tcp", addr); err == nil {
			return ln, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, err
}

func (d *dev) printURLs(w io.Writer) {
	base := "http://" + d.public
	fmt.Fprintf(w, `
  Storefront   %[1]s/
  Ops          http://%[2]s/ops/
  Local Pepay  %[3]s   (API key %[4]s)

  Mint a token         curl -s -X POST %[1]s/api/v1/ws/token -H 'x-api-key: %[5]s' -d '{"customer_id":"cust_1"}'
  Follow a customer    curl -sN "$(curl -s -X POST %[1]s/api/v1/ws/token -H 'x-api-key: %[5]s' -d '{"customer_id":"cust_1"}' | grep -o 'http[^"]*/sse/[^"]*')"
  Follow everything    curl -sN %[1]s/sse/commerce/events -H 'x-api-key: %[5]s'
  Place an order       curl -s -X POST %[1]s/demo/orders -d '{"customer_id":"cust_1"}'
  List events          curl -s '%[1]s/api/v1/events?limit=3' -H 'x-api-key: %[5]s'
  Cluster numbers      curl -s http://%[2]s/api/v1/stats
  Metrics              curl -s http://%[2]s/metrics

  Everything is made up and in memory. Stop with Ctrl-C.

`, base, d.admin, d.pepayURL, devnet.DefaultAPIKey, devKey)
}

func devnetCommand(env environment) *cobra.Command {
	var addr string
	var cfg devnet.Config
	var shop devnet.Shop
	cmd := &cobra.Command{
		Use:   "devnet",
		Short: "Run only the local Pepay, for a gateway started with serve",
		Long: `Runs a local stand-in for Pepay's commerce API: tokens, the stream, events, orders and the
devnet simulator, with fault switches under /_devnet/. Point upstream.api_url at it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := env.logger("info")
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			s := devnet.New(cfg, log)
			if err := s.SetShop(shop); err != nil {
				_ = ln.Close()
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			fmt.Fprintf(env.stdout, "devnet on http://%s with API key %s\n", ln.Addr(), devnet.DefaultAPIKey)
			return s.Serve(cmd.Context(), ln)
		},
	}
	f := cmd.Flags()
	f.StringVar(&addr, "listen", "127.0.0.1:3000", "address")
	f.IntVar(&cfg.Retention, "retention", 0, "events a stream can replay (default 100,000)")
	f.DurationVar(&cfg.InvoiceTTL, "invoice-ttl", 30*time.Minute, "unpaid invoices expire after it")
	f.DurationVar(&cfg.ClockOffset, "clock-offset", 0, "how far its clock is ahead of this machine's; negative: behind")
	f.Float64Var(&shop.OrdersPerSecond, "rate", 0, "orders per second that the shop makes by itself")
	f.Uint64Var(&shop.Seed, "seed", 1, "seed of the shop")
	return cmd
}
