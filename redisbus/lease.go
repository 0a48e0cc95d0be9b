package redisbus

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"pepay-gateway/gateway"
)

// Acquire implements gateway.Log.
func (b *Bus) Acquire(ctx context.Context, req gateway.AcquireRequest) (gateway.Term, time.Duration, error) {
	fresh := "0"
	if req.NewHistory {
		fresh = "1"
	}
	key := make([]byte, gateway.CursorKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return gateway.Term{}, 0, fmt.Errorf("redisbus: acquire: %w", err)
	}
	r, err := b.run(ctx, scriptAcquire, req.Nonce.String(), req.TTL.Milliseconds(), req.Previous, fresh, key)
	if err != nil {
		return gateway.Term{}, 0, err
	}
	word, err := status("acquire", r)
	switch {
	case err != nil:
		return gateway.Term{}, 0, err
	case word == "HELD":
		wait := time.Duration(number(r, 2)) * time.Millisecond
		return gateway.Term{}, wait, fmt.Errorf("redisbus: acquire: %w", gateway.ErrHeld)
	case word == "USED":
		return gateway.Term{}, 0, fmt.Errorf("redisbus: acquire: %w", gateway.ErrNonceUsed)
	}
	fence := text(r, 1)
	_, hex, _ := strings.Cut(fence, "-")
	epoch, err := gateway.ParseEpoch(hex)
	if err != nil {
		return gateway.Term{}, 0, fmt.Errorf("redisbus: acquire: %w", err)
	}
	cursor, err := unpackCursor(text(r, 3), text(r, 4))
	if err != nil {
		return gateway.Term{}, 0, err
	}
	return gateway.Term{Fence: fence, Epoch: epoch, Seq: uint64(number(r, 2)), Cursor: cursor}, 0, nil
}

// Renew implements gateway.Log.
func (b *Bus) Renew(ctx context.Context, t gateway.Term, acked uint64, ttl time.Duration, h gateway.Health) error {
	r, err := b.run(ctx, scriptRenew, t.Fence, ttl.Milliseconds(), packHealth(h), b.publishCommand(), b.channel, b.leader, acked)
	if err != nil {
		return err
	}
	_, err = status("renew", r)
	return err
}

// Release implements gateway.Log.
func (b *Bus) Release(ctx context.Context, t gateway.Term) error {
	_, err := b.run(ctx, scriptRelease, t.Fence, b.publishCommand(), b.channel)
	return err
}
