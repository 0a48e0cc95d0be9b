package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// dialers is how many clients connect at the same time.
	dialers = 64
	// sources is how many loopback addresses clients come from: each has only
	// some 28,000 ports.
	sources          = 8
	connectTimeout   = 15 * time.Second
	maxHeadBytes     = 16 << 10 // of the answer to a handshake
	smallBufferBytes = 4 << 10
)

// prepare gets every client what it needs to connect.
func (f *fleet) prepare(ctx context.Context, cs []*client) error {
	return each(ctx, cs, func(c *client) error { return f.target.prepare(ctx, c) })
}

// connect opens the streams of cs, and returns when all are live.
func (f *fleet) connect(ctx context.Context, cs []*client) error {
	if err := each(ctx, cs, func(c *client) error { return f.dial(ctx, c) }); err != nil {
		return err
	}
	return f.await(ctx, func() (bool, int64) {
		n := int64(0)
		for _, c := range cs {
			if c.live {
				n++
			}
		}
		return n == int64(len(cs)), n
	}, "streams are live")
}

// each calls do for all cs, several at a time, until one fails.
func each(ctx context.Context, cs []*client, do func(*client) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *client)
	var wg sync.WaitGroup
	for range dialers {
		wg.Go(func() {
			for c := range next {
				if err := do(c); err != nil {
					cancel(fmt.Errorf("client %d: %w", c.index, err))
				}
			}
		})
	}
	for _, c := range cs {
		if ctx.Err() != nil {
			break
		}
		next <- c
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// dial connects c and reads the answer to its handshake.
func (f *fleet) dial(ctx context.Context, c *client) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	d, addr := net.Dialer{}, f.target.addr(c)
	if onLoopback(addr) {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+c.index%sources))}
	}
	conn, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	tcp, local := conn.(*net.TCPConn), conn.LocalAddr().String()
	if c.small {
		if err := tcp.SetReadBuffer(smallBufferBytes); err != nil {
			return err
		}
	}
	f.mu.Lock()
	request := f.target.request(c, c.cursor)
	f.mu.Unlock()
	rest, err := handshake(tcp, request)
	if err != nil {
		_ = tcp.Close()
		return err
	}
	fd, err := adopt(tcp)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.fd, c.local, c.ended = fd, local, nil
	if f.target.silent() {
		f.liveLocked(c)
	}
	if err := c.feedLocked(rest, time.Since(f.began).Nanoseconds()); err != nil {
		f.dropLocked(c)
		return err
	}
	return f.poller.Add(uintptr(fd), int32(c.index))
}

// handshake sends request and returns what came behind the head of the answer.
func handshake(conn *net.TCPConn, request []byte) ([]byte, error) {
	if err := conn.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	head, room := []byte(nil), make([]byte, 2048)
	for len(head) < maxHeadBytes {
		n, err := conn.Read(room)
		if n == 0 && err != nil {
			return nil, err
		}
		head = append(head, room[:n]...)
		i := bytes.Index(head, []byte("\r\n\r\n"))
		if i < 0 {
			continue
		}
		if status, _, _ := bytes.Cut(head, []byte("\r\n")); !bytes.Contains(status, []byte(" 101 ")) && !bytes.Contains(status, []byte(" 200 ")) {
			return nil, fmt.Errorf("refused: %s: %s", status, bytes.TrimSpace(head[i:]))
		}
		return head[i+4:], nil
	}
	return nil, errors.New("no end of the head of the answer")
}
