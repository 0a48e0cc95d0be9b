package e2e

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A direction of a proxy's connections.
type direction int

const (
	requests direction = iota // from who dialled
	replies
)

// A proxy is a TCP path that can be broken in the ways that networks break. It
// is whole at first. Safe for concurrent use.
type proxy struct {
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	target string
	refuse bool                    // close what dials in
	frozen [2]chan struct{}        // closed when that direction thaws; nil while it flows
	delay  func() time.Duration    // of every chunk; nil for none
	after  int                     // reply bytes after which a new connection is cut; negative: never
	pairs  map[*proxyPair]struct{} // open now
	closed bool
}

// A proxyPair is one connection through a proxy.
type proxyPair struct {
	in, out net.Conn
	once    sync.Once
	over    chan struct{} // closed with it
	gone    atomic.Bool   // who dialled has vanished
	deaf    atomic.Bool   // who dialled is not told what Redis publishes
}

// await keeps what was dialled in the dark about who has vanished.
func (p *proxyPair) await() {
	if p.gone.Load() {
		<-p.over
	}
}

func (p *proxyPair) end(reset bool) {
	p.once.Do(func() {
		for _, c := range []net.Conn{p.in, p.out} {
			if tcp, ok := c.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0) // RST instead of FIN
			}
			_ = c.Close()
		}
		close(p.over)
	})
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: target, after: -1, pairs: map[*proxyPair]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		_ = ln.Close()
		p.heal()
		p.end(false)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.wg.Go(func() { p.serve(in) })
		}
	}
}

func (p *proxy) serve(in net.Conn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.mu.Unlock()
	if refuse {
		_ = in.Close()
		return
	}
	out, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		_ = in.Close()
		return
	}
	pair := &proxyPair{in: in, out: out, over: make(chan struct{})}
	p.mu.Lock()
	limit, usable := p.after, !p.refuse && !p.closed && p.target == target
	if usable {
		p.pairs[pair] = struct{}{}
	}
	p.mu.Unlock()
	if !usable { // broken meanwhile
		pair.end(false)
		return
	}
	p.wg.Go(func() { p.copy(pair, requests, -1) })
	p.copy(pair, replies, limit)
	p.mu.Lock()
	delete(p.pairs, pair)
	p.mu.Unlock()
}

// copy carries one direction until the pair ends or limit bytes are through.
func (p *proxy) copy(pair *proxyPair, d direction, limit int) {
	defer pair.end(false)
	defer pair.await()
	from, to := pair.in, pair.out
	if d == replies {
		from, to = pair.out, pair.in
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pass(pair, d) {
				return
			}
			if limit >= 0 && n >= limit {
				_, _ = to.Write(buf[:limit]) // cut in the middle is the point
				return
			}
			limit -= min(n, max(limit, 0))
			if d == replies && pair.deaf.Load() && bytes.Contains(buf[:n], []byte("message\r\n")) {
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !pair.gone.Load() {
				pair.end(true)
			}
			return
		}
	}
}

// pass waits as long as d is frozen and delayed; false when the pair is over.
func (p *proxy) pass(pair *proxyPair, d direction) bool {
	for {
		p.mu.Lock()
		thaw, delay := p.frozen[d], p.delay
		p.mu.Unlock()
		if thaw == nil {
			if delay == nil {
				return true
			}
			t := time.NewTimer(delay())
			defer t.Stop()
			select {
			case <-t.C:
				return true
			case <-pair.over:
				return false
			}
		}
		select {
		case <-thaw:
		case <-pair.over:
			return false
		}
	}
}

// freeze stops the named directions without a word: what is sent waits.
func (p *proxy) freeze(ds ...direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ds {
		if p.frozen[d] == nil {
			p.frozen[d] = make(chan struct{})
		}
	}
}

// slow delays every chunk by between d-spread and d+spread.
func (p *proxy) slow(d, spread time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = func() time.Duration { return d - spread + rand.N(2*spread+1) }
}

// cutAfter ends connections made from now on after n bytes of replies.
func (p *proxy) cutAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = n
}

// cut closes what is open and, until heal, what dials in.
func (p *proxy) cut() {
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	p.end(false)
}

// retarget leads new connections elsewhere and ends the old ones.
func (p *proxy) retarget(addr string) {
	p.mu.Lock()
	p.target = addr
	p.mu.Unlock()
	p.end(false)
}

// heal makes the path whole again; connections that are open stay.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse, p.delay, p.after = false, nil, -1
	for d, thaw := range p.frozen {
		if thaw != nil {
			close(thaw)
			p.frozen[d] = nil
		}
	}
}

// end closes the open connections, with RST when reset is set.
func (p *proxy) end(reset bool) { p.endSome(reset, 1) }

// vanish makes who dialled disappear without a word, with the given probability
// for each connection: what it dialled is told nothing and is not read, as if
// the network had gone, until the proxy ends.
func (p *proxy) vanish(probability float64) {
	for _, pair := range p.some(probability) {
		pair.gone.Store(true)
		_ = pair.in.Close()
	}
}

// deafen keeps from the present connections what Redis publishes; all else,
// answers to pings too, they get.
func (p *proxy) deafen() {
	for _, pair := range p.some(1) {
		pair.deaf.Store(true)
	}
}

// endSome closes each open connection with the given probability.
func (p *proxy) endSome(reset bool, probability float64) {
	for _, pair := range p.some(probability) {
		pair.end(reset)
	}
}

func (p *proxy) some(probability float64) (some []*proxyPair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pair := range p.pairs {
		if rand.Float64() < probability {
			some = append(some, pair)
		}
	}
	return some
}
