package downstream

import (
	"net"
	"net/netip"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// clientIP returns the address that limits count the request under.
func (s *Server) clientIP(c *fiber.Ctx) netip.Addr {
	var peer netip.Addr
	if tcp, ok := c.Context().RemoteAddr().(*net.TCPAddr); ok {
		peer = tcp.AddrPort().Addr()
	}
	var hops []string
	for _, line := range c.Context().Request.Header.PeekAll(fiber.HeaderXForwardedFor) {
		hops = append(hops, strings.Split(string(line), ",")...)
	}
	return forwardedFor(peer, hops, s.cfg.TrustedProxies)
}

// forwardedFor walks X-Forwarded-For from the right, the end that the nearest
// proxy wrote, for as long as it is a trusted proxy that speaks. The first that
// is not is the client; what stands to the left of it anybody may have written.
func forwardedFor(peer netip.Addr, hops []string, trusted []netip.Prefix) netip.Addr {
	client := plain(peer)
	for i := len(hops) - 1; i >= 0 && contains(trusted, client); i-- {
		hop, ok := parseHop(strings.TrimSpace(hops[i]))
		if !ok {
			return client
		}
		client = hop
	}
	return client
}

func parseHop(text string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return plain(a), true
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return plain(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// plain gives an address one spelling: no zone, no IPv4 within IPv6.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// limitKey is what a client is counted by: its address, or its /64 network,
// which is what one IPv6 customer has to choose addresses from.
func limitKey(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	network, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return network.Addr()
}
