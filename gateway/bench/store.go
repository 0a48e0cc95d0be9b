package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// storeWait bounds one question to a Redis.
const storeWait = 5 * time.Second

// askStore sends one command to the Redis at addr, on a connection of its own,
// and returns the number or the text that it answers; "" for nothing.
func askStore(ctx context.Context, addr, command string) (string, error) {
	d := net.Dialer{Timeout: storeWait}
	conn, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return "", fmt.Errorf("bench: redis: %w", err)
	}
	defer func() { _ = conn.Close() }() // answered
	if err := conn.SetDeadline(time.Now().Add(storeWait)); err != nil {
		return "", fmt.Errorf("bench: redis: %w", err)
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", fmt.Errorf("bench: redis: %w", err)
	}
	text, err := readReply(bufio.NewReader(conn))
	if err != nil {
		return "", fmt.Errorf("bench: redis: %s: %w", command, err)
	}
	return text, nil
}

// readReply reads an integer or a bulk string.
func readReply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(line[1:], "\r\n")
	switch line[0] {
	case ':':
		return text, nil
	case '$':
	default:
		return "", errors.New(strings.TrimSpace(line))
	}
	size, err := strconv.Atoi(text)
	if err != nil || size > maxMessageBytes {
		return "", errors.New(strings.TrimSpace(line))
	}
	if size < 0 {
		return "", nil
	}
	b := make([]byte, size+len("\r\n"))
	_, err = io.ReadFull(in, b)
	return string(b[:size]), err
}

// askNumber is askStore for what is answered with a number, or with nothing.
func askNumber(ctx context.Context, addr, command string) (int64, error) {
	text, err := askStore(ctx, addr, command)
	if err != nil || text == "" {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// A traffic is what a Redis has received and sent, in bytes.
type traffic struct{ in, out int64 }

func storeTraffic(ctx context.Context, addr string) (traffic, error) {
	info, err := askStore(ctx, addr, "INFO stats")
	if err != nil {
		return traffic{}, err
	}
	in, err1 := infoField(info, "total_net_input_bytes")
	out, err2 := infoField(info, "total_net_output_bytes")
	return traffic{in, out}, errors.Join(err1, err2)
}

// infoField returns a number that INFO tells.
func infoField(info, name string) (int64, error) {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("bench: redis: INFO has no %s", name)
}
