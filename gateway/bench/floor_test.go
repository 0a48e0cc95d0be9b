package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// serveFloor serves a floor that keeps its events in a Redis which answers each
// with what answers brings.
func serveFloor(t *testing.T, answers <-chan string) (addr string) {
	t.Helper()
	store, err1 := net.Listen("tcp", "127.0.0.1:0")
	ln, err2 := net.Listen("tcp", "127.0.0.1:0")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	t.Cleanup(func() { _ = store.Close() })
	go func() {
		conn, err := store.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		in := bufio.NewReader(conn)
		for answer := range answers {
			for range 11 { // XADD and four arguments
				if _, err := in.ReadString('\n'); err != nil {
					return
				}
			}
			_, _ = io.WriteString(conn, answer)
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ServeFloor(ctx, ln, store.Addr().String()) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("ServeFloor = %v, want nil", err)
		}
	})
	return ln.Addr().String()
}

func TestFloorKeepsAnEventBeforeItSendsIt(t *testing.T) {
	answers := make(chan string)
	defer close(answers)
	addr := serveFloor(t, answers)
	dial := func(request []byte) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	stream := dial(streamRequest(SSE, addr, "/7", ""))
	in := bufio.NewReader(stream)
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	var events []byte
	for i := range 3 {
		events = append(events, postRequest(addr, "/7", fmt.Appendf(nil, `{"n":%d}`, i))...)
	}
	publisher := dial(events)

	_ = stream.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if got, err := in.ReadString('\n'); err == nil {
		t.Fatalf("%q came before it was kept", got)
	}
	_ = stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range 2 {
		answers <- "$3\r\n1-0\r\n"
		got, err := in.ReadString('\n')
		if want := fmt.Sprintf("data: {\"n\":%d}\n", i); err != nil || got != want {
			t.Fatalf("%q, %v, want the event that was kept, %q", got, err, want)
		}
		if _, err := in.Discard(len("\n")); err != nil {
			t.Fatal(err)
		}
	}

	// One that was not kept is not sent, and nothing after it.
	answers <- "-OOM command not allowed\r\n"
	if _, err := publisher.Read(make([]byte, 1)); err == nil {
		t.Error("the publisher is not cut off")
	}
	_ = stream.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if got, err := io.ReadAll(in); len(got) > 0 || err == nil {
		t.Errorf("%q, %v, want nothing more", got, err)
	}
}
