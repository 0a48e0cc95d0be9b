// Command pepay-gateway is a realtime gateway between Pepay and browsers. It
// holds one upstream stream however many nodes run, keeps it in Redis, and
// serves each shopper a WebSocket or SSE stream of just their own orders.
//
// This package holds the commands and puts the parts together; it is the only
// one that knows all of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"pepay-gateway/configs"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2 // bad flags or configuration: nothing was started
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

// errUsage marks what the caller of the command has to mend.
var errUsage = errors.New("usage")

func exitCode(err error, stderr io.Writer) int {
	var problems configs.Problems
	switch {
	case err == nil:
		return 0
	case errors.As(err, &problems):
		fmt.Fprintf(stderr, "The configuration has %d problem(s):\n%v\n", len(problems), problems)
		return exitUsage
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "pepay-gateway:", err)
	return exitFailure
}

// run is the whole program: it builds the commands, runs the one that args name,
// and returns when it has ended, or when ctx has and everything is stopped.
// environ is as of os.Environ.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	env := environment{vars: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "pepay-gateway",
		Short: "Realtime order updates from Pepay to browsers",
		Long: `pepay-gateway sits between Pepay and your storefront. It holds one commerce stream
upstream, keeps it in Redis, and serves every shopper a WebSocket or SSE stream of
just their own orders, with replay.

Try it with nothing installed:      pepay-gateway dev
Run it for real:                    pepay-gateway serve -c gateway.yaml`,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(usage)
	root.AddCommand(devCommand(env), serveCommand(env), devnetCommand(env), tokenCommand(env), configCommand(env), benchCommand(env), versionCommand(env))
	usageErrors(root)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// usage makes err one of the caller's.
func usage(c *cobra.Command, err error) error {
	return fmt.Errorf("%w: %w (%s --help tells more)", errUsage, err, c.CommandPath())
}

// usageErrors makes what is wrong with the arguments of c, and of its commands, the
// caller's error. A command that only groups others must be told which.
func usageErrors(c *cobra.Command) {
	if c.RunE == nil {
		c.Args = cobra.NoArgs
		c.RunE = func(c *cobra.Command, _ []string) error { return usage(c, errors.New("a command is missing")) }
	}
	takes := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if takes == nil {
			return nil
		}
		if err := takes(c, args); err != nil {
			return usage(c, err)
		}
		return nil
	}
	for _, each := range c.Commands() {
		usageErrors(each)
	}
}

// An environment is what a command may use of the world.
type environment struct {
	vars           []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// has says whether a variable is set.
func (e environment) has(name string) bool {
	return slices.ContainsFunc(e.vars, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}

// logger writes text for people and JSON for machines.
func (e environment) logger(level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // validated with the configuration; else info
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: readable}
	if f, ok := e.stderr.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(e.stderr, opts))
		}
	}
	return slog.New(slog.NewJSONHandler(e.stderr, opts))
}

// readable writes durations as people do: JSON has them in nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// runAll runs the services together. The first to return stops the others;
// runAll then waits for all of them and returns why it stopped.
func runAll(ctx context.Context, services ...func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, serve := range services {
		wg.Go(func() { stop(serve(ctx)) })
	}
	wg.Wait()
	return context.Cause(ctx)
}

func versionCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(env.stdout, "pepay-gateway", version())
			return err
		},
	}
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") && len(s.Value) >= 12 {
			v = s.Value[:12]
		}
	}
	if v == "" || v == "(devel)" {
		return "dev"
	}
	return v
}
