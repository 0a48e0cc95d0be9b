package downstream

import "slices"

// Cut closes the connections of a customer's streams without a word, as a
// network that breaks does, and returns how many. It is for trying clients out;
// they come back by themselves.
func (s *Server) Cut(customer string) int {
	s.streams.mu.Lock()
	cut := slices.Clone(s.streams.customers[customer])
	s.streams.mu.Unlock()
	for _, session := range cut {
		session.sink.abort()
	}
	return len(cut)
}
