package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// selfKey is the API key of a gateway that is started here.
const selfKey = "gwk_bench_local_only_0000000000"

// A lab has what is put under load: it starts it, or knows where it is.
type lab struct {
	cfg   Config
	dir   string
	began time.Time
}

// say tells people how far it is.
func (l *lab) say(format string, args ...any) {
	if l.cfg.Progress != nil {
		fmt.Fprintf(l.cfg.Progress, "%6.1fs  %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// try makes sure that a gateway which the user named can be measured, before
// anything is: that its meters can be read, and that an event of the devnet comes
// to a client.
func (l *lab) try(ctx context.Context) error {
	s := newScript(time.Now())
	to, err := l.running(s, false)
	if err != nil {
		return err
	}
	if _, err := to.server().read(ctx); err != nil {
		return fmt.Errorf("what the gateway uses (--pid, or --admin): %w", err)
	}
	if store := to.store(); store != nil {
		if _, err := store.read(ctx); err != nil {
			return fmt.Errorf("what its Redis uses (--redis-pid): %w", err)
		}
	}
	f, err := newFleet(to, s, func(int64) int { return 0 })
	if err != nil {
		return err
	}
	defer f.close()
	c := f.add(1, WS, everybody)
	if err = f.prepare(ctx, c); err == nil {
		err = f.connect(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("the gateway (--url %s): %w", l.cfg.URL, err)
	}
	p := newPublisher(f, l.say)
	defer p.close()
	if err := p.burst(1); err != nil {
		return fmt.Errorf("the upstream (--devnet %s): %w", l.cfg.Devnet, err)
	}
	err = f.caughtUp(ctx, c...)
	if failed := p.failed.Load(); failed != nil {
		return fmt.Errorf("the upstream (--devnet %s): %w", l.cfg.Devnet, *failed)
	}
	if errors.Is(err, errStuck) {
		return fmt.Errorf("bench: what --devnet %s sends does not come to --url %s: is it the upstream of this gateway?", l.cfg.Devnet, l.cfg.URL)
	}
	return err
}

// targets are what a workload is measured on.
func (l *lab) targets(w workload) []string {
	kinds := []string{targetGateway}
	if w.bare {
		kinds = []string{targetBare, targetGateway}
	}
	if w.kept && l.cfg.Self { // else there may be no Redis to start
		kinds = slices.Insert(kinds, 1, targetKept)
	}
	if l.cfg.Nchan && w.nchan {
		kinds = append(kinds, targetNchan)
	}
	return kinds
}

// measure runs w once against each of its targets, over each transport, at each
// of its points. With an error it returns what was measured until then.
func (l *lab) measure(ctx context.Context, w workload, run int) (results []Result, err error) {
	for _, transport := range w.over(l.cfg.Transport) {
		for _, kind := range l.targets(w) {
			for _, s := range l.sizes(w) {
				r, err := l.trial(ctx, w, s, kind, transport, run)
				if err != nil {
					return results, fmt.Errorf("%s, %s, %s: %w", pointName(w.name, s.point), transport, kind, err)
				}
				results = append(results, r)
			}
		}
	}
	return results, nil
}

// sizes returns the sizes of w but for those points of a curve for which there
// are too few files.
func (l *lab) sizes(w workload) []sizes {
	files := openFiles()
	return slices.DeleteFunc(w.sizes(l.cfg), func(s sizes) bool {
		tooMany := s.connections > room(files)
		if tooMany {
			l.say("%s is left out: ulimit -n %d is enough for %d connections", pointName(w.name, s.point), files, room(files))
		}
		return tooMany
	})
}

func (l *lab) trial(ctx context.Context, w workload, s sizes, kind string, transport Transport, run int) (r Result, err error) {
	t := &trial{
		lab: l, sizes: s, kind: kind, transport: transport, script: newScript(time.Now()),
		result: Result{
			Run: run + 1, Workload: w.name, Point: s.point, Target: kind, Transport: transport,
			Connections: s.connections, EventsPerSecond: s.rate, Seconds: s.d.Seconds(), Values: map[string]float64{},
		},
	}
	t.script.past, t.script.apart = int64(s.entries), s.span/time.Duration(max(s.entries, 1))
	l.say("%s over %s on %s: %d connections", t.result.named(), transport, kind, s.connections)
	var stop func()
	if t.target, stop, err = l.bring(ctx, kind, t.script, w.shared, max(s.nodes, 1)); err != nil {
		return r, err
	}
	defer stop()
	if t.fleet, err = newFleet(t.target, t.script, w.keys(s)); err != nil {
		return r, err
	}
	defer t.fleet.close()
	t.publisher = newPublisher(t.fleet, l.say)
	defer t.publisher.close()
	if err := w.run(t, ctx); err != nil {
		return r, err
	}
	t.conclude()
	l.say("%s over %s on %s: %s", t.result.named(), transport, kind, t.result.summary())
	return t.result, nil
}

// bring returns a target, and what ends it. A gateway that is started has so
// many nodes.
func (l *lab) bring(ctx context.Context, kind string, s *script, shared bool, nodes int) (target, func(), error) {
	var started []*process
	stop := func() {
		for i := len(started) - 1; i >= 0; i-- {
			started[i].stop()
		}
	}
	run := func(name, program string, args, env []string) (*process, error) {
		p, err := start(l.dir, name, program, args, env)
		if err == nil {
			started = append(started, p)
		}
		return p, err
	}
	var t target
	var err error
	switch {
	case kind == targetBare:
		t, err = l.bringFloor(ctx, run, nil, "")
	case kind == targetKept:
		t, err = l.bringKeptFloor(ctx, run)
	case kind == targetNchan:
		t, err = l.bringNchan(ctx, run)
	case l.cfg.Self:
		t, err = l.bringGateway(ctx, run, s, shared, nodes)
	default:
		t, err = l.running(s, shared)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return t, stop, nil
}

// running is the gateway that the user named.
func (l *lab) running(s *script, shared bool) (target, error) {
	streams, err1 := hostOf(l.cfg.URL)
	devnet, err2 := hostOf(l.cfg.Devnet)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	var server, store meter = metricsURL(strings.TrimSuffix(l.cfg.Admin, "/") + "/metrics"), nil
	if l.cfg.PID != 0 {
		server = pids{l.cfg.PID}
	}
	if l.cfg.RedisPID != 0 {
		store = pids{l.cfg.RedisPID}
	}
	return newGatewayTarget([]string{streams}, devnet, l.cfg.APIKey, s, shared, server, store), nil
}

type runner func(name, program string, args, env []string) (*process, error)

// bringFloor starts a floor, which keeps events in the Redis at redisAddr if there
// is one.
func (l *lab) bringFloor(ctx context.Context, run runner, redis meter, redisAddr string) (target, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	program, args := l.cfg.Program, []string{"bench", "floor", "--listen", addr, "--redis", redisAddr}
	if program == "" {
		return nil, errors.New("bench: no program to start the floor with")
	}
	p, err := run("floor", program, args, nil)
	if err != nil {
		return nil, err
	}
	return &floorTarget{address: addr, process: pids{p.pid()}, redis: redis}, p.ready(ctx, accepting(addr))
}

func (l *lab) bringKeptFloor(ctx context.Context, run runner) (target, error) {
	redis, addr, err := l.bringRedis(ctx, run)
	if err != nil {
		return nil, err
	}
	return l.bringFloor(ctx, run, pids{redis.pid()}, addr)
}

// bringGateway starts a Redis, a devnet and a gateway, each node in a process of
// its own and with no limits on clients: they all come from here.
func (l *lab) bringGateway(ctx context.Context, run runner, s *script, shared bool, nodes int) (target, error) {
	redis, redisAddr, err := l.bringRedis(ctx, run)
	if err != nil {
		return nil, err
	}
	devnet, err := freeAddr()
	if err != nil {
		return nil, err
	}
	var quiet []string
	if os.Getenv("GOGC") == "" {
		quiet = []string{fmt.Sprint("GOGC=", GCPercent)}
	}
	pepay, err := run("devnet", l.cfg.Program, []string{"devnet", "--listen", devnet}, quiet)
	if err != nil {
		return nil, err
	}
	if err := pepay.ready(ctx, func() bool { return answers(ctx, "http://"+devnet+"/_devnet/state") }); err != nil {
		return nil, err
	}
	t := newGatewayTarget(nil, devnet, selfKey, s, shared, nil, pids{redis.pid()})
	t.redisAddr = redisAddr
	for i := range nodes {
		n, err := l.newNode(run, fmt.Sprintf("gateway-%d", i+1), devnet, redisAddr)
		if err != nil {
			return nil, err
		}
		if err := n.begin(); err != nil {
			return nil, err
		}
		// The first is to lead, so the others come after it.
		if err := n.ready(ctx, awaitLive(ctx, n.admin)); err != nil {
			return nil, err
		}
		t.nodes = append(t.nodes, n)
		// With more than one, the last shows what a node costs that has no clients.
		if i == 0 || i < nodes-1 {
			t.streams = append(t.streams, n.public)
		}
	}
	return t, nil
}

// newNode returns a node that has not been started.
func (l *lab) newNode(run runner, name, devnet, redis string) (*gatewayNode, error) {
	public, err1 := freeAddr()
	admin, err2 := freeAddr()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	env := []string{
		"GATEWAY_LISTEN=" + public, "GATEWAY_PUBLIC_URL=http://" + public, "GATEWAY_ADMIN_LISTEN=" + admin,
		"GATEWAY_NODE=" + name, "GATEWAY_REDIS_URL=redis://" + redis + "/0",
		"GATEWAY_UPSTREAM_API_URL=http://" + devnet, "GATEWAY_UPSTREAM_API_KEY=ck_devnet_demo",
		"GATEWAY_AUTH_API_KEY=" + selfKey, "GATEWAY_AUTH_TOKEN_SECRET=bench-0123456789abcdef0123456789abcdef",
		"GATEWAY_LIMITS_CONNECTIONS=0", "GATEWAY_LIMITS_CONNECTIONS_PER_IP=0", "GATEWAY_LIMITS_CONNECTIONS_PER_TOKEN=0",
		"GATEWAY_LIMITS_CONNECTIONS_PER_CUSTOMER=0", "GATEWAY_LIMITS_HANDSHAKES_PER_IP=0",
		"GATEWAY_DRAIN_DELAY=0s", "GATEWAY_DRAIN_DURATION=0s", fmt.Sprintf("GATEWAY_ADMIN_PPROF=%t", l.cfg.Profiles != ""),
	}
	return &gatewayNode{public: public, admin: admin, start: func() (*process, error) {
		return run(name, l.cfg.Program, []string{"serve"}, env)
	}}, nil
}

func (l *lab) bringRedis(ctx context.Context, run runner) (*process, string, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", fmt.Errorf("bench: %w: a real Redis is part of what is measured; install it (Debian: apt-get install redis-server)", err)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp(l.dir, "redis")
	if err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	_, port, _ := net.SplitHostPort(addr)
	p, err := run("redis-"+filepath.Base(dir), program,
		[]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"}, nil)
	if err != nil {
		return nil, "", err
	}
	return p, addr, p.ready(ctx, accepting(addr))
}

// accepting says whether somebody listens on addr.
func accepting(addr string) func() bool {
	return func() bool {
		conn, err := net.DialTimeout("tcp4", addr, time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close() // only a question
		return true
	}
}
