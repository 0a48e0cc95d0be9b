package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/redis/go-redis/v9"
)

// What a fault strikes. Two faults that strike the same are never under way
// together.
const (
	strikesUpstream = "upstream"
	strikesNodes    = "nodes"
	strikesRedis    = "redis"
	strikesClients  = "clients"
)

// noticed is how long it takes until every node has seen what became of the log.
const noticed = 3 * time.Second

// A fault is one row of the failure table, made to happen.
type fault struct {
	row, name string
	strikes   string
	resets    int           // that one shopper may be told because of it, at most
	late      time.Duration // how old events are, at most, that may come late because of it
	shuffles  bool          // events may reach the log in another order than the upstream's
	slow      bool          // takes long, and has no place in a short run
	inject    func(context.Context, *site, *rand.Rand) error
}

// faults are the rows that can be made to happen to whole processes. U13 is the
// devnet's clock, which the seed sets. The others have tests of their own: U19 in
// gateway/upstream, R11 in topology_test.go, G6 in gateway/downstream, B1 and B2
// behind nginx. R14, the clock of Redis's host, has none.
var faults = slices.Concat(upstreamFaults, leaderFaults, redisFaults, nodeFaults, clientFaults)

// switches sets the devnet's switches for d, cutting the stream at the start if
// ending is not nil.
func switches(set map[string]any, ending map[string]any, d time.Duration) func(context.Context, *site, *rand.Rand) error {
	return func(ctx context.Context, s *site, _ *rand.Rand) error {
		if err := s.devnet("faults", set); err != nil {
			return err
		}
		if ending != nil {
			if err := s.devnet("cut", ending); err != nil {
				return err
			}
		}
		sleepFor(ctx, d)
		return s.devnet("faults", switchedOff(set))
	}
}

// switchedOff is what turns these switches off again.
func switchedOff(set map[string]any) map[string]any {
	off := map[string]any{}
	for name, v := range set {
		if _, number := v.(int); number {
			off[name] = 0 // null would leave it as it is
		} else {
			off[name] = nil
		}
	}
	return off
}

// refusal has the devnet refuse, and someone who mended what was wrong restart
// the leader: it would try again by itself only after minutes.
func refusal(set map[string]any) func(context.Context, *site, *rand.Rand) error {
	inject := switches(set, map[string]any{}, 1500*time.Millisecond)
	return func(ctx context.Context, s *site, r *rand.Rand) error {
		return errors.Join(inject(ctx, s, r), s.leader(r).roll(ctx))
	}
}

var dropped = map[string]any{} // ends the stream without a close frame

var upstreamFaults = []fault{
	{row: "U1", name: "clean close", strikes: strikesUpstream, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, code := range []int{1000, 1001, 1012} {
			if err := s.devnet("cut", map[string]any{"close_code": code}); err != nil {
				return err
			}
			sleepFor(ctx, 1500*time.Millisecond)
		}
		return nil
	}},
	{row: "U2", name: "half-open", strikes: strikesUpstream, slow: true, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		err := s.devnet("cut", map[string]any{"half_open": true})
		sleepFor(ctx, 28*time.Second) // its pongs are missed after 25 s
		return err
	}},
	{row: "U3", name: "401 at mint, three times", strikes: strikesUpstream, inject: switches(map[string]any{"mint_status": map[string]any{"status": 401, "count": 3}}, dropped, 2*time.Second)},
	{row: "U4", name: "403", strikes: strikesUpstream, inject: refusal(map[string]any{"mint_status": map[string]any{"status": 403, "count": 1}})},
	{row: "U5", name: "400", strikes: strikesUpstream, inject: refusal(map[string]any{"ws_status": map[string]any{"status": 400, "count": 1}})},
	{row: "U6", name: "429 with Retry-After", strikes: strikesUpstream, inject: switches(map[string]any{"ws_status": map[string]any{"status": 429, "count": 2, "retry_after": "1"}}, dropped, 3*time.Second)},
	{row: "U7", name: "5xx and refused connections", strikes: strikesUpstream, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		err := switches(map[string]any{
			"mint_status": map[string]any{"status": 503, "count": 2}, "rest_status": map[string]any{"status": 502, "count": 2},
		}, dropped, time.Second)(ctx, s, r)
		for _, n := range s.nodes {
			n.upstream.cut()
		}
		sleepFor(ctx, 2*time.Second)
		for _, n := range s.nodes {
			n.upstream.heal()
		}
		return err
	}},
	{row: "U8", name: "ws_error, known and unknown", strikes: strikesUpstream, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, code := range []string{"TOKEN_EXPIRED", "WEATHER"} {
			if err := s.devnet("cut", map[string]any{"code": code, "message": "x", "close_code": 1008}); err != nil {
				return err
			}
			sleepFor(ctx, 2*time.Second)
		}
		return nil
	}},
	{row: "U9", name: "frames that never come, told by a control", strikes: strikesUpstream, shuffles: true, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		err := switches(map[string]any{"drop": 30}, nil, time.Second)(ctx, s, r)
		return errors.Join(err, s.devnet("emit", map[string]any{"frame": `{"object":"ws_control","type":"resync"}`}))
	}},
	{row: "U10", name: "every frame three times", strikes: strikesUpstream, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		if err := s.devnet("faults", map[string]any{"duplicate": 2}); err != nil {
			return err
		}
		sleepFor(ctx, 2*time.Second)
		err := s.devnet("cut", dropped)
		sleepFor(ctx, 2*time.Second)
		return errors.Join(err, s.devnet("faults", map[string]any{"duplicate": 0}))
	}},
	{row: "U11", name: "out of order", strikes: strikesUpstream, shuffles: true, inject: switches(map[string]any{"shuffle": 20}, nil, 4*time.Second)},
	{row: "U12", name: "cursor too old", strikes: strikesUpstream, resets: 1, shuffles: true, late: siteBackfill, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, n := range s.nodes {
			n.upstream.cut()
		}
		sleepFor(ctx, 2*time.Second)
		if err := s.devnet("faults", map[string]any{"retention": 4, "rest_retention": 4}); err != nil {
			return err
		}
		for _, n := range s.nodes {
			n.upstream.heal()
		}
		// It dials again within seconds, and calls it a gap after a second look.
		sleepFor(ctx, 12*time.Second)
		return s.devnet("faults", map[string]any{"retention": 0, "rest_retention": 0})
	}},
	{row: "U14", name: "huge frames", strikes: strikesUpstream, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		big := `{"object":"event","id":"evt_1-1","pad":"` + strings.Repeat("x", 3<<20) + `"}`
		err := s.devnet("emit", map[string]any{"frame": big})
		sleepFor(ctx, 2*time.Second)
		return err
	}},
	{row: "U15", name: "malformed frames", strikes: strikesUpstream, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		corpus := []string{
			"not json", "{}", "[]", "null", `"event"`, `{"object":"event"}`, `{"object":"event","id":7,"type":{},"data":[]}`,
			`{"object":"event","id":"evt_1-1","data":{"object":null}}`, `{"object":"event","id":"","type":"x","data":{"object":{}}}`,
			`{"object":"martian","id":1}`, `{"object":"event","id":"evt_` + strings.Repeat("9", 300) + `-1","data":{"object":{}}}`,
			strings.Repeat("[", 5000), "{\"object\":\"event\",\"id\":\"evt_\xff-1\"}", `{"object":{"object":"event"}}`,
			`{"object":"event","object":"ws_error","id":"evt_2-2"}`, `{"object":"event","id":"evt_3-3","type":"x","data":{"object":{"object":"commerce_order","id":1e999}}}`,
		}
		for range 30 {
			frame := corpus[r.IntN(len(corpus))]
			if err := s.devnet("emit", map[string]any{"frame": frame, "repeat": 1 + r.IntN(5), "binary": r.IntN(8) == 0}); err != nil {
				return err
			}
			sleepFor(ctx, 50*time.Millisecond)
		}
		return nil
	}},
	{row: "U16", name: "unknown types, statuses and frames", strikes: strikesUpstream, inject: switches(map[string]any{"unknown": []string{"type", "status", "object"}}, nil, 3*time.Second)},
	{row: "U17", name: "a quiet shop", strikes: strikesUpstream, slow: true, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		s.mu.Lock()
		s.quiet = time.Now().Add(12 * time.Second)
		s.mu.Unlock()
		sleepFor(ctx, 12*time.Second)
		return nil
	}},
	{row: "U18", name: "a burst while Redis is slow", strikes: strikesRedis, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		for _, n := range s.nodes {
			n.redis.slow(60*time.Millisecond, 20*time.Millisecond)
		}
		err := s.burst(ctx, 600)
		for _, n := range s.nodes {
			n.redis.heal()
		}
		return err
	}},
}

var leaderFaults = []fault{
	{row: "L1", name: "leader kill -9", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		s.leader(r).kill(ctx, time.Second)
		return nil
	}},
	{row: "L2", name: "leader paused past its lease", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		p := s.leader(r).running()
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return nil // gone by itself meanwhile
		}
		sleepFor(ctx, 6*time.Second)
		return p.cmd.Process.Signal(syscall.SIGCONT)
	}},
	{row: "L3", name: "lease deleted", strikes: strikesNodes, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		for range 3 {
			if err := s.redisDo(ctx, []any{"DEL", "{rt:commerce}:lease"}); err != nil {
				return nil // Redis is under another fault
			}
			sleepFor(ctx, time.Second)
		}
		return nil
	}},
	{row: "L4", name: "leader SIGTERM", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error { return s.leader(r).roll(ctx) }},
	{row: "L5", name: "leader without Redis", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		n := s.leader(r)
		n.redis.cut()
		sleepFor(ctx, 5*time.Second)
		n.redis.heal()
		return nil
	}},
	{row: "L6", name: "leader alone without Pepay", strikes: strikesUpstream, slow: true, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		n := s.leader(r)
		n.upstream.cut()
		limit := time.Now().Add(30 * time.Second)
		for n.leads() && time.Now().Before(limit) {
			sleepFor(ctx, 200*time.Millisecond)
		}
		var err error
		if n.leads() {
			err = errors.New("still leads after 30 s without Pepay")
		}
		n.upstream.heal()
		return err
	}},
	{row: "L7", name: "leader kill -9 with replies on their way", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		n := s.leader(r)
		n.redis.freeze(replies)
		sleepFor(ctx, time.Duration(50+r.IntN(400))*time.Millisecond)
		n.kill(ctx, 500*time.Millisecond)
		n.redis.heal()
		n.redis.end(false)
		return nil
	}},
}

var redisFaults = []fault{
	{row: "R1", name: "kill -9 and empty", strikes: strikesRedis, resets: 1, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		return s.restartRedis(ctx, time.Duration(200+r.IntN(1500))*time.Millisecond, false)
	}},
	{row: "R2", name: "kill -9 with AOF", strikes: strikesRedis, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		if err := s.redisDo(ctx, []any{"CONFIG", "SET", "appendfsync", "everysec"}, []any{"CONFIG", "SET", "appendonly", "yes"}); err != nil {
			return err
		}
		if err := s.awaitAOF(ctx); err != nil {
			return err
		}
		sleepFor(ctx, 1500*time.Millisecond)
		return s.restartRedis(ctx, time.Duration(200+r.IntN(1000))*time.Millisecond, true)
	}},
	{row: "R3", name: "stale replica promoted", strikes: strikesRedis, resets: 1, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		return s.promote(ctx, time.Duration(200+r.IntN(1200))*time.Millisecond, 0)
	}},
	{row: "R4", name: "split brain", strikes: strikesRedis, resets: 1, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		return s.promote(ctx, time.Duration(100+r.IntN(500))*time.Millisecond, time.Duration(50+r.IntN(3000))*time.Millisecond)
	}},
	{row: "R5", name: "out of memory", strikes: strikesRedis, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		c := redis.NewClient(&redis.Options{Addr: s.redis().addr, DisableIdentity: true})
		defer func() { _ = c.Close() }() // one use
		used, err := c.Info(ctx, "memory").Result()
		if err != nil {
			return err
		}
		limit := 1 << 20
		for line := range strings.Lines(used) {
			if n := 0; strings.HasPrefix(line, "used_memory:") {
				_, err = fmt.Sscanf(line, "used_memory:%d", &n)
				limit = n + 256<<10
			}
		}
		err = errors.Join(err, s.redisDo(ctx, []any{"CONFIG", "SET", "maxmemory", limit}))
		sleepFor(ctx, 6*time.Second)
		return errors.Join(err, s.redisDo(ctx, []any{"CONFIG", "SET", "maxmemory", 0}))
	}},
	{row: "R6", name: "a key deleted", strikes: strikesRedis, resets: 1, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		keys := []string{"meta", "log", "seen", "fork", "state", "state_at", "join"}
		err := s.redisDo(ctx, []any{"DEL", "{rt:commerce}:" + keys[r.IntN(len(keys))]})
		sleepFor(ctx, noticed)
		return err
	}},
	{row: "R7", name: "read-only", strikes: strikesRedis, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		err := s.redisDo(ctx, []any{"REPLICAOF", "127.0.0.1", "1"})
		sleepFor(ctx, 3*time.Second)
		return errors.Join(err, s.redisDo(ctx, []any{"REPLICAOF", "NO", "ONE"}))
	}},
	{row: "R8", name: "two seconds slow", strikes: strikesRedis, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		for _, n := range s.nodes {
			n.redis.slow(2*time.Second, time.Second)
		}
		sleepFor(ctx, 8*time.Second)
		for _, n := range s.nodes {
			n.redis.heal()
		}
		return nil
	}},
	{row: "R9", name: "announcements overflow", strikes: strikesRedis, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		if err := s.redisDo(ctx, []any{"CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 65536 1"}); err != nil {
			return err
		}
		n := s.someNode(r)
		n.redis.freeze(replies)
		err := s.burst(ctx, 200)
		sleepFor(ctx, 1500*time.Millisecond)
		n.redis.heal()
		return errors.Join(err, s.redisDo(ctx, []any{"CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60"}))
	}},
	{row: "R9", name: "a subscription that brings nothing", strikes: strikesRedis, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		s.someNode(r).redis.deafen()
		sleepFor(ctx, 6*time.Second)
		return nil
	}},
	{row: "R10", name: "one node without Redis past the limit", strikes: strikesNodes, slow: true, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		n := s.follower(r)
		p := n.running()
		defer n.redis.heal()
		again := time.NewTicker(time.Second)
		defer again.Stop()
		limit := time.After(30 * time.Second)
		for {
			n.redis.cut() // a fault that is over meanwhile mends the ways of all nodes
			select {
			case <-p.done:
				return nil
			case <-again.C:
			case <-limit:
				return errors.New("the lone node kept its clients for 30 s")
			}
		}
	}},
	{row: "R12", name: "scripts flushed", strikes: strikesRedis, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		for range 6 {
			if err := s.redisDo(ctx, []any{"SCRIPT", "FLUSH"}); err != nil {
				return err
			}
			sleepFor(ctx, 400*time.Millisecond)
		}
		return nil
	}},
	{row: "R13", name: "replies cut in the middle", strikes: strikesRedis, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for range 8 {
			for _, n := range s.nodes {
				n.redis.cutAfter(r.IntN(400))
				n.redis.endSome(true, 0.7)
			}
			sleepFor(ctx, 300*time.Millisecond)
		}
		for _, n := range s.nodes {
			n.redis.heal()
			n.redis.end(false)
		}
		return nil
	}},
	{row: "R15", name: "clients killed, and no room for new ones", strikes: strikesRedis, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		c := redis.NewClient(&redis.Options{Addr: s.redis().addr, DisableIdentity: true, PoolSize: 1})
		defer func() { _ = c.Close() }() // one use
		conn := c.Conn()                 // held, for there may be no room for another
		defer func() { _ = conn.Close() }()
		var errs []error
		for i := range 8 {
			if i == 4 {
				errs = append(errs, conn.Do(ctx, "CONFIG", "SET", "maxclients", 3).Err())
			}
			errs = append(errs, conn.Do(ctx, "CLIENT", "KILL", "TYPE", "pubsub").Err(),
				conn.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err())
			sleepFor(ctx, 500*time.Millisecond)
		}
		return errors.Join(append(errs, conn.Do(ctx, "CONFIG", "SET", "maxclients", 10000).Err())...)
	}},
}

var nodeFaults = []fault{
	{row: "G1", name: "node kill -9", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		s.follower(r).kill(ctx, time.Second)
		return nil
	}},
	{row: "G2", name: "every node rolled", strikes: strikesNodes, slow: true, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		var errs []error
		for _, n := range s.nodes {
			errs = append(errs, n.roll(ctx))
			for range 100 {
				if n.live() {
					break
				}
				sleepFor(ctx, 100*time.Millisecond)
			}
		}
		return errors.Join(errs...)
	}},
	{row: "G3", name: "starved of CPU", strikes: strikesNodes, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		p := s.someNode(r).running()
		for range 12 {
			if p.cmd.Process.Signal(syscall.SIGSTOP) != nil {
				return nil // gone by itself meanwhile
			}
			sleepFor(ctx, 350*time.Millisecond)
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			sleepFor(ctx, 50*time.Millisecond)
		}
		return nil
	}},
	{row: "G4", name: "connections that say nothing", strikes: strikesClients, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		addr := s.someNode(r).listen
		var held []net.Conn
		for range 300 {
			if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				held = append(held, c)
			}
		}
		sleepFor(ctx, 3*time.Second)
		for _, c := range held {
			_ = c.Close()
		}
		return nil
	}},
	{row: "G5", name: "readers that stop, and memory", strikes: strikesClients, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, sh := range s.some(r, 0.3) {
			sh.stop(8 * time.Second)
		}
		err := s.burst(ctx, 300)
		sleepFor(ctx, 8*time.Second)
		return err
	}},
}

var clientFaults = []fault{
	{row: "C1", name: "readers that stop", strikes: strikesClients, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, sh := range s.some(r, 0.15) {
			sh.stop(5 * time.Second)
		}
		sleepFor(ctx, 5*time.Second)
		return nil
	}},
	{row: "C2", name: "browsers that vanish", strikes: strikesClients, slow: true, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, n := range s.nodes {
			n.front.vanish(0.2)
		}
		sleepFor(ctx, time.Second)
		return nil
	}},
	{row: "C3", name: "phones that sleep", strikes: strikesClients, resets: 1, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for _, sh := range s.some(r, 0.2) {
			sh.sleep(time.Duration(3000+r.IntN(12000)) * time.Millisecond)
		}
		sleepFor(ctx, 15*time.Second)
		return nil
	}},
	{row: "C4", name: "everybody comes back at once", strikes: strikesClients, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		for range 2 {
			for _, n := range s.nodes {
				n.front.end(true)
			}
			sleepFor(ctx, 2*time.Second)
		}
		return nil
	}},
	{row: "C5", name: "sessions of five seconds", strikes: strikesClients, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
		s.sessionSeconds.Store(5)
		defer s.sessionSeconds.Store(0)
		for _, n := range s.nodes {
			n.front.end(false)
		}
		sleepFor(ctx, 8*time.Second)
		return nil
	}},
	{row: "C6", name: "a hundred tabs", strikes: strikesClients, inject: func(ctx context.Context, s *site, r *rand.Rand) error { return s.tabs(ctx, r, 100) }},
	{row: "C7", name: "cursors that are nobody's", strikes: strikesClients, resets: 1, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		all := s.truth.all()
		for _, sh := range s.some(r, 0.2) {
			cursor := fmt.Sprintf("cur_%022d", r.Uint64()%1e18)
			if n := len(all); n > 0 && r.IntN(2) == 0 {
				if f := all[r.IntN(n)]; f.customer != sh.customer {
					cursor = f.id
				}
			}
			sh.forge(cursor)
		}
		sleepFor(ctx, 6*time.Second) // until the last has presented it
		return nil
	}},
	{row: "C8", name: "tokens that are no good, C9 over WebSocket", strikes: strikesClients, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		return s.badTokens(ctx, r)
	}},
	{row: "B4", name: "connections reset at random", strikes: strikesClients, inject: func(ctx context.Context, s *site, r *rand.Rand) error {
		for range 8 {
			s.someNode(r).front.endSome(true, 0.4)
			sleepFor(ctx, time.Duration(200+r.IntN(800))*time.Millisecond)
		}
		return nil
	}},
}

// upgradeFaults rolls the nodes from the older program to the one under test,
// back, and forth again.
var upgradeFaults = []fault{{row: "upgrade", name: "old to new, to old, to new", strikes: strikesNodes, inject: func(ctx context.Context, s *site, _ *rand.Rand) error {
	var errs []error
	for _, to := range []string{program, *chaosOld, program} {
		for _, n := range s.nodes {
			s.mu.Lock()
			s.program = to
			s.mu.Unlock()
			errs = append(errs, n.roll(ctx))
			for i := 0; i < 100 && !n.live(); i++ {
				sleepFor(ctx, 100*time.Millisecond)
			}
			sleepFor(ctx, time.Second) // old and new side by side
		}
	}
	return errors.Join(errs...)
}}}

// some returns each shopper with a probability.
func (s *site) some(r *rand.Rand, probability float64) (out []*shopper) {
	for _, sh := range s.crowd() {
		if r.Float64() < probability {
			out = append(out, sh)
		}
	}
	return out
}

// burst has n orders of strangers made as fast as the devnet makes them.
func (s *site) burst(ctx context.Context, n int) error {
	var wg sync.WaitGroup
	var failed error
	var once sync.Once
	for i := range 4 {
		wg.Go(func() {
			for range n / 4 {
				if _, err := s.newOrder(ctx, fmt.Sprint("stranger_", i)); err != nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// restartRedis kills Redis and starts it again, with its append-only file or
// with nothing.
func (s *site) restartRedis(ctx context.Context, away time.Duration, kept bool) error {
	r := s.redis()
	r.kill()
	sleepFor(ctx, away)
	args := r.args
	if kept {
		args = append(slices.Clone(args), "--appendonly", "yes")
	}
	r.process = start(s.t, "redis-server", args, nil)
	for range 500 {
		if s.redisDo(ctx, []any{"PING"}) == nil {
			sleepFor(ctx, noticed)
			return nil
		}
		sleepFor(ctx, 20*time.Millisecond)
	}
	return errors.New("redis does not come back")
}

func (s *site) awaitAOF(ctx context.Context) error {
	c := redis.NewClient(&redis.Options{Addr: s.redis().addr, DisableIdentity: true})
	defer func() { _ = c.Close() }() // one use
	for range 500 {
		info, err := c.Info(ctx, "persistence").Result()
		if err == nil && strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0") {
			return nil
		}
		sleepFor(ctx, 20*time.Millisecond)
	}
	return errors.New("the append-only file is not written")
}

// promote makes a replica that lags by about lag the primary. With split, for
// that long one node or two still use the old primary, which goes on to
// acknowledge, while the others use the new.
func (s *site) promote(ctx context.Context, lag, split time.Duration) error {
	replica, wire, err := s.startReplica(ctx)
	if err != nil {
		return err
	}
	wire.freeze(requests, replies)
	sleepFor(ctx, lag)
	c := redis.NewClient(&redis.Options{Addr: replica.addr, DisableIdentity: true})
	defer func() { _ = c.Close() }() // one use
	if err := c.Do(ctx, "REPLICAOF", "NO", "ONE").Err(); err != nil {
		return err
	}
	old := s.redis()
	if split > 0 {
		s.nodes[0].redis.retarget(replica.addr)
		s.nodes[0].redis.end(false)
		if split%2 == 0 {
			s.nodes[1].redis.retarget(replica.addr)
			s.nodes[1].redis.end(false)
		}
		sleepFor(ctx, split)
	}
	s.mu.Lock()
	s.primary = replica
	s.mu.Unlock()
	for _, n := range s.nodes {
		n.redis.retarget(replica.addr)
		n.redis.end(false)
	}
	old.kill()
	sleepFor(ctx, noticed)
	return nil
}

// tabs opens n streams with one token: the newest stay, the others are told.
func (s *site) tabs(ctx context.Context, r *rand.Rand, n int) error {
	node := s.someNode(r)
	m, err := s.mint(ctx, node, map[string]any{"customer_id": "many_tabs"})
	if err != nil {
		return nil // another fault is under way
	}
	var replaced, open int
	var mu sync.Mutex
	var wg sync.WaitGroup
	var conns []*websocket.Conn
	for range n {
		d := websocket.Dialer{Subprotocols: []string{"pepay.v1", "bearer." + m.Token}, HandshakeTimeout: 5 * time.Second}
		conn, _, err := d.DialContext(ctx, "ws://"+node.listen+"/ws/commerce/events", nil)
		if err != nil {
			continue
		}
		conns = append(conns, conn)
		mu.Lock()
		open++
		mu.Unlock()
		wg.Go(func() {
			for {
				if _, _, err := conn.ReadMessage(); err != nil {
					mu.Lock()
					defer mu.Unlock()
					open--
					if websocket.IsCloseError(err, 4409) {
						replaced++
					}
					return
				}
			}
		})
	}
	for range 100 {
		mu.Lock()
		done := open <= 20
		mu.Unlock()
		if done {
			break
		}
		sleepFor(ctx, 20*time.Millisecond)
	}
	mu.Lock()
	stillOpen := open
	mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	wg.Wait()
	if stillOpen > 20 {
		return fmt.Errorf("%d of %d tabs are open, want at most 20 (%d replaced)", stillOpen, n, replaced)
	}
	return nil
}

// badTokens tries what must not open anything, and holds how it is told.
func (s *site) badTokens(ctx context.Context, r *rand.Rand) error {
	n := s.someNode(r)
	var errs []error
	for _, c := range []struct {
		header http.Header
		status int
	}{
		{http.Header{"Last-Event-ID": {"end_4401"}}, http.StatusNoContent},
		{http.Header{}, http.StatusUnauthorized},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.listen+"/sse/commerce/events?token=nonsense", nil)
		if err != nil {
			return err
		}
		req.Header = c.header
		resp, err := quickClient.Do(req)
		if err != nil {
			return nil // another fault is under way
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status && resp.StatusCode != http.StatusOK { // 200: draining
			errs = append(errs, fmt.Errorf("bad SSE token: status %d, want %d", resp.StatusCode, c.status))
		}
	}
	d := websocket.Dialer{Subprotocols: []string{"pepay.v1", "bearer.nonsense"}, HandshakeTimeout: 5 * time.Second}
	conn, _, err := d.DialContext(ctx, "ws://"+n.listen+"/ws/commerce/events", nil)
	if err != nil {
		return errors.Join(errs...) // another fault is under way
	}
	defer func() { _ = conn.Close() }() // it has been read to its end
	for {
		if _, _, err = conn.ReadMessage(); err != nil {
			break
		}
	}
	if !websocket.IsCloseError(err, 4401, 1012, 1006) {
		errs = append(errs, fmt.Errorf("bad WebSocket token: %w, want close 4401", err))
	}
	return errors.Join(errs...)
}
