package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// profile takes a processor profile of a gateway started here until the function
// returned is called, which then takes one of its heap. It does nothing unless
// profiles are wanted.
func (t *trial) profile(ctx context.Context) (stop func()) {
	g, ok := t.target.(*gatewayTarget)
	if !ok || t.lab.cfg.Profiles == "" || len(g.nodes) == 0 {
		return func() {}
	}
	base := filepath.Join(t.lab.cfg.Profiles, fmt.Sprintf("%s-%s-", strings.ReplaceAll(t.result.named(), " ", "-"), t.transport))
	seconds := max(int(t.d.Seconds()), 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		t.fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", g.nodes[0].admin, seconds), base+"cpu.pprof")
	})
	return func() {
		wg.Wait()
		t.fetch(ctx, "http://"+g.nodes[0].admin+"/debug/pprof/heap", base+"heap.pprof")
	}
}

// fetch stores what url answers. A profile that cannot be had is said, no more.
func (t *trial) fetch(ctx context.Context, url, file string) {
	err := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // read to its end
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(t.lab.cfg.Profiles, 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, b, 0o644)
	}()
	if err != nil {
		t.lab.say("no profile: %v", err)
	}
}
