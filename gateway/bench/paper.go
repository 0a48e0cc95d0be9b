package bench

import (
	"fmt"
	"math"
)

// What is worked out on paper from the curves: each event is for one connection.
const (
	paperConnections = 1_000_000
	paperOrders      = 1_000_000
	paperEvents      = 10_000 // per second
	paperNodes       = 10
	replaySeconds    = 300 // that clients shall be able to make up for
)

// What the gateway does, in numbers.
const (
	nodeMiB       = 40     // a node without connections, with a full ring
	seenFactor    = 4      // ids that are kept for each entry of the log
	relistSeconds = 60     // how far back a new leader lists
	heldFrames    = 50_000 // that it holds back meanwhile
)

// paper returns lines of what such a gateway takes, how that is worked out, and the result;
// nothing unless all that it takes was measured.
func (r Report) paper() []string {
	missing := false
	get := func(curve string, point int, value string) float64 {
		all := r.at(curve, point, WS, value)
		missing = missing || len(all) == 0
		return median(all)
	}
	connection := get("connections", 18_000, "kib_per_connection")
	idle := get("connections", 18_000, "cpu_percent") / 18 // of a core, for a thousand
	delivery := get("receivers", 1_000, "server_us_per_delivery")
	leader := get("rates", 4_000, "server_us_per_event")
	store := get("rates", 4_000, "store_us_per_event")
	unwanted := get("nodes", 4, "unwanted_us_per_event")
	further := max(get("nodes", 4, "store_us_per_event")-get("nodes", 1, "store_us_per_event"), 0) / 3
	in, out := get("nodes", 4, "in_bytes_per_event"), get("nodes", 4, "out_bytes_per_event")/4
	entry := get("orders", 100_000, "log_bytes_per_entry")
	id := get("orders", 100_000, "seen_bytes_per_entry")
	order := get("orders", 100_000, "bytes_per_order")
	listing := 1000 * (get("takeover", 60_000, "live_ms") - get("takeover", 6_000, "live_ms")) / 54_000
	if missing {
		return nil
	}
	const each, mib, gib = paperConnections / paperNodes, 1 << 10, 1 << 30
	lines := []string{fmt.Sprintf("%d WebSockets, %d events/s, %d nodes\ton paper\t", paperConnections, paperEvents, paperNodes)}
	add := func(what string, result float64, unit, how string, args ...any) {
		lines = append(lines, what+"\t"+fmt.Sprintf(how, args...)+"\t"+figure(result)+" "+unit)
	}
	add("node, memory", (each*connection/mib+nodeMiB)/1024, "GiB",
		"%d × %.4g KiB + %d MiB", each, connection, nodeMiB)
	add("node, processor", each/1000*idle/100+(paperEvents*unwanted+paperEvents/paperNodes*delivery)/1e6, "cores",
		"%d × %.4g %% + %d × %.4g µs + %d × %.4g µs", each/1000, idle, paperEvents, unwanted, paperEvents/paperNodes, delivery)
	add("leader, besides", paperEvents*max(leader-unwanted, 0)/1e6, "cores",
		"%d × (%.4g − %.4g) µs", paperEvents, leader, unwanted)
	perEvent := store + (paperNodes-1)*further
	add("Redis, of its one core", 100*paperEvents*perEvent/1e6, "%",
		"%d × (%.4g + %d × %.4g) µs", paperEvents, store, paperNodes-1, further)
	add("Redis, at most", 1e6/perEvent, "events/s",
		"1 / (%.4g + %d × %.4g) µs", store, paperNodes-1, further)
	add("Redis, network in", paperEvents*in/1e6, "MB/s",
		"%d × %.4g bytes", paperEvents, in)
	add("Redis, network out", paperEvents*paperNodes*out/1e6, "MB/s",
		"%d × %d × %.4g bytes", paperEvents, paperNodes, out)
	add("Redis, memory to replay 5 minutes", (replaySeconds*paperEvents*(entry+seenFactor*id)+paperOrders*order)/gib, "GiB",
		"%d × (%.4g + %d × %.4g) + %d × %.4g bytes", replaySeconds*paperEvents, entry, seenFactor, id, paperOrders, order)
	add("new leader, lists the last minute", relistSeconds*paperEvents*listing/1e6, "s",
		"%d × %.4g µs", relistSeconds*paperEvents, listing)
	add("new leader, keeps up with", math.Sqrt(heldFrames/(relistSeconds*listing/1e6)), "events/s",
		"√(%d / (%d × %.4g µs))", heldFrames, relistSeconds, listing)
	return lines
}
