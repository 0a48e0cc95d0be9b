package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// A floor is the bare server that everything else is compared with: a goroutine
// per connection, and for every event one frame, written with one call per
// receiver. It checks nothing and cannot resume: what it costs is what the kernel
// and Go charge. With a store it first keeps each event in a Redis, with one plain
// command, as whoever replays must before anybody has seen the event.
type floor struct {
	readers sync.Pool // of *bufio.Reader, for the heads of requests
	store   string    // address of a Redis, or ""

	mu   sync.Mutex // guards the field below
	keys map[string]map[net.Conn]Transport
}

// ServeFloor serves a floor on ln until ctx ends. Streams are GET /<key>, and
// events POST /<key>, which is not answered. Events are kept in the Redis at
// store, unless that is empty.
func ServeFloor(ctx context.Context, ln net.Listener, store string) error {
	f := &floor{store: store, keys: map[string]map[net.Conn]Transport{}}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil // open connections end with the process
			}
			return fmt.Errorf("bench: floor: %w", err)
		}
		go f.serve(conn)
	}
}

func (f *floor) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }() // nobody else has it
	key, t, ok := f.open(conn)
	if !ok {
		return
	}
	defer f.remove(conn, key)
	f.add(conn, key, t)
	var room [64]byte
	for {
		if _, err := conn.Read(room[:]); err != nil {
			return
		}
	}
}

// open reads the head of the first request, or serves a publisher to its end.
// Its buffer must not live as long as a stream.
func (f *floor) open(conn net.Conn) (key string, t Transport, ok bool) {
	in, _ := f.readers.Get().(*bufio.Reader)
	if in == nil {
		in = bufio.NewReaderSize(nil, 4096)
	}
	in.Reset(conn)
	defer f.readers.Put(in)
	first, err := in.Peek(5)
	if err != nil {
		return "", "", false
	}
	if string(first) == "POST " {
		f.serveEvents(in)
		return "", "", false
	}
	t = SSE
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return "", "", false
		case line == "\r\n":
			return key, t, key != ""
		case strings.HasPrefix(line, "GET /"):
			key = strings.Clone(strings.Fields(line)[1])
		case strings.HasPrefix(line, "Upgrade: websocket"):
			t = WS
		}
	}
}

// websocketAccept answers the one key that the clients here send.
func websocketAccept() string {
	sum := sha1.Sum([]byte("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func floorAnswer(t Transport) []byte {
	if t == SSE {
		return []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
	}
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + websocketAccept() + "\r\n\r\n")
}

// add answers the request, and makes it a stream before anything else is
// published.
func (f *floor) add(conn net.Conn, key string, t Transport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _ = conn.Write(floorAnswer(t)) // the reader finds out too
	if f.keys[key] == nil {
		f.keys[key] = map[net.Conn]Transport{}
	}
	f.keys[key][conn] = t
}

func (f *floor) remove(conn net.Conn, key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys[key], conn)
}

// serveEvents keeps the events of a publisher, if they are to be kept. Without
// the store the publisher is cut off.
func (f *floor) serveEvents(in *bufio.Reader) {
	keep := func([]byte) error { return nil }
	if f.store != "" {
		conn, err := net.Dial("tcp", f.store)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }() // nothing is under way
		k := keeper{conn: conn, in: bufio.NewReader(conn)}
		keep = k.keep
	}
	f.publishLoop(in, keep)
}

// publishLoop reads requests, and has each one's body kept before it writes it to
// the key's streams.
func (f *floor) publishLoop(in *bufio.Reader, keep func(event []byte) error) {
	for {
		key, body, err := readPost(in)
		if err != nil || keep(body) != nil {
			return
		}
		f.deliver(key, body)
	}
}

// A keeper appends events to a stream in a Redis.
type keeper struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

// keep returns when the event is kept.
func (k *keeper) keep(event []byte) error {
	k.out = fmt.Appendf(k.out[:0], "*5\r\n$4\r\nXADD\r\n$5\r\nfloor\r\n$1\r\n*\r\n$1\r\nb\r\n$%d\r\n%s\r\n", len(event), event)
	if _, err := k.conn.Write(k.out); err != nil {
		return err
	}
	_, err := readReply(k.in) // the entry's id
	return err
}

func readPost(in *bufio.Reader) (key string, body []byte, err error) {
	size := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", nil, err
		}
		if len(line) <= 2 {
			break
		}
		if key == "" {
			if parts := bytes.Split(line, []byte(" ")); len(parts) == 3 {
				key = string(parts[1])
			}
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return "", nil, err
			}
		}
	}
	if size < 0 || size > maxMessageBytes {
		return "", nil, errors.New("bench: floor: no length")
	}
	body = make([]byte, size)
	_, err = io.ReadFull(in, body)
	return key, body, err
}

func (f *floor) deliver(key string, event []byte) {
	frame := serverFrame(event)
	block := append(append([]byte("data: "), event...), "\n\n"...)
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn, t := range f.keys[key] {
		out := frame
		if t == SSE {
			out = block
		}
		_, _ = conn.Write(out) // a client that left is removed by its reader
	}
}

// A floorTarget is a floor in a process of its own.
type floorTarget struct {
	address string
	process meter
	redis   meter // nil when nothing is kept
}

func (f *floorTarget) addr(*client) string                    { return f.address }
func (f *floorTarget) silent() bool                           { return true }
func (f *floorTarget) publishAddr() string                    { return f.address }
func (f *floorTarget) server() meter                          { return f.process }
func (f *floorTarget) store() meter                           { return f.redis }
func (f *floorTarget) prepare(context.Context, *client) error { return nil }

func (f *floorTarget) request(c *client, _ string) []byte {
	return streamRequest(c.transport, f.address, "/"+strconv.Itoa(c.key), "")
}

func (f *floorTarget) post(_ int64, key int, event []byte) []byte {
	return postRequest(f.address, "/"+strconv.Itoa(key), event)
}
