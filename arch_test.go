package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "pepay-gateway"

// ours says which of our packages each package may import, and thereby which
// packages there are. main may import them all.
var ours = map[string][]string{
	"":                   {"gateway", "gateway/admin", "gateway/bench", "gateway/devnet", "gateway/downstream", "gateway/upstream", "auth", "configs", "redisbus", "web"},
	"gateway":            {},
	"gateway/upstream":   {"gateway", "gateway/socket"},
	"gateway/downstream": {"gateway", "gateway/socket", "auth"},
	"gateway/socket":     {},
	"gateway/admin":      {"gateway"},
	"gateway/bench":      {"gateway/socket"},
	"gateway/devnet":     {"gateway/socket"},
	"gateway/e2e":        {},
	"auth":               {},
	"redisbus":           {"gateway", "gateway/socket"},
	"web":                {},
	"configs":            {},
}

// homes says where each outside technology may be used, outside tests.
var homes = map[string][]string{
	"github.com/gofiber/":           {"gateway/downstream", "gateway/devnet"},
	"github.com/valyala/fasthttp":   {"gateway/downstream", "gateway/devnet"},
	"github.com/fasthttp/websocket": {"gateway/downstream", "gateway/devnet", "gateway/upstream"},
	"github.com/redis/":             {"redisbus"},
	"github.com/alicebob/miniredis": {"redisbus"},
	"github.com/golang-jwt/":        {"auth"},
	"github.com/prometheus/":        {"gateway/admin"},
	"github.com/goccy/go-yaml":      {"configs"},
	"github.com/spf13/":             {""},
	"github.com/tidwall/gjson":      {"auth", "gateway/upstream"},
	"golang.org/x/time":             {"gateway/downstream"},
	"github.com/HdrHistogram/":      {"gateway/bench"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string]bool{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for dec.More() {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, known := ours[name]
		if !known {
			t.Errorf("package %q is not in the layout", name)
			continue
		}
		found[name] = true
		for _, imp := range p.Imports {
			if own, ok := strings.CutPrefix(imp, module+"/"); ok && !slices.Contains(allowed, own) {
				t.Errorf("%q imports %q, which it may not", name, own)
			}
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !atHome(imp, name) {
				t.Errorf("%q imports %q, whose home is elsewhere", name, imp)
			}
		}
	}
	for name := range ours {
		if !found[name] {
			t.Errorf("package %q is missing", name)
		}
	}
}

func atHome(imp, name string) bool {
	for prefix, names := range homes {
		if strings.HasPrefix(imp, prefix) {
			return slices.Contains(names, name)
		}
	}
	return false
}

// Versions before 1.77 hand a connection's reader to somebody else when a
// handler returns early, and older ones let smuggled requests through.
func TestFasthttpIsRecentEnough(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/valyala/fasthttp").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(out)), "v1.78.0"; got != want {
		t.Errorf("fasthttp %s, want %s: run the pooled-connection tests against another before you change this", got, want)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "github.com/valyala/fasthttp v1.78.0\n") {
		t.Error("go.mod does not require fasthttp itself")
	}
}
