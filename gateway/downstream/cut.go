package downstream

import (
	"maps"
	"slices"
)

// Cut closes the connection of every stream without a word, as a network that
// breaks does. It is for trying clients out; the clients come back by themselves.
func (s *Server) Cut() {
	s.streams.mu.Lock()
	all := slices.Collect(maps.Keys(s.streams.sessions))
	s.streams.mu.Unlock()
	for _, session := range all {
		session.sink.abort()
	}
}
