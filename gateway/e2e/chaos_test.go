package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	chaosSeconds  = flag.Int("chaos.seconds", 45, "how long faults are injected")
	chaosSeed     = flag.Uint64("chaos.seed", 1, "seed of the run")
	chaosRows     = flag.String("chaos.rows", "", "only these rows of the failure table, separated by commas")
	chaosOld      = flag.String("chaos.old", "", "an older program, which the nodes begin with and are rolled from")
	chaosShoppers = flag.Int("chaos.shoppers", 60, "shoppers at any time")
)

const (
	clockFormat = "15:04:05.000"
	// After the last fault everything must be right within settleWithin.
	settleWithin = 75 * time.Second
	// A page that is told live may lack an event for this long: a half-open
	// connection upstream is noticed by its missing pongs after 25 s.
	hiddenWithin = 35 * time.Second
	// lastSweep is when a node last looks for what it missed, after it connected.
	lastSweep = 35 * time.Second
	// What a process may hold more than at its start.
	moreGoroutines, moreDescriptors, moreHeapBytes = 24, 24, 64 << 20
	// GOMEMLIMIT of the nodes, and what may be resident.
	maxResidentBytes = 400 << 20 * 5 / 4
)

// A tally is what a run came to.
type tally struct {
	shoppers, events, deliveries, repeats, resets, streams int
	missing, foreign, altered, disorder                    []string
	violations                                             []string
	closes                                                 map[string]int
	hidden                                                 time.Duration // longest that a page told live lacked an event
	faults                                                 map[string]int
	late                                                   []string // faults that did not heal, or got more resets than they may
}

// A chaos is one run of the fault suite.
type chaos struct {
	*site
	faults []fault
	rand   *rand.Rand
	began  time.Time

	mu     sync.Mutex // guards the fields below
	tally  tally
	next   int           // number of the next shopper
	ending bool          // nobody new comes
	hidden time.Duration // since the last fault
	peak   int           // resident bytes of any node
	wg     sync.WaitGroup
}

// TestChaos holds every promise while everything fails. See docs/testing.md.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	out := &console{t: t}
	fmt.Fprintf(out, "chaos: seed %d, %d s, %d shoppers\n", seed, *chaosSeconds, *chaosShoppers)
	r := randOf(seed)
	offset := []string{"0s", "10m", "-10m"}[r.IntN(3)] // U13
	fmt.Fprintf(out, "the upstream's clock is %s ahead of ours\n", offset)
	c := newChaos(startSite(t, out, "--clock-offset="+offset), chosenFaults(), r)
	if *chaosOld != "" {
		c.faults = upgradeFaults
	}
	c.run(time.Duration(*chaosSeconds)*time.Second, *chaosShoppers)
}

// regressions are runs that failed once, each with what they found.
var regressions = []struct {
	seed uint64
	row  string
}{
	{12, "U12"}, // a customer who polled an order that the log no longer knew got 404 for ever
	{31, "R10"}, // what happened between a handshake and the stream's place in the hub reached nobody without a snapshot
}

func TestChaosRegressions(t *testing.T) {
	t.Parallel()
	for _, g := range regressions {
		t.Run(fmt.Sprint(g.row, " ", g.seed), func(t *testing.T) {
			t.Parallel()
			named := func(f fault) bool { return f.row != g.row }
			c := newChaos(startSite(t, &console{t: t}), slices.DeleteFunc(slices.Clone(faults), named), randOf(g.seed))
			c.run(time.Second, topologyShoppers)
		})
	}
}

func randOf(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func newChaos(s *site, faults []fault, r *rand.Rand) *chaos {
	c := &chaos{site: s, faults: faults, rand: r, began: time.Now()}
	c.tally.faults, c.tally.closes = map[string]int{}, map[string]int{}
	return c
}

// chosenFaults are the rows that the flags ask for.
func chosenFaults() (out []fault) {
	for _, f := range faults {
		named := slices.Contains(strings.Split(*chaosRows, ","), f.row)
		if named || *chaosRows == "" && !(f.slow && *chaosSeconds < 300) {
			out = append(out, f)
		}
	}
	return out
}

// A console prints as it happens: a run takes minutes.
type console struct {
	t  testing.TB
	mu sync.Mutex
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if testing.Verbose() {
		return os.Stdout.Write(b)
	}
	c.t.Log(string(bytes.TrimRight(b, "\n")))
	return len(b), nil
}

func (c *chaos) run(d time.Duration, shoppers int) {
	ctx, cancel := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { c.truth.follow(ctx) })
	background.Go(func() { c.supervise(ctx) })
	background.Go(func() { c.watch(ctx) })
	defer background.Wait()
	defer cancel()

	lives, endLives := context.WithCancel(ctx)
	defer c.wg.Wait()
	defer endLives()
	for range shoppers {
		c.admit(lives)
	}
	sleepFor(ctx, 3*time.Second)
	c.inject(ctx, time.Now().Add(d))

	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.settle(ctx, "the end")
	left := c.awaitDepartures(ctx)
	c.checkLog(ctx)
	endLives()
	_ = c.truth.read(ctx) // as far as can be
	for _, sh := range c.crowd() {
		c.account(sh)
	}
	c.wg.Wait()
	c.checkVitals(ctx)
	c.report(left)
}

// inject makes faults happen until the time is up: first each alone, then
// several at once.
func (c *chaos) inject(ctx context.Context, until time.Time) {
	rows := slices.Clone(c.faults)
	c.rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	alone := time.Now().Add(time.Until(until) * 7 / 10)
	for _, f := range rows {
		if time.Now().After(alone) {
			break
		}
		c.strike(ctx, f)
	}
	for time.Now().Before(until) {
		c.rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		several := []fault{rows[0]}
		for _, f := range rows[1:] {
			if len(several) < 2+c.rand.IntN(2) && !slices.ContainsFunc(several, func(g fault) bool { return g.strikes == f.strikes }) {
				several = append(several, f)
			}
		}
		c.strike(ctx, several...)
	}
}

// strike makes faults happen together and waits until all is well again.
func (c *chaos) strike(ctx context.Context, several ...fault) {
	var names []string
	resets, shuffles := 0, len(several) > 1 // together, anything may come late
	age, longer := time.Second, time.Second // how old, and for how much longer
	for _, f := range several {
		names = append(names, f.row+" "+f.name)
		resets += f.resets * len(several) // a snapshot that another fault cuts short is asked for again
		shuffles = shuffles || f.shuffles
		if f.late > 0 {
			age, longer = max(age, f.late), lastSweep
		}
		c.tally.faults[f.row]++
	}
	name := strings.Join(names, " + ")
	c.mu.Lock()
	c.hidden = 0
	c.mu.Unlock()
	settled := func(time.Duration) {}
	if shuffles {
		settled = c.truth.unsettle(age)
	}
	if resets > 0 {
		c.renew()
	}
	before, began := c.resetsOf(), time.Now()
	var wg sync.WaitGroup
	errs := make([]error, len(several))
	for i, f := range several {
		r := rand.New(rand.NewPCG(c.rand.Uint64(), uint64(i)))
		wg.Go(func() { errs[i] = f.inject(ctx, c.site, r) })
	}
	wg.Wait()
	struck := time.Since(began)
	healed := c.settle(ctx, name)
	if resets > 0 {
		c.renew()
	}
	settled(longer)
	told, most := c.newResets(before)
	c.mu.Lock()
	hidden := c.hidden
	c.mu.Unlock()
	fmt.Fprintf(c.out, "%s %6.1fs  %-62s lasted %4.1fs, healed in %4.1fs, resets %d (%d each at most, %d allowed), hidden %.1fs\n",
		time.Now().Format(clockFormat), time.Since(c.began).Seconds(), name, struck.Seconds(), healed.Seconds(), told, most, resets, hidden.Seconds())
	if most > resets {
		c.fault("%s: a shopper was told %d resets, %d allowed", name, most, resets)
	}
	if err := errors.Join(errs...); err != nil {
		c.fault("%s: %v", name, err)
	}
}

func (c *chaos) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.late = append(c.tally.late, fmt.Sprintf(format, args...))
	fmt.Fprintf(c.out, "         FAILED "+format+"\n", args...)
}

// settle waits until every node says that all is well and no shopper lacks
// anything, and returns how long that took.
func (c *chaos) settle(ctx context.Context, what string) time.Duration {
	began := time.Now()
	for ctx.Err() == nil {
		lack := c.lacking(2 * time.Second)
		if lack == "" && c.allLive() {
			break
		}
		if time.Since(began) > c.patience() {
			c.fault("%s: not well after %v: live %v, %s", what, time.Since(began).Round(time.Second), c.allLive(), lack)
			break
		}
		sleepFor(ctx, 100*time.Millisecond)
	}
	return time.Since(began)
}

// patience is how long to wait for all to be well; a run that has failed already
// only goes on to say how.
func (c *chaos) patience() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tally.late) > 0 {
		return 5 * time.Second
	}
	return settleWithin
}

// lacking names a shopper that is awake and has no stream, has not been told what
// became of its cursor, or lacks an event older than age.
func (c *chaos) lacking(age time.Duration) string {
	for _, sh := range c.crowd() {
		sh.mu.Lock()
		away := time.Now().Before(sh.asleep) || time.Now().Before(sh.stalled)
		lost := sh.streams > 0 && (!sh.connected || sh.promised)
		sh.mu.Unlock()
		if away {
			continue
		}
		if lost {
			return fmt.Sprintf("%s %s has no stream", sh.kind, sh.customer)
		}
		for _, f := range sh.missing(c.truth.of(sh.customer)) {
			if time.Since(f.at) > age {
				sh.mu.Lock()
				defer sh.mu.Unlock()
				return fmt.Sprintf("%s %s (connected %v, status %q, streams %d, closes %v, shown %s) lacks %s %s for %v", sh.kind, sh.customer,
					sh.connected, sh.status, sh.streams, sh.closes, sh.shownLocked(f.subject.order), f.id, f.subject.object, time.Since(f.at).Round(time.Millisecond))
			}
		}
	}
	return ""
}

// watch measures what pages that are told live lack, and what nodes hold.
func (c *chaos) watch(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		hidden := time.Duration(0)
		for _, sh := range c.crowd() {
			sh.mu.Lock()
			live := sh.connected && sh.status == "live" && time.Since(sh.heard) < 20*time.Second && time.Now().After(sh.stalled)
			since := sh.statusAt
			sh.mu.Unlock()
			if !live {
				continue
			}
			for _, f := range sh.missing(c.truth.of(sh.customer)) {
				at := f.at
				if since.After(at) {
					at = since
				}
				hidden = max(hidden, time.Since(at))
			}
		}
		resident := 0
		if i%4 == 0 {
			for _, n := range c.nodes {
				resident = max(resident, residentBytes(n.running().cmd.Process.Pid))
			}
		}
		c.mu.Lock()
		c.hidden, c.tally.hidden = max(c.hidden, hidden), max(c.tally.hidden, hidden)
		c.peak = max(c.peak, resident)
		c.mu.Unlock()
	}
}

// residentBytes reads a process's memory; 0 if it is gone.
func residentBytes(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, resident int
	if err == nil {
		_, _ = fmt.Sscan(string(b), &size, &resident)
	}
	return resident * os.Getpagesize()
}

// admit lets another shopper in, with a life of its own.
func (c *chaos) admit(ctx context.Context) {
	c.mu.Lock()
	n := c.next
	c.next++
	c.mu.Unlock()
	kinds := shopperKinds[:]
	if *chaosOld != "" { // older programs left clients of Pepay's own kind without what happened as they connected
		kinds = kinds[:3]
	}
	// Names that are easily taken for one another.
	sh := newShopper(c.site, fmt.Sprintf("cust_%d", n), kinds[n%len(kinds)], uint64(n)+*chaosSeed<<20)
	sh.byOrders = sh.rand.IntN(4) == 0
	c.site.mu.Lock()
	c.shoppers = append(c.shoppers, sh)
	c.site.mu.Unlock()
	c.wg.Go(func() { c.live(ctx, sh) })
}

// live is what a shopper does: order, watch the orders move, leave when they
// have arrived and the page shows it.
func (c *chaos) live(ctx context.Context, sh *shopper) {
	rest := ctx
	ctx, leave := context.WithCancel(ctx)
	var page sync.WaitGroup
	defer page.Wait()
	defer leave()
	orders, life := 1+sh.rand.IntN(3), rand.New(rand.NewPCG(sh.rand.Uint64(), 2)) // sh.rand is the page's from here on
	open := func() { page.Go(func() { sh.run(ctx) }) }
	if !sh.byOrders {
		open()
	}
	var ids []string
	for range orders {
		if id := c.order(ctx, sh.customer); id != "" {
			ids = append(ids, id)
		}
		if !sh.byOrders {
			c.follow(ctx, life, ids[len(ids)-1:])
		}
	}
	if sh.byOrders {
		sh.claims = map[string]any{"order_id": ids}
		open()
		c.follow(ctx, life, ids)
	}
	content := func() bool {
		facts := c.truth.of(sh.customer)
		return len(facts) >= 10*len(ids) && time.Since(facts[len(facts)-1].at) > time.Second && len(sh.missing(facts)) == 0
	}
	// Under load the record is read late: once more, before it is believed that
	// nothing is missing.
	for ctx.Err() == nil && !(content() && c.truth.read(ctx) == nil && content()) {
		sleepFor(ctx, 300*time.Millisecond)
	}
	if ctx.Err() != nil {
		return // the run is over; whoever is left is accounted for there
	}
	leave()
	page.Wait()
	c.depart(rest, sh)
}

// order and follow keep trying: the devnet is always there.
func (c *chaos) order(ctx context.Context, customer string) string {
	for ctx.Err() == nil {
		if id, err := c.newOrder(ctx, customer); err == nil {
			return id
		}
		sleepFor(ctx, 200*time.Millisecond)
	}
	return ""
}

func (c *chaos) follow(ctx context.Context, r *rand.Rand, orders []string) {
	for _, step := range []string{"payment_confirmed", "payment_settled", "placed", "shipped", "delivery_confirmed"} {
		for _, id := range orders {
			c.site.mu.Lock()
			quiet := time.Until(c.quiet)
			c.site.mu.Unlock()
			sleepFor(ctx, max(quiet, time.Duration(200+r.IntN(1300))*time.Millisecond))
			for ctx.Err() == nil {
				if err := c.move(ctx, id, step); err == nil || strings.Contains(err.Error(), "status 4") { // taken, if not by us just now
					break
				}
				sleepFor(ctx, 200*time.Millisecond)
			}
		}
	}
}

// depart accounts for a shopper that has left, and lets the next one in.
func (c *chaos) depart(ctx context.Context, sh *shopper) {
	c.account(sh)
	c.mu.Lock()
	ending := c.ending
	c.mu.Unlock()
	if !ending {
		c.admit(ctx)
	}
}

// account adds a shopper to the tally.
func (c *chaos) account(sh *shopper) {
	facts := c.truth.of(sh.customer)
	missing := sh.missing(facts)
	if c.truth.lacks(sh) { // it left before the record was read again
		_ = c.truth.read(context.Background()) // what is not there then is foreign
	}
	foreign, altered, disorder := sh.audit(c.truth)
	c.site.mu.Lock()
	c.shoppers = slices.DeleteFunc(c.shoppers, func(o *shopper) bool { return o == sh })
	c.site.mu.Unlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.tally
	t.shoppers++
	t.events += len(facts)
	t.streams += sh.streams
	t.resets += len(sh.resets)
	for _, d := range sh.got {
		t.deliveries += d.times
		t.repeats += d.times - 1
	}
	for name, n := range sh.closes {
		t.closes[name] += n
	}
	who := sh.kind + " " + sh.customer + " "
	for _, f := range missing {
		t.missing = append(t.missing, who+f.id+" "+f.subject.object)
	}
	for _, id := range foreign {
		t.foreign = append(t.foreign, who+id)
	}
	for _, id := range altered {
		t.altered = append(t.altered, who+id)
	}
	for _, id := range disorder {
		t.disorder = append(t.disorder, who+id)
	}
	t.violations = append(t.violations, sh.violations...)
}

// resetsOf counts each present shopper's resets.
func (c *chaos) resetsOf() map[*shopper]int {
	out := map[*shopper]int{}
	for _, sh := range c.crowd() {
		sh.mu.Lock()
		out[sh] = len(sh.resets)
		sh.mu.Unlock()
	}
	return out
}

// newResets returns how many resets there were since, and how many at most for
// one shopper. Those who left meanwhile had nothing to complain of.
func (c *chaos) newResets(before map[*shopper]int) (all, most int) {
	for sh, now := range c.resetsOf() {
		n := now - before[sh]
		all += n
		most = max(most, n)
	}
	return all, most
}

// awaitDepartures waits until everybody has got everything and left.
func (c *chaos) awaitDepartures(ctx context.Context) (left int) {
	deadline := time.Now().Add(max(c.patience(), 30*time.Second)) // an order takes its time
	for time.Now().Before(deadline) {
		if left = len(c.crowd()); left == 0 {
			return 0
		}
		sleepFor(ctx, 200*time.Millisecond)
	}
	c.fault("%d shoppers still lack something: %s", left, c.lacking(0))
	return left
}

// checkLog holds the log against the record: nothing twice, and all there is
// since the last new history.
func (c *chaos) checkLog(ctx context.Context) {
	ids, err := c.logged(ctx)
	if err != nil {
		c.fault("the log cannot be read: %v", err)
		return
	}
	seen := map[string]int{}
	for _, id := range ids {
		if seen[id]++; seen[id] == 2 {
			c.fault("%s is in the log twice", id)
		}
	}
	if len(ids) == 0 {
		return
	}
	oldest := version{}
	for _, id := range ids {
		if v := versionOf(id); v != (version{}) {
			oldest = v
			break
		}
	}
	lost := 0
	for _, f := range c.truth.all() {
		if f.version.compare(oldest) > 0 && seen[f.id] == 0 && c.truth.stableAt(f.at) {
			lost++
		}
	}
	turned, first, last := 0, "", version{}
	for i, id := range ids {
		if f := c.truth.fact(id); f != nil && c.truth.stableAt(f.at) {
			if f.version.compare(last) < 0 {
				turned++
				if first == "" {
					first = fmt.Sprintf(", the first is number %d, %v, behind %v", i+1, f.version, last)
				}
			}
			last = later(last, f.version)
		}
	}
	fmt.Fprintf(c.out, "the log has %d events, none twice unless told above; %d of the record since its first are not there, %d out of order\n", len(ids), lost, turned)
	if lost > 0 || turned > 0 {
		c.fault("%d events are not in the log, %d out of order%s", lost, turned, first)
	}
}

// logged returns the ids in the log, oldest first.
func (c *chaos) logged(ctx context.Context) ([]string, error) {
	var out []string
	for cursor := ""; ; {
		var page struct {
			Data struct {
				Data []struct {
					ID json.RawMessage `json:"id"` // U15 has numbers
				} `json:"data"`
				HasMore bool `json:"has_more"`
			} `json:"data"`
		}
		url := "http://" + c.nodes[0].listen + "/api/v1/events?limit=100"
		if cursor != "" {
			url += "&starting_after=" + cursor
		}
		if err := c.send(ctx, "GET", url, testKey, nil, &page); err != nil {
			return nil, err
		}
		for _, e := range page.Data.Data {
			cursor = strings.Trim(string(e.ID), `"`)
			out = append(out, cursor)
		}
		if !page.Data.HasMore {
			slices.Reverse(out)
			return out, nil
		}
	}
}

// checkVitals holds what the nodes still hold, with everybody gone, against what
// they held at the start.
func (c *chaos) checkVitals(ctx context.Context) {
	c.site.transport.CloseIdleConnections()
	deadline := time.Now().Add(80 * time.Second) // browsers that vanished are noticed by then
	for _, n := range c.nodes {
		var v vitals
		var err error
		for {
			v, err = n.vitals()
			within := err == nil && v.goroutines <= n.first.goroutines+moreGoroutines &&
				v.descriptors <= n.first.descriptors+moreDescriptors && v.heapBytes <= n.first.heapBytes+moreHeapBytes
			if within || time.Now().After(deadline) {
				break
			}
			sleepFor(ctx, time.Second)
		}
		fmt.Fprintf(c.out, "%s: goroutines %d → %d, descriptors %d → %d, heap %.1f → %.1f MiB, resident %.1f → %.1f MiB\n", n.name,
			n.first.goroutines, v.goroutines, n.first.descriptors, v.descriptors,
			mib(n.first.heapBytes), mib(v.heapBytes), mib(n.first.residentBytes), mib(v.residentBytes))
		if err != nil || v.goroutines > n.first.goroutines+moreGoroutines || v.descriptors > n.first.descriptors+moreDescriptors ||
			v.heapBytes > n.first.heapBytes+moreHeapBytes {
			c.fault("%s holds more than at its start: %+v, was %+v, %v", n.name, v, n.first, err)
		}
		if text, err := n.metrics(); err != nil || !strings.Contains(text, `pepay_gateway_panics_total{stream="commerce"} 0`) {
			c.fault("%s: panics, or no word of them: %v", n.name, err)
		}
	}
	c.mu.Lock()
	peak := c.peak
	c.mu.Unlock()
	if peak > maxResidentBytes {
		c.fault("a node held %.0f MiB, more than %d", mib(peak), maxResidentBytes>>20)
	}
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

func (c *chaos) report(left int) {
	t := c.site.t
	c.mu.Lock()
	defer c.mu.Unlock()
	y := &c.tally
	injected := 0
	var rows []string
	for _, row := range slices.Sorted(maps.Keys(y.faults)) {
		injected += y.faults[row]
		rows = append(rows, fmt.Sprintf("%s×%d", row, y.faults[row]))
	}
	fmt.Fprintf(c.out, "faults: %d (%s)\n", injected, strings.Join(rows, " "))
	fmt.Fprintf(c.out, "events: %d recorded, %d owed to %d shoppers over %d streams, %d deliveries of which %d repeats; ended by %v\n",
		len(c.truth.all()), y.events, y.shoppers, y.streams, y.deliveries, y.repeats, y.closes)
	fmt.Fprintf(c.out, "missing %d, foreign %d, altered %d, disorder %d, violations %d, resets %d, longest hidden %.1fs, most memory %.0f MiB\n",
		len(y.missing), len(y.foreign), len(y.altered), len(y.disorder), len(y.violations), y.resets, y.hidden.Seconds(), mib(c.peak))
	for name, list := range map[string][]string{
		"missing": y.missing, "foreign": y.foreign, "altered": y.altered, "disorder": y.disorder, "violations": y.violations, "faults": y.late,
	} {
		if len(list) > 0 {
			t.Errorf("seed %d: %s: %d, want none:\n%s", *chaosSeed, name, len(list), strings.Join(list[:min(len(list), 20)], "\n"))
		}
	}
	if y.hidden > hiddenWithin {
		t.Errorf("a page was told live for %v while it lacked an event, want at most %v", y.hidden, hiddenWithin)
	}
	if left > 0 || injected == 0 || y.deliveries == 0 {
		t.Errorf("%d shoppers left, %d faults, %d deliveries", left, injected, y.deliveries)
	}
}

var _ io.Writer = (*console)(nil)
