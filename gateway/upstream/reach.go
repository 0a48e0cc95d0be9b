package upstream

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// reachTimeout bounds the wait for one answer.
const reachTimeout = 3 * time.Second

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

// waitOut waits for d before the next dial, but no longer than until the upstream
// is seen to come back. An upstream that answers and refuses us is waited for in
// full.
func (r *run) waitOut(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	for time.Until(end) > r.tune.look {
		reachable := r.Reachable(ctx)
		if reachable && r.away {
			r.away = false
			return ctx.Err()
		}
		r.away = !reachable
		if err := sleep(ctx, r.tune.look/2+r.tune.backoff.jitter(r.tune.look/2)); err != nil {
			return err
		}
	}
	return sleep(ctx, time.Until(end))
}
