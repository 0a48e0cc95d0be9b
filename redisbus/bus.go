// Package redisbus is gateway.Log on Redis: the record of one stream, the lease
// of its leader, the state of its orders and the channel that announces what is
// new. Everything that must stay together is written by one script in one hash
// slot. The package never decides what an event means or who may see it.
package redisbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"pepay-gateway/gateway"
	"pepay-gateway/gateway/socket"
)

// Config says which Redis and how much it keeps. Zero numbers take the defaults.
type Config struct {
	URL             string // see parseURL for the forms
	Stream          string // part of every key and channel
	RetentionEvents int    // entries the log keeps; default 100,000
	MaxOrders       int    // orders whose state is kept; default 100,000
	Log             *slog.Logger
}

const (
	defaultRetention = 100_000
	defaultMaxOrders = 100_000
	minSeen          = 100_000
	// stateMaxAge is how long the state of an order without news is kept, beyond
	// the log's own window.
	stateMaxAge = 30 * 24 * time.Hour
)

// Bus is a gateway.Log on Redis. Safe for concurrent use.
type Bus struct {
	client  redis.UniversalClient
	keys    []string // in the order of scripts/prelude.lua
	nodes   string
	channel string // of what everybody follows
	leader  string // of what the leader follows instead
	sharded bool
	cfg     Config
	log     *slog.Logger

	keyArgs     []any // keys, as arguments of a command
	append      script
	appendKeys  []any     // those of its keys that an append needs
	commands    sync.Pool // of *command
	garbage     atomic.Int64
	resubscribe atomic.Int64
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return socket.Wrap(conn), nil
}

// New prepares the connection; nothing is dialled until the first use. The
// error names what is wrong with cfg.URL without repeating it.
func New(cfg Config) (*Bus, error) {
	t, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if t.options.TLSConfig == nil { // else the library dials
		t.options.Dialer = dial
	}
	return newBus(redis.NewUniversalClient(t.options), t.cluster, cfg), nil
}

func newBus(client redis.UniversalClient, sharded bool, cfg Config) *Bus {
	if cfg.RetentionEvents <= 0 {
		cfg.RetentionEvents = defaultRetention
	}
	if cfg.MaxOrders <= 0 {
		cfg.MaxOrders = defaultMaxOrders
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	prefix := "{rt:" + cfg.Stream + "}:"
	b := &Bus{
		client: client, sharded: sharded, cfg: cfg, log: cfg.Log.With("component", "redisbus"),
		commands: sync.Pool{New: func() any { return &command{} }},
		nodes:    prefix + "nodes", channel: prefix + "events", leader: prefix + "leader",
	}
	for _, name := range []string{"meta", "lease", "log", "seen", "fork", "state", "state_at", "join"} {
		b.keys = append(b.keys, prefix+name)
		b.keyArgs = append(b.keyArgs, prefix+name)
	}
	b.append = newAppendScript(b, max(4*cfg.RetentionEvents, minSeen))
	b.appendKeys = slices.DeleteFunc(slices.Clone(b.keyArgs), func(k any) bool { return k == prefix+"lease" })
	return b
}

// Close closes the connections. Calls under way fail.
func (b *Bus) Close() error { return b.client.Close() }

// Garbage counts stored records that were not what this package writes and were skipped.
func (b *Bus) Garbage() int64 { return b.garbage.Load() }

// Resubscribes counts how often the tail had to subscribe again.
func (b *Bus) Resubscribes() int64 { return b.resubscribe.Load() }

// Check reports whether Redis answers and may be trusted with the log: any
// policy but noeviction would drop the log silently. A Redis that does not let
// CONFIG GET be called passes with a warning.
func (b *Bus) Check(ctx context.Context) error {
	if err := b.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redisbus: ping: %w", err)
	}
	got, err := b.client.ConfigGet(ctx, "maxmemory-policy").Result()
	policy := got["maxmemory-policy"]
	switch {
	case err != nil || policy == "":
		b.log.Warn("maxmemory-policy cannot be read; make sure it is noeviction")
		return nil
	case policy != "noeviction":
		return fmt.Errorf("redisbus: %w: maxmemory-policy is %s; set it to noeviction, or events would be dropped silently", ErrEvicting, policy)
	}
	return nil
}

// ErrEvicting says that Redis is configured to evict keys.
var ErrEvicting = errors.New("redis evicts keys")

// publishCommand is how the scripts announce: sharded in a cluster, so that an
// announcement does not visit every node.
func (b *Bus) publishCommand() string {
	if b.sharded {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// status returns the first element of a script's answer and maps those that end
// a term to the core's errors.
func status(name string, r []any) (string, error) {
	word := text(r, 0)
	switch word {
	case "FENCED":
		return word, fmt.Errorf("redisbus: %s: %w", name, gateway.ErrFenced)
	case "REWIND":
		return word, fmt.Errorf("redisbus: %s: %w", name, gateway.ErrRewound)
	case "LOST":
		return word, fmt.Errorf("redisbus: %s: %w", name, gateway.ErrHistoryLost)
	case "":
		return word, fmt.Errorf("redisbus: %s: %w", name, errGarbage)
	}
	return word, nil
}

func text(r []any, i int) string {
	if i >= len(r) {
		return ""
	}
	s, _ := r[i].(string)
	return s
}

func number(r []any, i int) int64 {
	if i >= len(r) {
		return 0
	}
	n, _ := r[i].(int64)
	return n
}

func list(r []any, i int) []any {
	if i >= len(r) {
		return nil
	}
	l, _ := r[i].([]any)
	return l
}

func timeOfMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// LogTo sends what the Redis library says of its connections to log, at debug
// level; every failure that matters is reported by the call that met it. Call it
// before the first New: it is not safe for concurrent use.
func LogTo(log *slog.Logger) { redis.SetLogger(libraryLog{log.With("component", "redis")}) }

type libraryLog struct{ log *slog.Logger }

// Printf implements the library's logger.
func (l libraryLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis library", "text", fmt.Sprintf(format, v...))
}
