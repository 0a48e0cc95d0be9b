package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	siteNodes = 3
	// siteBackfill is how far back a new log reads.
	siteBackfill = 5 * time.Minute
	// youngLog is how long after a log began its ids may be answered with reset, more
	// than once: nodes need two seconds, and are given time.
	youngLog = time.Minute
)

// A site is everything that a fault may touch: three nodes, Redis and a devnet,
// each a process of its own, with a proxy on every path between them.
type site struct {
	t         testing.TB
	out       io.Writer // what the run prints
	transport *http.Transport
	truth     *truth
	pepay     *pepay
	nodes     [siteNodes]*siteNode
	redisURL  string // "" leads each node through its proxy to the primary
	program   string // what nodes are started with

	sessionSeconds atomic.Int64 // of every token minted; 0 for the default

	mu       sync.Mutex // guards the fields below
	primary  *redisServer
	shoppers []*shopper
	quiet    time.Time // until then nobody orders anything
	history  time.Time // when the log's history began, at the latest
}

// A siteNode is a node's place: it outlives the processes that run there.
type siteNode struct {
	site                   *site
	name, listen, admin    string
	upstream, redis, front *proxy // this node's ways to Pepay and Redis, and its browsers' to it

	mu      sync.Mutex // guards the fields below
	process *process
	down    bool // on purpose
	since   time.Time
	first   vitals // with nobody connected
}

// startSite starts a site on one Redis, with proxies before it.
func startSite(t testing.TB, out io.Writer, pepayArgs ...string) *site {
	t.Helper()
	return startSiteOn(t, out, startRedis(t), "", pepayArgs...)
}

// startSiteOn starts a site on whatever url leads to, without proxies before it;
// "" stands for primary alone, with proxies.
func startSiteOn(t testing.TB, out io.Writer, primary *redisServer, url string, pepayArgs ...string) *site {
	t.Helper()
	s := &site{
		t: t, out: out, transport: &http.Transport{DisableKeepAlives: true}, program: program,
		primary: primary, redisURL: url, pepay: startPepay(t, pepayArgs...),
	}
	if *chaosOld != "" {
		s.program = *chaosOld
	}
	s.truth = newTruth(s.pepay.url)
	for i := range s.nodes {
		n := &siteNode{site: s, name: "node-" + string(rune('a'+i)), listen: freeAddr(t), admin: freeAddr(t)}
		n.upstream = startProxy(t, strings.TrimPrefix(s.pepay.url, "http://"))
		n.redis = startProxy(t, s.primary.addr)
		n.front = startProxy(t, n.listen)
		s.nodes[i] = n
		n.start()
	}
	for _, n := range s.nodes {
		eventually(t, 30*time.Second, n.name+" is live", n.live)
	}
	for _, n := range s.nodes {
		v, err := n.vitals()
		if err != nil {
			t.Fatal(err)
		}
		n.first = v
	}
	s.renew()
	return s
}

func (n *siteNode) start() {
	redisURL := n.site.redisURL
	if redisURL == "" {
		redisURL = "redis://" + n.redis.addr() + "/0"
	}
	n.site.mu.Lock()
	program := n.site.program
	n.site.mu.Unlock()
	p := start(n.site.t, program, []string{"serve"}, []string{
		"GATEWAY_LISTEN=" + n.listen, "GATEWAY_ADMIN_LISTEN=" + n.admin, "GATEWAY_PUBLIC_URL=http://" + n.front.addr(),
		"GATEWAY_NODE=" + n.name, "GATEWAY_REDIS_URL=" + redisURL,
		"GATEWAY_UPSTREAM_API_URL=http://" + n.upstream.addr(), "GATEWAY_UPSTREAM_API_KEY=ck_devnet_demo",
		"GATEWAY_UPSTREAM_BACKFILL=" + siteBackfill.String(), "GATEWAY_ADMIN_PPROF=true",
		"GATEWAY_AUTH_API_KEY=" + testKey, "GATEWAY_AUTH_TOKEN_SECRET=" + testSecret,
		"GATEWAY_LEADER_LEASE=2s", "GATEWAY_STALE_LIMIT=8s", "GATEWAY_LOG_RETENTION_EVENTS=20000",
		"GATEWAY_DRAIN_DELAY=200ms", "GATEWAY_DRAIN_DURATION=2s", "GATEWAY_LOG_LEVEL=warn",
		"GATEWAY_LIMITS_HANDSHAKES_PER_IP=0", "GATEWAY_LIMITS_CONNECTIONS_PER_IP=0", "GOMEMLIMIT=400MiB",
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process, n.down, n.since = p, false, time.Now()
}

func (n *siteNode) running() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// live says whether the node tells its clients that all is well.
func (n *siteNode) live() bool {
	var s nodeStats
	return n.site.fetch(context.Background(), "http://"+n.admin+"/api/v1/stats", &s) == nil && s.Status.State == "live"
}

func (n *siteNode) leads() bool {
	text, err := n.metrics()
	return err == nil && strings.Contains(text, `pepay_gateway_leader{stream="commerce"} 1`)
}

func (n *siteNode) metrics() (string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+n.admin+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := quickClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// vitals are what a process must not lose: goroutines, descriptors, memory.
type vitals struct{ goroutines, descriptors, heapBytes, residentBytes int }

// vitals collects garbage first, so that what is left is held.
func (n *siteNode) vitals() (v vitals, err error) {
	resp, err := quickClient.Get("http://" + n.admin + "/debug/pprof/heap?gc=1")
	if err != nil {
		return v, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	text, err := n.metrics()
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		f, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_goroutines":
			v.goroutines = int(f)
		case "process_open_fds":
			v.descriptors = int(f)
		case "go_memstats_heap_alloc_bytes":
			v.heapBytes = int(f)
		case "process_resident_memory_bytes":
			v.residentBytes = int(f)
		}
	}
	return v, err
}

// kill ends the node as kill -9 does, and starts it again after a while.
func (n *siteNode) kill(ctx context.Context, away time.Duration) {
	n.mu.Lock()
	n.down = true
	p := n.process
	n.mu.Unlock()
	p.kill()
	sleepFor(ctx, away)
	n.start()
}

// roll ends the node as an operator does, and starts it again.
func (n *siteNode) roll(ctx context.Context) error {
	n.mu.Lock()
	n.down = true
	p := n.process
	n.mu.Unlock()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already is seen below
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	var err error
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			err = fmt.Errorf("%s exited %d on SIGTERM", n.name, code)
		}
	case <-limit.C:
		err = fmt.Errorf("%s still ran 20 s after SIGTERM", n.name)
		p.kill()
	}
	n.start()
	return err
}

// supervise starts nodes again that ended by themselves, as a supervisor does.
func (s *site) supervise(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, n := range s.nodes {
			n.mu.Lock()
			p, down := n.process, n.down
			n.mu.Unlock()
			select {
			case <-p.done:
				if !down && ctx.Err() == nil {
					fmt.Fprintf(s.out, "         %s exited %d by itself and is started again\n", n.name, p.cmd.ProcessState.ExitCode())
					n.start()
				}
			default:
			}
		}
	}
}

// leader returns the node that leads, or one at random if none says so.
func (s *site) leader(r *rand.Rand) *siteNode {
	for range 50 {
		for _, n := range s.nodes {
			if n.leads() {
				return n
			}
		}
		sleepFor(context.Background(), 50*time.Millisecond)
	}
	return s.someNode(r)
}

// follower returns a node that does not lead.
func (s *site) follower(r *rand.Rand) *siteNode {
	for {
		if n := s.someNode(r); !n.leads() {
			return n
		}
	}
}

func (s *site) someNode(r *rand.Rand) *siteNode { return s.nodes[r.IntN(len(s.nodes))] }

func (s *site) allLive() bool {
	for _, n := range s.nodes {
		if !n.live() {
			return false
		}
	}
	return true
}

var (
	quickClient = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	// patientClient is for what must not be asked twice.
	patientClient = &http.Client{Timeout: time.Minute, Transport: quickClient.Transport}
)

func (s *site) fetch(ctx context.Context, url string, out any) error {
	return s.send(ctx, http.MethodGet, url, "", nil, out)
}

// send makes one request and reads the JSON of a good answer.
func (s *site) send(ctx context.Context, method, url, key string, in, out any) error {
	return sendBy(ctx, quickClient, method, url, key, in, out)
}

func sendBy(ctx context.Context, client *http.Client, method, url, key string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("x-api-key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: status %d: %.200s", req.URL.Path, resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// mint asks a node for a token, and others when it does not answer: as a shop's
// backend does through a load balancer.
func (s *site) mint(ctx context.Context, first *siteNode, claims map[string]any) (minted, error) {
	var answer struct {
		Data minted `json:"data"`
	}
	if d := s.sessionSeconds.Load(); d > 0 {
		claims = maps.Clone(claims)
		claims["session_seconds"] = d
	}
	err := errors.New("no node")
	for _, n := range append([]*siteNode{first}, s.nodes[:]...) {
		if err = s.send(ctx, http.MethodPost, "http://"+n.listen+"/api/v1/ws/token", testKey, claims, &answer); err == nil {
			break
		}
	}
	return answer.Data, err
}

// devnet steers the devnet.
func (s *site) devnet(path string, body any) error {
	return s.send(context.Background(), http.MethodPost, s.pepay.url+"/_devnet/"+path, "", body, nil)
}

// newOrder has a customer order something. An order made unknown to its shopper
// would be owed to a page that cannot name it.
func (s *site) newOrder(ctx context.Context, customer string) (string, error) {
	var o devnetOrder
	err := sendBy(ctx, patientClient, http.MethodPost, s.pepay.url+"/_devnet/orders", "", map[string]any{"customer_id": customer}, &o)
	return o.OrderID, err
}

func (s *site) move(ctx context.Context, order, transition string) error {
	return s.send(ctx, http.MethodPost, s.pepay.url+"/api/commerce/devnet/orders/"+order+"/simulate", "ck_devnet_demo",
		map[string]any{"transitionTo": transition}, nil)
}

// renewed returns when the log's history began, at the latest.
func (s *site) renewed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history
}

// renew notes that the log may begin a new history.
func (s *site) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = time.Now()
}

// redis is the primary.
func (s *site) redis() *redisServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.primary
}

// redisDo runs commands on the primary itself, past the proxies.
func (s *site) redisDo(ctx context.Context, commands ...[]any) error {
	c := redis.NewClient(&redis.Options{Addr: s.redis().addr, DisableIdentity: true, DialTimeout: time.Second, ContextTimeoutEnabled: true})
	defer func() { _ = c.Close() }() // one use
	for _, args := range commands {
		if err := c.Do(ctx, args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("%v: %w", args[0], err)
		}
	}
	return nil
}

// startReplica starts a Redis that follows the primary through a proxy of its
// own, and waits until it has everything.
func (s *site) startReplica(ctx context.Context) (*redisServer, *proxy, error) {
	wire := startProxy(s.t, s.redis().addr)
	host, port, _ := strings.Cut(wire.addr(), ":")
	r := startRedis(s.t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0", "--repl-timeout", "60")
	r.args = r.args[:len(r.args)-6] // should it be started again, then as what it is by then
	c := redis.NewClient(&redis.Options{Addr: r.addr, DisableIdentity: true})
	defer func() { _ = c.Close() }() // one use
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		if info, err := c.Info(ctx, "replication").Result(); err == nil && strings.Contains(info, "master_link_status:up") {
			return r, wire, nil
		}
		sleepFor(ctx, 20*time.Millisecond)
	}
	return nil, nil, errors.New("the replica does not catch up")
}

// readStates reads the state of a customer's orders into c. It tries for a while;
// a page that gives up has missed what it did not see, and says so.
func (s *site) readStates(sh *shopper, c *cover) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	shown, statuses := map[subject]version{}, map[string]string{}
	insist := func(what string, read func() error) {
		err := read()
		for err != nil && ctx.Err() == nil {
			sleepFor(ctx, 200*time.Millisecond)
			if again := read(); again == nil || ctx.Err() == nil { // else it tells of ctx alone
				err = again
			}
		}
		if err != nil {
			sh.mu.Lock()
			defer sh.mu.Unlock()
			sh.violate("cannot read %s: %v", what, err)
		}
	}
	insist("the record", func() error { return s.truth.read(ctx) })
	orders := map[string]bool{}
	for _, f := range s.truth.of(sh.customer) {
		orders[f.subject.order] = true
	}
	for order := range orders {
		insist("the state of "+order, func() error { return s.readState(ctx, sh, order, shown, statuses) })
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for k, v := range shown {
		c.shown[k] = later(c.shown[k], v)
	}
	for k, v := range statuses {
		c.statuses[k] = v
	}
	c.open = false
}

func (s *site) readState(ctx context.Context, sh *shopper, order string, shown map[subject]version, statuses map[string]string) error {
	n := s.someNode(rand.New(rand.NewPCG(rand.Uint64(), 1)))
	m, err := s.mint(ctx, n, sh.claims)
	if err != nil {
		return err
	}
	var answer struct {
		Data struct {
			Data []json.RawMessage `json:"data"`
		} `json:"data"`
	}
	if err := s.send(ctx, http.MethodGet, "http://"+n.listen+"/api/v1/orders/"+order+"/state", m.Token, nil, &answer); err != nil {
		return err
	}
	for _, raw := range answer.Data.Data {
		p := parsePayload(string(raw))
		if strings.HasPrefix(p.ID, "gw_") {
			statuses[order] = p.status()
			continue
		}
		k := subject{order, objectOf(p.Type)}
		shown[k] = later(shown[k], versionOf(p.ID))
	}
	return nil
}

// crowd returns the shoppers there are.
func (s *site) crowd() []*shopper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*shopper(nil), s.shoppers...)
}

func sleepFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
