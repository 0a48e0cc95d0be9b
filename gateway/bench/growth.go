package bench

import (
	"context"
	"errors"
	"time"
)

// gateway is what a curve is measured on.
func (t *trial) gateway() *gatewayTarget {
	g, _ := t.target.(*gatewayTarget) // Config.check has seen to it
	return g
}

// stride spreads what is not in turn: it is prime.
const stride = 1_000_003

// orderKeys fills the log with events of all orders in turn. After that every
// second event is for a connection, and the rest for orders that nobody follows:
// what is delivered does not depend on how many orders there are.
func orderKeys(s sizes) func(n int64) int {
	every := int64(s.orders / s.connections)
	return func(n int64) int {
		if n--; n < int64(s.entries) {
			return int(n % int64(s.orders))
		}
		n -= int64(s.entries)
		followed := n / 2 % int64(s.connections) * every
		if n%2 == 0 {
			return int(followed)
		}
		return int(followed + 1 + n/2*stride%(every-1))
	}
}

// knownOrders measures events when many orders are known, and the log is full.
func (t *trial) knownOrders(ctx context.Context) error {
	every := t.orders / t.connections
	if _, err := t.open(ctx, func(i int) int { return i * every }); err != nil {
		return err
	}
	if err := t.publisher.paced(ctx, fillRate, int64(t.entries)); err != nil {
		return err
	}
	if err := t.fleet.settle(ctx); err != nil {
		return err
	}
	if err := t.steady(ctx); err != nil {
		return err
	}
	return t.storeMemory(ctx)
}

// storeMemory notes what Redis keeps, and what each entry and order takes.
func (t *trial) storeMemory(ctx context.Context) error {
	addr := t.gateway().redisAddr
	info, err := askStore(ctx, addr, "INFO memory")
	if err != nil {
		return err
	}
	used, err := infoField(info, "used_memory")
	if err != nil {
		return err
	}
	t.result.Values["store_mib"] = float64(used) / (1 << 20)
	for name, of := range map[string]struct {
		keys  []string
		count string
	}{
		"log_bytes_per_entry":  {[]string{"log"}, "XLEN {rt:commerce}:log"},
		"seen_bytes_per_entry": {[]string{"seen"}, "ZCARD {rt:commerce}:seen"},
		"bytes_per_order":      {[]string{"state", "state_at", "join"}, "ZCARD {rt:commerce}:state_at"},
	} {
		count, err := askNumber(ctx, addr, of.count)
		if err != nil {
			return err
		}
		sum := int64(0)
		for _, key := range of.keys {
			n, err := askNumber(ctx, addr, "MEMORY USAGE {rt:commerce}:"+key+" SAMPLES 1000")
			if err != nil {
				return err
			}
			sum += n
		}
		t.result.Values[name] = float64(sum) / float64(max(count, 1))
	}
	return nil
}

// A sight is what several nodes and their Redis have used so far.
type sight struct {
	at                  time.Time
	leader, last, store time.Duration
	traffic
}

// lookAfter looks once do is done and what it has published has come.
func (t *trial) lookAfter(ctx context.Context, do func() error) (sight, error) {
	if err := do(); err != nil {
		return sight{}, err
	}
	if err := t.fleet.settle(ctx); err != nil {
		return sight{}, err
	}
	g := t.gateway()
	leader, err1 := g.server().read(ctx)
	last, err2 := pids{g.nodes[len(g.nodes)-1].pid()}.read(ctx)
	store, err3 := g.redis.read(ctx)
	traffic, err4 := storeTraffic(ctx, g.redisAddr)
	return sight{time.Now(), leader.CPU, last.CPU, store.CPU, traffic}, errors.Join(err1, err2, err3, err4)
}

// severalNodes measures what events cost beside what is spent without any.
func (t *trial) severalNodes(ctx context.Context) error {
	if _, err := t.open(ctx, own); err != nil {
		return err
	}
	began, err := t.lookAfter(ctx, func() error { return t.publisher.paced(ctx, t.rate, int64(t.connections)) })
	if err != nil {
		return err
	}
	quiet, err := t.lookAfter(ctx, func() error { return sleep(ctx, t.d/2) })
	if err != nil {
		return err
	}
	t.fleet.measure()
	count := max(int64(t.rate*t.d.Seconds()), 1)
	ended, err := t.lookAfter(ctx, func() error { return t.publisher.paced(ctx, t.rate, count) })
	if err != nil {
		return err
	}
	t.noteNodes(began, quiet, ended, count)
	return nil
}

// noteNodes takes off what would have been spent without the events, of which
// there were none until quiet.
func (t *trial) noteNodes(began, quiet, ended sight, count int64) {
	idle, busy := quiet.at.Sub(began.at).Seconds(), ended.at.Sub(quiet.at).Seconds()
	perEvent := func(began, quiet, ended int64) float64 {
		return (float64(ended-quiet) - float64(quiet-began)*busy/idle) / float64(count)
	}
	us := func(began, quiet, ended time.Duration) float64 {
		return perEvent(began.Microseconds(), quiet.Microseconds(), ended.Microseconds())
	}
	v := t.result.Values
	v["store_us_per_event"] = us(began.store, quiet.store, ended.store)
	v["server_us_per_event"] = us(began.leader, quiet.leader, ended.leader)
	if t.nodes > 1 {
		v["unwanted_us_per_event"] = us(began.last, quiet.last, ended.last)
	}
	v["in_bytes_per_event"] = perEvent(began.in, quiet.in, ended.in)
	v["out_bytes_per_event"] = perEvent(began.out, quiet.out, ended.out)
	v["idle_in_bytes_per_s"] = float64(quiet.in-began.in) / idle
	v["idle_out_bytes_per_s"] = float64(quiet.out-began.out) / idle
	v["store_idle_percent"] = 100 * (quiet.store - began.store).Seconds() / idle
}

// startKeys has events of all orders in turn.
func startKeys(s sizes) func(n int64) int {
	return func(n int64) int { return int((n - 1) % int64(s.orders)) }
}

// awayEntries is how much of the log a client has missed that was away for a
// moment.
const awayEntries = 1_000

// coldStart ends the only node and starts it again, several times. Each time two
// clients come back: one that was away for a moment, and one that has missed all
// but the first of its events.
func (t *trial) coldStart(ctx context.Context) error {
	starts, last := t.pairs, t.orders-1
	cs, err := t.open(ctx, func(i int) int {
		if i > starts {
			return i - starts - 1
		}
		return last - i
	})
	if err != nil {
		return err
	}
	watcher, brief, long := cs[0], cs[1:1+starts], cs[1+starts:]
	away := min(awayEntries, t.orders/2)
	for _, step := range []struct {
		events int
		cut    []*client // before them
	}{{t.orders, nil}, {t.entries - t.orders - away, long}, {away, brief}} {
		// The watcher gets the last event of all orders: the log is as long then.
		if err := t.fleet.caughtUp(ctx, watcher); err != nil {
			return err
		}
		t.fleet.cut(step.cut)
		if err := t.publisher.paced(ctx, fillRate, int64(step.events)); err != nil {
			return err
		}
	}
	if err := t.fleet.caughtUp(ctx, watcher); err != nil {
		return err
	}
	t.fleet.cut(cs)
	figures := map[string][]float64{}
	for i := range starts {
		if err := t.startOnce(ctx, figures, brief[i], long[i]); err != nil {
			return err
		}
	}
	for name, all := range figures {
		t.result.Values[name] = median(all)
	}
	return nil
}

func (t *trial) startOnce(ctx context.Context, figures map[string][]float64, brief, long *client) error {
	node := t.gateway().nodes[0]
	node.end(startWait) // killed, it would keep the lease for a while
	note := func(name string, since time.Time) {
		figures[name] = append(figures[name], float64(time.Since(since).Microseconds())/1000)
	}
	began := time.Now()
	if err := node.begin(); err != nil {
		return err
	}
	if err := node.ready(ctx, func() bool { return answers(ctx, "http://"+node.admin+"/readyz") }); err != nil {
		return err
	}
	note("ready_ms", began)
	if err := t.comeBack(ctx, brief); err != nil {
		return err
	}
	note("live_ms", began)
	u, err := pids{node.pid()}.read(ctx)
	if err != nil {
		return err
	}
	figures["server_mib"] = append(figures["server_mib"], float64(u.Memory)/(1<<20))
	figures["cpu_ms"] = append(figures["cpu_ms"], float64(u.CPU.Milliseconds()))
	back := time.Now()
	if err := t.comeBack(ctx, long); err != nil {
		return err
	}
	note("replay_ms", back)
	t.fleet.cut([]*client{brief, long})
	return nil
}

// comeBack connects c, and returns when it has what it missed and is told that
// its stream is live.
func (t *trial) comeBack(ctx context.Context, c *client) error {
	if err := t.fleet.connect(ctx, []*client{c}); err != nil {
		return err
	}
	if err := t.fleet.caughtUp(ctx, c); err != nil {
		return err
	}
	return t.fleet.await(ctx, func() (bool, int64) { return c.status == "live", 0 }, "are told to be live")
}
