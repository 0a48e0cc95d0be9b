package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"pepay-gateway/gateway/bench"
)

func benchCommand(env environment) *cobra.Command {
	cfg := bench.Config{Version: version(), Progress: env.stderr}
	var transport string
	cmd := &cobra.Command{
		Use:   "bench [workload …]",
		Short: "Measure a gateway, and what it costs on this machine",
		Long: `Plays thousands of browsers, and through a devnet the upstream, and reports what that took:
processor time and memory of the gateway and its Redis, latencies, and every event that a
client lost, got twice, out of order or without being entitled to it. A bare server that does
nothing but write is measured in the same run, to compare with: the floor. In selective there is
a second one, which keeps each event in a Redis before it writes it (with --self).

With --self it starts a Redis, a devnet and a gateway of its own. Else it drives the one named by
--url, whose upstream must be the devnet named by --devnet, and whose limits must let all
connections in (limits.connections_per_ip and limits.handshakes_per_ip are for shoppers).

` + bench.Describe() + `
Without names all are run but soak and the curves. It prints tables and one line of JSON, and progress
to the standard error. It ends with 1 when an event was lost, repeated, out of order or another's:
the figures do not count then. Connections are bounded by the files a process may open (ulimit -n).`,
		Example: "  pepay-gateway bench --self --quick\n  pepay-gateway bench --self growth --runs 3\n  pepay-gateway bench --self idle --connections 18000\n" +
			"  pepay-gateway bench --url http://127.0.0.1:8080 --admin http://127.0.0.1:9090 --devnet http://127.0.0.1:3000 --api-key \"$KEY\" selective",
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("bench: %w", err)
			}
			if !env.has("GOGC") {
				debug.SetGCPercent(bench.GCPercent)
			}
			cfg.Program, cfg.Workloads, cfg.Transport = program, args, bench.Transport(transport)
			err = bench.Run(cmd.Context(), cfg, env.stdout)
			if errors.Is(err, bench.ErrConfig) {
				return fmt.Errorf("%w: %w (pepay-gateway bench --help tells more)", errUsage, err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&cfg.Self, "self", false, "start a Redis, a devnet and a gateway to measure, each a process of its own")
	f.BoolVar(&cfg.Nchan, "nchan", false, "with --self: measure nginx with Nchan too, where it can do the same")
	f.StringVar(&cfg.Profiles, "profiles", "", "with --self: folder for processor and heap profiles of the gateway")
	f.StringVar(&cfg.URL, "url", "", "the gateway to drive, such as http://127.0.0.1:8080")
	f.StringVar(&cfg.Devnet, "devnet", "", "the devnet that is its upstream, such as http://127.0.0.1:3000")
	f.StringVar(&cfg.Admin, "admin", "", "its admin listener, to read processor time and memory (RSS) from when --pid is not given")
	f.StringVar(&cfg.APIKey, "api-key", "", "an API key of it that may mint")
	f.IntVar(&cfg.PID, "pid", 0, "its process, to read processor time and memory (PSS) from")
	f.IntVar(&cfg.RedisPID, "redis-pid", 0, "its Redis's process, to read processor time from")
	f.BoolVar(&cfg.Remote, "remote", false, "put load on hosts other than this one, which are yours")
	f.StringVar(&transport, "transport", "", "ws or sse; default: as each workload says")
	f.IntVar(&cfg.Connections, "connections", 0, "how many; default: as each workload says")
	f.Float64Var(&cfg.Events, "events", 0, "events per second; default: as each workload says")
	f.Float64Var(&cfg.Seconds, "seconds", 0, "length of each measurement; default: as each workload says")
	f.BoolVar(&cfg.Quick, "quick", false, "small sizes, to see that everything works; the figures mean little")
	f.IntVar(&cfg.Runs, "runs", 1, "measure so many times, and print medians and ranges")
	cmd.AddCommand(floorCommand())
	return cmd
}

// floorCommand is the process that bench compares with.
func floorCommand() *cobra.Command {
	var addr, store string
	cmd := &cobra.Command{
		Use:    "floor",
		Short:  "The bare server that bench compares with",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("%w: %s", errUsage, strings.TrimPrefix(err.Error(), "listen "))
			}
			return bench.ServeFloor(cmd.Context(), ln, store)
		},
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:0", "address")
	cmd.Flags().StringVar(&store, "redis", "", "address of a Redis to keep each event in before it is sent on")
	return cmd
}
