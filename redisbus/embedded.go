package redisbus

import (
	"context"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Embedded is a Redis inside this process, for trying the gateway out: one node,
// no persistence. Start it, give its URL to New, and keep Run running, because
// its clock stands still by itself.
type Embedded struct {
	server *miniredis.Miniredis
}

// StartEmbedded starts an embedded Redis on a free loopback port.
func StartEmbedded() (*Embedded, error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("redisbus: embedded: %w", err)
	}
	return &Embedded{server: m}, nil
}

// URL returns what New takes.
func (e *Embedded) URL() string { return "redis://" + e.server.Addr() + "/0" }

// Run lets keys expire, once a second, until ctx ends; then it stops the server.
func (e *Embedded) Run(ctx context.Context) error {
	defer e.server.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			e.server.FastForward(now.Sub(last))
			last = now
		}
	}
}
