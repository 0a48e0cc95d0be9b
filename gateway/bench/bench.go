// Package bench measures a gateway: it plays thousands of browsers and, through
// a devnet, the upstream; it reads what the server's processes used; and it
// compares every client's account with what was published. Beside the gateway
// it measures, in the same run, a bare server that does nothing but write: the
// floor, which nothing can be below.
//
// It knows servers by their sockets and /proc alone, so it can drive a gateway
// that runs already as well as one that it starts. It needs Linux.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// ErrUnclean says that a client lost events, or got what it should not have:
// the figures of such a run do not count.
var ErrUnclean = errors.New("bench: events were lost, repeated, out of order or another's, or connections were cut")

// ErrConfig marks a Config that cannot be run.
var ErrConfig = errors.New("bench")

// Config says what to measure. Sizes that are 0 are the workload's own.
type Config struct {
	Workloads   []string // by name; when empty all but soak and the curves
	Transport   Transport
	Connections int
	Events      float64 // per second
	Seconds     float64 // of each measurement
	Quick       bool    // small sizes, to see that it works
	Runs        int     // of everything; the table has medians; default 1

	// Either start everything here, as processes of Program …
	Self    bool
	Program string // this program's file
	Nchan   bool   // beside it, nginx with Nchan and a Redis of its own

	// … or drive a gateway that runs, through its devnet.
	URL      string
	Devnet   string
	Admin    string // base URL; for processor time and memory when PID is 0
	APIKey   string
	PID      int
	RedisPID int
	Remote   bool // other hosts than this one may be put under load

	Version  string    // of the program, for the report
	Profiles string    // folder for processor and heap profiles of a gateway started here
	Progress io.Writer // lines for people, while it runs
}

func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	if len(c.Workloads) == 0 {
		for _, w := range workloads {
			if !w.long {
				c.Workloads = append(c.Workloads, w.name)
			}
		}
	}
	for _, name := range c.Workloads {
		if !slices.Contains(Names(), name) {
			return bad("there is no workload %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	if slices.Contains(c.Workloads, Growth) {
		for _, w := range curves {
			c.Workloads = append(c.Workloads, w.name)
		}
	}
	c.Runs = max(c.Runs, 1)
	switch {
	case c.Transport != "" && c.Transport != WS && c.Transport != SSE:
		return bad("transport %q is neither ws nor sse", c.Transport)
	case c.Connections < 0 || c.Events < 0 || c.Seconds < 0:
		return bad("sizes cannot be negative")
	case c.Self == (c.URL != ""):
		return bad("either start a gateway with --self or name one with --url")
	case c.Self:
		return c.checkFiles(openFiles())
	case slices.ContainsFunc(curves, func(w workload) bool { return slices.Contains(c.Workloads, w.name) }):
		return bad("curves go with --self: they start and stop nodes")
	case c.Nchan || c.Profiles != "":
		return bad("--nchan and --profiles go with --self")
	case c.Devnet == "" || c.APIKey == "":
		return bad("--url needs --devnet, the gateway's upstream, and --api-key")
	case c.PID == 0 && c.Admin == "":
		return bad("--url needs --pid or --admin, to see what the gateway uses")
	}
	if c.Admin != "" {
		if _, err := hostOf(c.Admin); err != nil {
			return bad("%v", err)
		}
	}
	for _, u := range []string{c.URL, c.Devnet} {
		host, err := hostOf(u)
		if err != nil {
			return bad("%v", err)
		}
		if !onLoopback(host) && !c.Remote {
			return bad("%s is not this machine; say --remote if it may be put under load", u)
		}
	}
	return c.checkFiles(openFiles())
}

// ownFiles are what this process has open besides connections, at most.
const ownFiles = 200

// GCPercent keeps the collectors of the clients and of the devnet quiet: with
// little that lives they would run many times a second, beside what is measured.
const GCPercent = 400

// room returns how many connections this process, and a server like it, may have
// with so many open files. A gateway keeps a tenth of them; 0 is no limit.
func room(files int) int {
	if files == 0 {
		return maxEvents
	}
	return max(files-max(files/10, ownFiles), 0)
}

// checkFiles says whether there are enough files for what is to be measured. A
// curve leaves points out.
func (c *Config) checkFiles(files int) error {
	for _, w := range workloads {
		if !slices.Contains(c.Workloads, w.name) || w.points != nil {
			continue
		}
		if n := w.sizes(*c)[0].connections; n > room(files) {
			return fmt.Errorf("%w: %s has %d connections, and ulimit -n %d is enough for %d; raise it, or say --connections",
				ErrConfig, w.name, n, files, room(files))
		}
	}
	return nil
}

// hostOf returns host:port of an http URL.
func hostOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return "", fmt.Errorf("%q is no http:// URL", raw)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return u.Host, nil
}

// Run measures, and writes a table and one line of JSON to out, also when
// something fails, of what was measured until then. It returns ErrUnclean when a
// run does not count.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	if err := cfg.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pepay-gateway-bench")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is in the system's folder for such
	l := &lab{cfg: cfg, dir: dir, began: time.Now()}
	report := Report{
		Time: l.began.UTC().Truncate(time.Second), Version: cfg.Version,
		CPUs: runtime.NumCPU(), Go: runtime.Version(), Kernel: kernel(), Load: loadAverage(), Quick: cfg.Quick,
	}
	if !cfg.Self {
		if err := l.try(ctx); err != nil {
			return err
		}
	}
	report.Results, err = l.measureAll(ctx)
	if len(report.Results) > 0 {
		err = errors.Join(err, report.write(out))
	}
	if err == nil && !report.clean() {
		return ErrUnclean
	}
	return err
}

// measureAll returns what was measured until something failed.
func (l *lab) measureAll(ctx context.Context) (all []Result, err error) {
	for run := range l.cfg.Runs {
		for _, w := range workloads {
			if !slices.Contains(l.cfg.Workloads, w.name) {
				continue
			}
			results, err := l.measure(ctx, w, run)
			all = append(all, results...)
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// kernel is the system's release, "" when it does not say.
func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease") // elsewhere there is none
	return strings.TrimSpace(string(b))
}

func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg") // elsewhere there is none
	return strings.Join(strings.Fields(string(b))[:min(3, len(strings.Fields(string(b))))], " ")
}
