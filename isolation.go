package main

import (
	"context"
	"errors"
	"net"
	"time"

	"pepay-gateway/gateway"
)

// errIsolated ends a node that is alone without Redis. Its clients are moved to
// nodes that have it, and whoever supervises the process starts it afresh.
var errIsolated = errors.New("cut off from Redis while other nodes are not")

// askAgain is how long after one answer the others are asked again. It is longer
// than a node takes to notice that the log is gone: when all lose it at once,
// some notice first, and must not take the others' word.
const askAgain = 5 * time.Second

// watchIsolation returns errIsolated once this node has been without the log for
// stale_limit and another node has said twice that it has it. It returns nil
// when ctx ends.
func (n *node) watchIsolation(ctx context.Context) error {
	before := false // the last answer
	for ctx.Err() == nil {
		health, changed := n.node.Health()
		if health.Reason != gateway.ReasonLogUnreachable {
			before = false
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if left := n.cfg.StaleLimit - time.Since(health.Since); left > 0 {
			wait(ctx, left)
			continue
		}
		has := n.cluster.OthersHaveLog(ctx)
		if has && before {
			return errIsolated
		}
		before = has
		wait(ctx, askAgain)
	}
	return nil
}

// adminURL is where other nodes find this one's admin listener.
func adminURL(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return ""
	}
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	ip := tcp.IP
	if ip.IsUnspecified() {
		ip = ownIP()
	}
	return "http://" + net.JoinHostPort(ip.String(), port)
}

// ownIP returns an address under which other machines may reach this one.
func ownIP() net.IP {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if ipn, ok := a.(*net.IPNet); ok && ipn.IP.IsGlobalUnicast() {
				return ipn.IP
			}
		}
	}
	return net.IPv4(127, 0, 0, 1)
}
