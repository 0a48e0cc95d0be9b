package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"pepay-gateway/gateway/socket"
)

const (
	// patience is how long nothing may arrive before what is missing is lost.
	patience = 5 * time.Second
	// pollBatch is how many ready connections are asked for at a time, and readBytes
	// how much each is then asked for.
	pollBatch = 256
	readBytes = 64 << 10
	// maxEvents bounds one run: their numbers have seqDigits digits.
	maxEvents = 50_000_000
)

// A fleet is all clients of one trial, and the account of what they must get.
// One goroutine reads for all of them.
type fleet struct {
	target target
	script *script
	keyOf  func(n int64) int
	poller *socket.Poller
	room   []byte // that readLoop reads into
	began  time.Time
	done   chan struct{} // closed when readLoop has ended

	mu        sync.Mutex // guards the fields below, and the clients
	clients   []*client
	live      int           // clients
	due       []int64       // when each event was due, in ns since began; event n is at n
	published map[int]int64 // events by key
	receivers map[int]int64 // clients that get them
	expected  int64         // deliveries of all that was published
	delivered int64
	measured  int64 // the first event whose latency counts; none at first
	latency   *hdrhistogram.Histogram
	closed    error // why reading ended early
}

func newFleet(to target, s *script, keyOf func(n int64) int) (*fleet, error) {
	p, err := socket.NewPoller(pollBatch)
	if err != nil {
		return nil, err
	}
	f := &fleet{
		target: to, script: s, keyOf: keyOf, poller: p, room: make([]byte, readBytes), began: time.Now(), done: make(chan struct{}),
		due: make([]int64, 1, 1<<14), published: map[int]int64{}, receivers: map[int]int64{}, measured: maxEvents,
		latency: hdrhistogram.New(1_000, time.Minute.Nanoseconds(), 3),
	}
	go f.readLoop()
	return f, nil
}

// close drops all connections.
func (f *fleet) close() {
	_ = f.poller.Close() // fails only when closed already
	<-f.done
	f.cut(f.clients)
}

func (f *fleet) readLoop() {
	defer close(f.done)
	for {
		ready, err := f.poller.Wait()
		if err != nil {
			f.mu.Lock()
			f.closed = fmt.Errorf("bench: %w", err)
			f.mu.Unlock()
			return
		}
		for _, index := range ready {
			f.readOnce(int(index))
		}
	}
}

func (f *fleet) readOnce(index int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.clients[index]
	if c.fd < 0 {
		return // cut meanwhile
	}
	b, err := readSocket(c.fd, f.room)
	if err == nil {
		err = c.feedLocked(b, time.Since(f.began).Nanoseconds())
	}
	if err != nil {
		c.ended = err
		c.Cut++
		f.dropLocked(c)
	}
}

func (f *fleet) dropLocked(c *client) {
	if c.fd < 0 {
		return
	}
	closeSocket(c.fd)
	if c.fd, c.pending = -1, nil; c.live {
		c.live = false
		f.live--
	}
}

func (f *fleet) liveLocked(c *client) {
	if c.live {
		return
	}
	c.live = true
	f.live++
	if !c.opened {
		c.opened, c.base = true, f.published[c.key]
		f.receivers[c.key]++
	}
}

// deliveredLocked notes that event n has come to its receiver, at now.
func (f *fleet) deliveredLocked(n, now int64) {
	f.delivered++
	if n >= f.measured && n < int64(len(f.due)) {
		_ = f.latency.RecordValue(max(now-f.due[n], 1)) // beyond a minute it is lost anyway
	}
}

// add makes n clients of one transport; key tells whose events each gets.
func (f *fleet) add(n int, t Transport, key func(i int) int) []*client {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := len(f.clients)
	for i := range n {
		f.clients = append(f.clients, &client{fleet: f, index: from + i, key: key(i), transport: t, fd: -1})
	}
	return f.clients[from:len(f.clients):len(f.clients)]
}

// cut drops the connections of cs.
func (f *fleet) cut(cs []*client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		f.dropLocked(c)
	}
}

// stopReading makes cs clients that are connected, and read no more.
func (f *fleet) stopReading(cs []*client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		if !c.slow {
			c.slow = true
			f.receivers[c.key]--
			_ = f.poller.Remove(uintptr(c.fd)) // gone already is fine
		}
	}
}

// sendMemory returns what the kernel holds for sending to each of cs, in bytes
// on average; 0 where the server's side cannot be seen.
func (f *fleet) sendMemory(ctx context.Context, cs []*client) float64 {
	by := sendMemory(ctx, f.target.addr(cs[0])) // slow clients are all of one node
	sum := int64(0)
	for _, c := range cs {
		sum += by[c.local]
	}
	return float64(sum) / float64(len(cs))
}

// announce takes note of the next event before it is sent, and returns its
// number and key.
func (f *fleet) announce(due time.Time) (n int64, key int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		return 0, 0, f.closed
	}
	if n = int64(len(f.due)); n > maxEvents {
		return 0, 0, fmt.Errorf("bench: more than %d events", maxEvents)
	}
	key = f.keyOf(n)
	f.due = append(f.due, due.Sub(f.began).Nanoseconds())
	f.published[key]++
	f.expected += f.receivers[key]
	return n, key, nil
}

// measure starts the account of latencies anew, with the next event.
func (f *fleet) measure() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.measured = int64(len(f.due))
	f.latency.Reset()
}

// counts returns how many deliveries were due, and were made.
func (f *fleet) counts() (events, expected, delivered int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.due)) - 1, f.expected, f.delivered
}

// settle waits until everything published has been received, or nothing more
// comes.
func (f *fleet) settle(ctx context.Context) error {
	err := f.await(ctx, func() (bool, int64) { return f.delivered >= f.expected, f.delivered }, "deliveries are made")
	if errors.Is(err, errStuck) {
		return nil // reconcile tells what is missing
	}
	return err
}

var errStuck = errors.New("bench: nothing more comes")

// caughtUp waits until each of cs has got all that was published for it.
func (f *fleet) caughtUp(ctx context.Context, cs ...*client) error {
	return f.await(ctx, func() (bool, int64) {
		due, got := int64(0), int64(0)
		for _, c := range cs {
			due += f.published[c.key] - c.base
			got += c.got
		}
		return got >= due, got
	}, "of the events have come")
}

// await waits until ok, which is called with the lock held and also returns its
// progress. It gives up when there has been none for a while.
func (f *fleet) await(ctx context.Context, ok func() (bool, int64), what string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	best, since := int64(-1), time.Now()
	for {
		f.mu.Lock()
		done, progress := ok()
		err := f.closed
		f.mu.Unlock()
		if done || err != nil {
			return err
		}
		if progress != best {
			best, since = progress, time.Now()
		}
		if time.Since(since) > patience {
			return fmt.Errorf("%w: only %d %s%s", errStuck, progress, what, f.firstEnd())
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// firstEnd names the first connection that the server ended, if there is one.
func (f *fleet) firstEnd() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.clients {
		if c.ended != nil {
			return fmt.Sprintf("; client %d: %v", c.index, c.ended)
		}
	}
	return ""
}

// reconcile compares what every client got with what was published for it.
func (f *fleet) reconcile() tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all tally
	for _, c := range f.clients {
		if !c.opened || c.slow {
			continue
		}
		t := c.tally
		t.Lost = max(0, f.published[c.key]-c.base-c.got)
		all.add(t)
	}
	return all
}

func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (ip.IsLoopback() || host == "localhost")
}
