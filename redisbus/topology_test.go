package redisbus

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"pepay-gateway/gateway"
)

// exercise appends, follows and reads through b.
func exercise(t *testing.T, b *Bus) {
	t.Helper()
	got := make(chan gateway.Announcement, 64)
	done := tail(t, b, got)
	defer done()
	if a := next(t, got); !a.Nudge {
		t.Fatalf("first announcement = %+v, want a nudge", a)
	}
	term := acquire(t, b, gateway.AcquireRequest{})
	mustAppend(t, b, term, 0, event(1, orderKeys), event(2, orderKeys))
	if a := next(t, got); a.From != 0 || len(a.Entries) != 2 {
		t.Errorf("announcement = %+v, want two entries", a)
	}
	if err := b.Ask(t.Context(), gateway.Ask{Customer: "c1"}); err != nil {
		t.Fatal(err)
	}
	if a := next(t, got); a.Ask.Customer != "c1" {
		t.Errorf("announcement = %+v, want the ask", a)
	}
	if p := read(t, b, gateway.ReadFrom{Pos: gateway.Position{Epoch: term.Epoch}}); len(p.Entries) != 2 {
		t.Errorf("read %d entries, want 2", len(p.Entries))
	}
	if found, err := b.Recent(t.Context(), nil, "c1"); err != nil || len(found) != 2 {
		t.Errorf("recent: %d, %v; want 2", len(found), err)
	}
	if e, err := b.Find(t.Context(), event(2, orderKeys).ID); err != nil || e.Seq != 2 {
		t.Errorf("find: %+v, %v; want seq 2", e, err)
	}
	if all, err := b.Scan(t.Context(), 0, 10); err != nil || len(all) != 2 {
		t.Errorf("scan: %d, %v; want 2", len(all), err)
	}
	if _, err := b.Beat(t.Context(), "n", []byte("1")); err != nil {
		t.Errorf("beat: %v", err)
	}
	if err := b.Renew(t.Context(), term, 0, time.Minute, gateway.Health{State: gateway.Live}); err != nil {
		t.Errorf("renew: %v", err)
	}
}

func TestSentinel(t *testing.T) {
	master := startRedis(t)
	_, port, _ := net.SplitHostPort(master)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor shop 127.0.0.1 %s 1\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The configuration file comes first; what follows is as on any command line.
	sentinel := startRedisWith(t, []string{conf, "--sentinel"})
	exercise(t, newTestBus(t, "redis+sentinel://"+sentinel+"/shop/0", Config{}))
}

func TestCluster(t *testing.T) {
	var addrs, buses []string
	for range 3 {
		buses = append(buses, strconv.Itoa(freePort(t)))
		addrs = append(addrs, startRedis(t, "--cluster-enabled", "yes", "--cluster-port", buses[len(buses)-1]))
	}
	for i, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true, MaintNotificationsConfig: maintOff()})
		defer func() { _ = c.Close() }()
		first, last := i*5462, min((i+1)*5462-1, 16383)
		if err := c.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", first, last).Err(); err != nil {
			t.Fatal(err)
		}
		for j, other := range addrs {
			host, port, _ := net.SplitHostPort(other)
			if err := c.Do(t.Context(), "CLUSTER", "MEET", host, port, buses[j]).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, addr := range addrs { // each decides for itself that the cluster is up
		c := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true, MaintNotificationsConfig: maintOff()})
		defer func() { _ = c.Close() }()
		eventually(t, "the cluster is whole", func() bool {
			shards, err := c.ClusterShards(t.Context()).Result()
			info, err2 := c.ClusterInfo(t.Context()).Result()
			return err == nil && err2 == nil && len(shards) == 3 && len(info) > 16 && info[:16] == "cluster_state:ok"
		})
	}
	exercise(t, newTestBus(t, "redis+cluster://"+addrs[0], Config{}))
}
