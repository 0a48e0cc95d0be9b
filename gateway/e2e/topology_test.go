package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// topologyTime is how long a topology is struck; TestSentinelFailover and
// TestClusterSlotMoves hold what TestChaos holds.
const (
	topologyTime     = 12 * time.Second
	topologyShoppers = 30
)

// sentinels are three Sentinels that watch a primary and two replicas.
type sentinels struct {
	addrs   []string
	servers []*redisServer
}

func startSentinels(t testing.TB) *sentinels {
	t.Helper()
	s := &sentinels{}
	primary := startRedis(t)
	host, port, _ := net.SplitHostPort(primary.addr)
	s.servers = []*redisServer{primary}
	for range 2 {
		s.servers = append(s.servers, startRedis(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0"))
	}
	for _, r := range s.servers[1:] {
		c := client1(r.addr)
		eventually(t, 15*time.Second, "the replica follows", func() bool {
			info, err := c.Info(t.Context(), "replication").Result()
			return err == nil && strings.Contains(info, "master_link_status:up")
		})
		_ = c.Close()
	}
	for range 3 {
		conf := filepath.Join(t.TempDir(), "sentinel.conf")
		text := fmt.Sprintf("sentinel monitor shop %s %s 2\nsentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 6000\n", host, port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		addr := freeAddr(t)
		_, own, _ := net.SplitHostPort(addr)
		r := &redisServer{addr: addr, args: []string{conf, "--sentinel", "--port", own, "--bind", "127.0.0.1", "--dir", t.TempDir()}}
		r.restart(t)
		s.addrs = append(s.addrs, addr)
	}
	c := client1(s.addrs[0])
	defer func() { _ = c.Close() }() // one use
	eventually(t, 20*time.Second, "the Sentinels know each other", func() bool {
		m, err := c.Do(t.Context(), "SENTINEL", "CKQUORUM", "shop").Text()
		return err == nil && strings.HasPrefix(m, "OK 3 ")
	})
	return s
}

// client1 is a client of one server, for a few commands.
func client1(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, DisableIdentity: true, Protocol: 2, DialTimeout: time.Second, ReadTimeout: 5 * time.Second, ContextTimeoutEnabled: true,
	})
}

func (s *sentinels) url() string { return "redis+sentinel://" + strings.Join(s.addrs, ",") + "/shop/0" }

// primary asks a Sentinel who that is.
func (s *sentinels) primary(ctx context.Context) (*redisServer, error) {
	c := client1(s.addrs[0])
	defer func() { _ = c.Close() }() // one use
	at, err := c.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop").StringSlice()
	if err != nil {
		return nil, err
	}
	for _, r := range s.servers {
		if len(at) == 2 && r.addr == net.JoinHostPort(at[0], at[1]) {
			return r, nil
		}
	}
	return nil, fmt.Errorf("unknown primary %v", at)
}

// replicas counts those that follow the primary closely.
func (s *sentinels) replicas(ctx context.Context) int {
	primary, err := s.primary(ctx)
	if err != nil {
		return 0
	}
	c := client1(primary.addr)
	defer func() { _ = c.Close() }() // one use
	info, err := c.Info(ctx, "replication").Result()
	if err != nil {
		return 0
	}
	return strings.Count(info, "state=online")
}

// killPrimary waits until both replicas follow, kills the primary, waits until another took its place, and starts
// the old one again, which then follows.
func (s *sentinels) killPrimary(ctx context.Context, t testing.TB) error {
	// Sentinel promotes nobody who has not caught up since the last time.
	for i := 0; i < 300 && s.replicas(ctx) < 2; i++ {
		sleepFor(ctx, 100*time.Millisecond)
	}
	old, err := s.primary(ctx)
	if err != nil {
		return err
	}
	old.kill()
	for range 300 {
		if now, err := s.primary(ctx); err == nil && now != old {
			old.process = start(t, "redis-server", old.args, nil)
			return nil
		}
		sleepFor(ctx, 100*time.Millisecond)
	}
	return errors.New("no failover within 30 s")
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	red := startSentinels(t)
	// Without acknowledged replication the promoted replica may lack the last
	// moments: epochs that only the old primary knew end in a reset.
	killed := fault{
		row: "R3", name: "primary kill -9, Sentinel promotes", strikes: strikesRedis, resets: 1,
		inject: func(ctx context.Context, s *site, _ *rand.Rand) error { return red.killPrimary(ctx, s.t) },
	}
	s := startSiteOn(t, &console{t: t}, red.servers[0], red.url())
	newChaos(s, []fault{killed}, randOf(1)).run(topologyTime, topologyShoppers)
}

// A cluster is three primaries without replicas.
type cluster struct{ servers []*redisServer }

func startCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{}
	var buses []string
	for range 3 {
		_, bus, _ := net.SplitHostPort(freeAddr(t))
		buses = append(buses, bus)
		c.servers = append(c.servers, startRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus))
	}
	for i, r := range c.servers {
		conn := client1(r.addr)
		if err := conn.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", i*5462, min((i+1)*5462-1, 16383)).Err(); err != nil {
			t.Fatal(err)
		}
		for j, other := range c.servers {
			host, port, _ := net.SplitHostPort(other.addr)
			if err := conn.Do(t.Context(), "CLUSTER", "MEET", host, port, buses[j]).Err(); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.Close()
	}
	for _, r := range c.servers {
		conn := client1(r.addr)
		eventually(t, 20*time.Second, "the cluster is whole", func() bool {
			shards, err := conn.ClusterShards(t.Context()).Result()
			info, err2 := conn.ClusterInfo(t.Context()).Result()
			return err == nil && err2 == nil && len(shards) == 3 && strings.HasPrefix(info, "cluster_state:ok")
		})
		_ = conn.Close()
	}
	return c
}

func (c *cluster) url() string {
	var addrs []string
	for _, r := range c.servers {
		addrs = append(addrs, r.addr)
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

const streamKey = "{rt:commerce}:"

// owner returns the index of the server that has the stream's slot.
func (c *cluster) owner(ctx context.Context) (int, int64, error) {
	for i, r := range c.servers {
		conn := client1(r.addr)
		slot, err := conn.Do(ctx, "CLUSTER", "KEYSLOT", streamKey).Int64()
		var n int64
		if err == nil {
			n, err = conn.Do(ctx, "CLUSTER", "COUNTKEYSINSLOT", slot).Int64()
		}
		_ = conn.Close()
		if err == nil && n > 0 {
			return i, slot, nil
		}
	}
	return 0, 0, errors.New("nobody has the stream's keys")
}

// moveSlot moves the stream's slot to the next server, key by key, as a
// resharding does.
func (c *cluster) moveSlot(ctx context.Context) error {
	from, slot, err := c.owner(ctx)
	if err != nil {
		return err
	}
	to := (from + 1) % len(c.servers)
	a, b := client1(c.servers[from].addr), client1(c.servers[to].addr)
	defer func() { _, _ = a.Close(), b.Close() }() // one use
	idA, err := a.Do(ctx, "CLUSTER", "MYID").Text()
	if err != nil {
		return err
	}
	idB, err := b.Do(ctx, "CLUSTER", "MYID").Text()
	if err != nil {
		return err
	}
	if err := b.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", idA).Err(); err != nil {
		return err
	}
	if err := a.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", idB).Err(); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(c.servers[to].addr)
	for {
		keys, err := a.Do(ctx, "CLUSTER", "GETKEYSINSLOT", slot, 1).StringSlice()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		if err := a.Do(ctx, "MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS", keys[0]).Err(); err != nil {
			return fmt.Errorf("migrate %s: %w", keys[0], err)
		}
		sleepFor(ctx, 100*time.Millisecond) // the scripts meet a slot that is half there
	}
	for _, r := range []int{to, from, (to + 1) % len(c.servers)} {
		conn := client1(c.servers[r].addr)
		err := conn.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", idB).Err()
		_ = conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func TestClusterSlotMoves(t *testing.T) {
	t.Parallel()
	red := startCluster(t)
	moved := fault{
		row: "R11", name: "slot moved under load", strikes: strikesRedis,
		inject: func(ctx context.Context, _ *site, _ *rand.Rand) error { return red.moveSlot(ctx) },
	}
	s := startSiteOn(t, &console{t: t}, red.servers[0], red.url())
	c := newChaos(s, []fault{moved}, randOf(1))
	c.run(topologyTime, topologyShoppers)
	from, _, err := red.owner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := client1(red.servers[from].addr)
	defer func() { _ = conn.Close() }() // one use
	channels, err := conn.Do(t.Context(), "PUBSUB", "SHARDCHANNELS").StringSlice()
	want := []string{"{rt:commerce}:events", "{rt:commerce}:leader"} // the others follow one, the leader the other
	if slices.Sort(channels); err != nil || !slices.Equal(channels, want) {
		t.Errorf("sharded channels on the slot's owner: %v, %v; want %v", channels, err, want)
	}
}
