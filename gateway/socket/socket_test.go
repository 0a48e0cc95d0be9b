package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the two ends of a TCP connection, the first wrapped.
func pair(t *testing.T) (c *Conn, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, ok := Wrap(conn).(*Conn)
	if !ok {
		t.Fatalf("Wrap(%T) is not wrapped", conn)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = other.Close()
	})
	return c, other.(*net.TCPConn)
}

// Much more than a socket takes at once arrives byte for byte, both ways.
func TestReadsAndWritesWait(t *testing.T) {
	c, peer := pair(t)
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(i * i >> 7)
	}
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(peer, peer)
		echoed <- errors.Join(err, peer.CloseWrite())
	}()
	written := make(chan error, 1)
	go func() {
		n, err := c.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		written <- errors.Join(err, c.Conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-written, <-echoed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, want the %d sent", len(got), len(want))
	}
}

func TestDeadlinesHold(t *testing.T) {
	c, _ := pair(t)
	if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Read = %v, want a timeout", err)
	}
	if n, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 64<<20 {
		t.Errorf("Write = %d, %v, want a timeout", n, err)
	}
}

func TestCloseEndsARead(t *testing.T) {
	c, _ := pair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	_ = c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read of a closed connection = %v, want %v", err, net.ErrClosed)
	}
	if _, err := c.WriteNow([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteNow on a closed connection = %v, want %v", err, net.ErrClosed)
	}
}

// What must not wait does not, and loses nothing.
func TestNowDoesNotWait(t *testing.T) {
	c, peer := pair(t)
	room := make([]byte, 64)
	if n, err := c.ReadNow(room); n != 0 || err != nil {
		t.Errorf("ReadNow with nothing there = %d, %v, want 0, nil", n, err)
	}
	sent := 0
	for block := make([]byte, 1<<20); ; {
		n, err := c.WriteNow(block)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			break
		}
	}
	if _, err := io.CopyN(io.Discard, peer, int64(sent)); err != nil {
		t.Fatalf("the %d bytes that were taken did not come: %v", sent, err)
	}
	if _, err := peer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		n, err := c.ReadNow(room)
		got = append(got, room[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != "hello" {
		t.Errorf("read %q, want hello", got)
	}
}

func TestPeerThatResets(t *testing.T) {
	c, peer := pair(t)
	if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read after a reset = %v, want an error of the system", err)
	}
}

func TestListenerWraps(t *testing.T) {
	under, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := Listener(under)
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, ok := conn.(*Conn); ok != supported {
		t.Errorf("Accept = %T; wrapped: %v, want %v", conn, ok, supported)
	}
	_ = ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed one = %v, want %v", err, net.ErrClosed)
	}
}

// What has no socket is left alone.
func TestPipeIsNotWrapped(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if got := Wrap(a); got != a {
		t.Errorf("Wrap(pipe) = %T, want the pipe", got)
	}
}
