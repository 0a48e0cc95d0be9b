package redisbus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"pepay-gateway/gateway"
)

const (
	// A subscription that brings nothing is pinged each pingEvery, and given up
	// when not even a pong came for silentAfter: a peer that stays open but
	// silent would otherwise go unnoticed for a quarter of an hour.
	pingEvery   = time.Second
	silentAfter = 3 * time.Second
	// Wait before subscribing again, at most.
	retryMax = time.Second
	// Reports of nodes older than this are dropped.
	reportMaxAge = 10 * time.Second
)

// Tail implements gateway.Log. It subscribes again for ever; the position poll
// of the node, not this, is what makes sure that nothing is missed.
func (b *Bus) Tail(ctx context.Context, leading bool, f func(gateway.Announcement)) error {
	channel := b.channel
	if leading {
		channel = b.leader
	}
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			b.resubscribe.Add(1)
		}
		err := b.tailOnce(ctx, channel, f)
		if ctx.Err() != nil {
			break
		}
		b.log.Debug("tail ended", "reason", err)
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(retryMax)):
		}
	}
	return context.Cause(ctx)
}

// tailOnce follows a channel on one connection. A receive that timed out may
// have stopped in mid-reply, so the connection is never used again after one.
func (b *Bus) tailOnce(ctx context.Context, channel string, f func(gateway.Announcement)) error {
	ps := b.subscribe(ctx, channel)
	defer func() { _ = ps.Close() }() // its error says nothing new
	stop := context.AfterFunc(ctx, func() { _ = ps.Close() })
	defer stop()

	pings := make(chan struct{})
	defer func() { <-pings }()
	pingCtx, endPings := context.WithCancel(ctx)
	defer endPings()
	go func() {
		defer close(pings)
		b.pingLoop(pingCtx, ps)
	}()
	for {
		msg, err := ps.ReceiveTimeout(ctx, silentAfter)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				return errors.New("redisbus: tail: silent")
			}
			return fmt.Errorf("redisbus: tail: %w", err)
		}
		switch m := msg.(type) {
		case *redis.Subscription:
			f(gateway.Announcement{Nudge: true}) // messages may have been lost before
		case *redis.Message:
			b.announce(m.Payload, f)
		}
	}
}

func (b *Bus) announce(payload string, f func(gateway.Announcement)) {
	a, err := parseAnnouncement(payload)
	if err != nil {
		b.garbage.Add(1)
		a = gateway.Announcement{Nudge: true}
	}
	f(a)
}

func (b *Bus) subscribe(ctx context.Context, channel string) *redis.PubSub {
	if b.sharded {
		return b.client.SSubscribe(ctx, channel)
	}
	return b.client.Subscribe(ctx, channel)
}

func (b *Bus) pingLoop(ctx context.Context, ps *redis.PubSub) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := ps.Ping(ctx); err != nil {
				_ = ps.Close() // ends the receive
				return
			}
		}
	}
}

// Ask implements gateway.Log. Leaders of the version before this one listen
// where everybody does.
func (b *Bus) Ask(ctx context.Context, a gateway.Ask) error {
	payload := "A" + a.Order + "\n" + a.Customer
	publish := b.client.Publish
	if b.sharded {
		publish = b.client.SPublish
	}
	err := publish(ctx, b.leader, payload).Err()
	older := publish(ctx, b.channel, payload).Err()
	if err != nil && older != nil { // an ACL of that version denies the first alone
		return fmt.Errorf("redisbus: ask: %w", err)
	}
	return nil
}

// Beat implements gateway.Log.
func (b *Bus) Beat(ctx context.Context, node string, report []byte) (map[string][]byte, error) {
	c := b.command(scriptBeat, []any{b.nodes})
	c.args = append(c.args, node, report, reportMaxAge.Milliseconds())
	r, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(r)/2)
	for i := 0; i+1 < len(r); i += 2 {
		out[text(r, i)] = []byte(text(r, i+1))
	}
	return out, nil
}

func isNil(err error) bool { return errors.Is(err, redis.Nil) }
