package socket

import (
	"errors"
	"io"
	"testing"
	"time"
)

// waitFor returns what one Wait of p says.
func waitFor(t *testing.T, p *Poller) ([]int32, error) {
	t.Helper()
	type answer struct {
		ready []int32
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		ready, err := p.Wait()
		got <- answer{ready, err}
	}()
	select {
	case a := <-got:
		return a.ready, a.err
	case <-time.After(10 * time.Second):
		_ = p.Close() // ends the goroutine
		t.Fatal("Wait does not return")
		return nil, nil
	}
}

func TestPollerTellsWhatCanBeRead(t *testing.T) {
	p, err := NewPoller(8)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	a, peerOfA := pair(t)
	b, peerOfB := pair(t)
	for tag, c := range map[int32]*Conn{7: a, 8: b} {
		var added error
		if err := errors.Join(c.Control(func(fd uintptr) { added = p.Add(fd, tag) }), added); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := peerOfB.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // for as long as it can be read
		if ready, err := waitFor(t, p); err != nil || len(ready) != 1 || ready[0] != 8 {
			t.Fatalf("Wait = %v, %v, want what can be read, which is 8", ready, err)
		}
	}
	var removed error
	if err := errors.Join(b.Control(func(fd uintptr) { removed = p.Remove(fd) }), removed); err != nil {
		t.Fatal(err)
	}
	if err := peerOfA.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if ready, err := waitFor(t, p); err != nil || len(ready) != 1 || ready[0] != 7 {
		t.Fatalf("Wait = %v, %v, want the one whose peer has left, 7, and not the one removed", ready, err)
	}
	if _, err := io.ReadAll(a); err != nil {
		t.Fatal(err)
	}
}

func TestPollerReportsABatchAtATime(t *testing.T) {
	p, err := NewPoller(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	seen := map[int32]bool{}
	for tag := range int32(3) {
		c, peer := pair(t)
		var added error
		if err := errors.Join(c.Control(func(fd uintptr) { added = p.Add(fd, tag) }), added); err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for len(seen) < 3 {
		ready, err := waitFor(t, p)
		if err != nil || len(ready) != 1 {
			t.Fatalf("Wait = %v, %v, want one at a time", ready, err)
		}
		seen[ready[0]] = true
	}
}

func TestCloseEndsAWait(t *testing.T) {
	p, err := NewPoller(1)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := p.Wait()
		ended <- err
	}()
	time.AfterFunc(10*time.Millisecond, func() { _ = p.Close() })
	if err := <-ended; err == nil {
		t.Error("Wait = nil, want an error")
	}
	if _, err := p.Wait(); err == nil {
		t.Error("Wait of a closed one = nil, want an error")
	}
	if err := p.Add(0, 0); err == nil {
		t.Error("Add to a closed one = nil, want an error")
	}
}
