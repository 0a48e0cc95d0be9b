package upstream

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// reachTimeout bounds the wait for one answer.
const reachTimeout = 5 * time.Second

// Reachable says whether the upstream answers, whatever it says: it is asked
// without a key, which costs the account nothing, and 401 is as good as 200. A
// 5xx is no answer. No connection stays open.
func (s *Source) Reachable(ctx context.Context) bool {
	api := *s.api
	api.Path += eventsPath
	if !s.answers(ctx, api) {
		return false
	}
	if s.ws.Host == s.api.Host {
		return true
	}
	ws := *s.ws
	ws.Scheme = map[string]string{"ws": "http", "wss": "https"}[ws.Scheme]
	return s.answers(ctx, ws)
}

func (s *Source) answers(ctx context.Context, u url.URL) bool {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := s.client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // the status is all
	return resp.StatusCode < http.StatusInternalServerError
}
