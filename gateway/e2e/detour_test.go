package e2e

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A detour is a TCP proxy in front of gateways: one address for ever, behind
// which the target can be changed and connections can be broken.
type detour struct {
	t   testing.TB
	ln  net.Listener
	url string
	wg  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	target string
	closed bool
	marker []byte               // ends the connection that brings it, at its last byte
	life   func() time.Duration // of each connection from now on; nil: for ever
	conns  map[*net.TCPConn]struct{}
}

func startDetour(t testing.TB, target string) *detour {
	t.Helper()
	ln, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	d := &detour{t: t, ln: ln, url: "http://" + ln.Addr().String(), target: strings.TrimPrefix(target, "http://"), conns: map[*net.TCPConn]struct{}{}}
	d.wg.Go(d.acceptLoop)
	t.Cleanup(func() {
		_ = ln.Close() // ends acceptLoop
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.reset()
		d.wg.Wait()
	})
	return d
}

// retarget sends the connections from now on elsewhere.
func (d *detour) retarget(url string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = strings.TrimPrefix(url, "http://")
}

// cutAt ends the next connection towards the client that brings marker, in an
// orderly way, right behind it. It holds for connections made from now on, and
// for one of them.
func (d *detour) cutAt(marker string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marker = []byte(marker)
}

// cutAfter resets each connection from now on when it is as old as life says.
func (d *detour) cutAfter(life func() time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life = life
}

// reset breaks what is open, as a router that forgets its connections does: what
// is on its way is lost.
func (d *detour) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		_ = c.SetLinger(0) // closed already is fine
	}
	for c := range d.conns {
		_ = c.Close()
	}
}

func (d *detour) acceptLoop() {
	for {
		in, err := d.ln.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		target := d.target
		d.mu.Unlock()
		out, err := net.Dial("tcp", target)
		if err != nil {
			_ = in.Close() // nobody is there
			continue
		}
		d.join(in.(*net.TCPConn), out.(*net.TCPConn))
	}
}

func (d *detour) join(client, server *net.TCPConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_, _ = client.Close(), server.Close()
		return
	}
	d.conns[client], d.conns[server] = struct{}{}, struct{}{}
	var bomb *time.Timer
	if d.life != nil {
		bomb = time.AfterFunc(d.life(), func() {
			_, _ = client.SetLinger(0), server.SetLinger(0)
			_, _ = client.Close(), server.Close()
		})
	}
	lines := d.marker != nil
	d.wg.Go(func() {
		_, _ = io.Copy(server, client)
		_, _ = client.Close(), server.Close()
	})
	d.wg.Go(func() {
		if lines {
			d.copyLines(client, server)
		} else {
			_, _ = io.Copy(client, server)
		}
		_, _ = client.Close(), server.Close()
		if bomb != nil {
			bomb.Stop()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.conns, client)
		delete(d.conns, server)
	})
}

// copyLines copies until the marker has passed.
func (d *detour) copyLines(client, server *net.TCPConn) {
	r := bufio.NewReaderSize(server, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		cut := false
		d.mu.Lock()
		if i := bytes.Index(line, d.marker); len(d.marker) > 0 && i >= 0 {
			line, cut = line[:i+len(d.marker)], true
			d.marker = nil
		}
		d.mu.Unlock()
		if _, werr := client.Write(line); err != nil || werr != nil || cut {
			return
		}
	}
}
