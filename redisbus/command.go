package redisbus

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A command is one call of a script as it is sent. It is used again, and so are
// the arrays that it fills: an append allocates next to nothing for its arguments.
type command struct {
	bus    *Bus
	script script
	args   []any
	fence  string
	acked  uint64
	blobs  []byte  // what was packed for it
	pieces []piece // of blobs, as arguments
}

// A piece is an argument that needs no allocation, as a []byte in an interface does.
type piece []byte

// MarshalBinary implements encoding.BinaryMarshaler, by which the library takes
// an argument.
func (p *piece) MarshalBinary() ([]byte, error) { return *p, nil }

// maxKeptBlobs bounds what a command that is not in use keeps of the largest batch.
const maxKeptBlobs = 64 << 10

// firstKey is where a script's keys begin: a cluster is asked by them.
const firstKey = 3

// command begins a call of s on keys.
func (b *Bus) command(s script, keys []any) *command {
	c := b.commands.Get().(*command)
	c.bus, c.script = b, s
	c.args = append(append(c.args, "evalsha", s.sha, len(keys)), keys...)
	return c
}

// packed adds what was packed into blobs since from.
func (c *command) packed(from int) {
	c.pieces = append(c.pieces, c.blobs[from:])
	c.args = append(c.args, &c.pieces[len(c.pieces)-1])
}

// run calls a script on the stream's keys.
func (b *Bus) run(ctx context.Context, s script, args ...any) ([]any, error) {
	c := b.command(s, b.keyArgs)
	c.args = append(c.args, args...)
	return c.list(ctx)
}

// list is call where the answer must be a list.
func (c *command) list(ctx context.Context) ([]any, error) {
	name := c.script.name
	v, err := c.call(ctx)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("redisbus: %s: %w", name, errGarbage)
	}
	return list, nil
}

// call makes the call; c is not to be used after it. It loads the script when
// the server does not know it, and never falls back to EVAL, which a tight ACL
// denies.
func (c *command) call(ctx context.Context) (any, error) {
	defer c.putBack()
	v, err := c.send(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		if err := c.bus.client.ScriptLoad(ctx, c.script.text).Err(); err != nil {
			return nil, fmt.Errorf("redisbus: %s: load: %w", c.script.name, err)
		}
		v, err = c.send(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("redisbus: %s: %w", c.script.name, err)
	}
	return v, nil
}

// send sends c and returns the answer. The library is done with the arguments
// when it returns, whatever came of them.
func (c *command) send(ctx context.Context) (any, error) {
	cmd := redis.NewCmd(ctx, c.args...)
	cmd.SetFirstKeyPos(firstKey)
	_ = c.bus.client.Process(ctx, cmd) // which cmd has, too
	return cmd.Result()
}

func (c *command) putBack() {
	clear(c.args) // it must not keep the events
	clear(c.pieces)
	b, args, blobs, pieces := c.bus, c.args[:0], c.blobs[:0], c.pieces[:0]
	*c = command{args: args, blobs: blobs, pieces: pieces}
	if cap(blobs) <= maxKeptBlobs {
		b.commands.Put(c)
	}
}
