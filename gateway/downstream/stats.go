package downstream

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
)

// Stats are a server's counters since it started. Keys of the maps are from
// fixed lists, never from clients.
type Stats struct {
	WS         int              `json:"ws"`  // open now
	SSE        int              `json:"sse"` // open now
	Handshakes int64            `json:"handshakes"`
	Streams    int64            `json:"streams"`  // admitted
	Refusals   map[string]int64 `json:"refusals"` // by code of the problem, requests and streams alike
	Closes     map[string]int64 `json:"closes"`   // by close code; "client" when the client left
	Requests   int64            `json:"requests"` // REST and mint
	Minted     int64            `json:"minted"`
	Slow       int64            `json:"slow"`       // times a stream fell behind and caught up
	Replays    int64            `json:"replays"`    // streams that resumed
	Resets     int64            `json:"resets"`     // told to clients
	Snapshots  int64            `json:"snapshots"`  // sent
	Incomplete int64            `json:"incomplete"` // snapshots that lacked state
	Frames     int64            `json:"frames"`     // events written to sockets
	Panics     int64            `json:"panics"`
	Draining   bool             `json:"draining"`
	Accepted   int              `json:"accepted"` // connections open now, streams or not
	Dropped    int64            `json:"dropped"`  // connections closed unheard, for want of descriptors
	Limit      int              `json:"limit"`    // streams before others are refused; 0 = no limit
}

type counters struct {
	handshakes, streams, requests, minted, slow, replays, resets, snapshots, incomplete, frames, panics atomic.Int64

	mu       sync.Mutex // guards the fields below
	refusals map[string]int64
	closes   map[string]int64
}

func (c *counters) refused(p *problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals == nil {
		c.refusals = make(map[string]int64)
	}
	c.refusals[p.code]++
}

func (c *counters) closed(e *ending) {
	code := "client"
	if e.code != 0 {
		code = strconv.Itoa(e.code)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closes == nil {
		c.closes = make(map[string]int64)
	}
	c.closes[code]++
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	ws, sse, draining := s.streams.open()
	c := &s.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		WS: ws, SSE: sse, Draining: draining,
		Accepted: int(s.door.open.Load()), Dropped: s.door.dropped.Load(), Limit: s.limit(),
		Handshakes: c.handshakes.Load(), Streams: c.streams.Load(), Requests: c.requests.Load(), Minted: c.minted.Load(),
		Refusals: maps.Clone(c.refusals), Closes: maps.Clone(c.closes),
		Slow: c.slow.Load(), Replays: c.replays.Load(), Resets: c.resets.Load(), Snapshots: c.snapshots.Load(),
		Incomplete: c.incomplete.Load(), Frames: c.frames.Load(), Panics: c.panics.Load(),
	}
}

// limit is how many streams there may be.
func (s *Server) limit() int {
	limit, room := s.cfg.Limits.Connections, s.door.room
	if limit == 0 || room > 0 && room < limit {
		return room
	}
	return limit
}
