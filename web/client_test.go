package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Limits of what pages have to load, gzipped.
const (
	maxClientBytes = 6<<10 + 256
	maxBothBytes   = 13 << 10 // of element.js, which holds both
)

func TestClientIsBuiltFromItsSource(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("./build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	built, committed := readDir(t, dir), readDir(t, "dist")
	for name, want := range built {
		if !bytes.Equal(committed[name], want) {
			t.Errorf("dist/%s is not what its source gives: run go generate ./web", name)
		}
	}
	for name := range committed {
		if _, ok := built[name]; !ok {
			t.Errorf("dist/%s is not built any more", name)
		}
	}
}

func readDir(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestClientIsSmall(t *testing.T) {
	for _, tt := range []struct {
		name string
		most int
	}{
		{"pepay-gateway.js", maxClientBytes},
		{"pepay-gateway.mjs", maxClientBytes},
		{"element.js", maxBothBytes},
	} {
		got := gzipped(t, tt.name)
		t.Logf("%s: %d bytes gzipped", tt.name, got)
		if got > tt.most {
			t.Errorf("%s has %d bytes gzipped, want at most %d", tt.name, got, tt.most)
		}
	}
}

func gzipped(t *testing.T, name string) int {
	t.Helper()
	body, err := bundles.ReadFile("dist/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Len()
}

// The build shortens the names of members that never leave the bundle. A public
// one among them would be gone.
func TestShortenedNamesAreNotPublic(t *testing.T) {
	build, err := os.ReadFile("build.sh")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?m)^internal='(.*)'$`).FindSubmatch(build)
	if list == nil {
		t.Fatal("build.sh has no list of internal names")
	}
	declarations, err := filepath.Glob("client/*.d.ts")
	if err != nil || len(declarations) == 0 {
		t.Fatalf("declarations: %v, %v", declarations, err)
	}
	comment := regexp.MustCompile(`(?s)/\*\*.*?\*/`)
	for _, name := range declarations {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = comment.ReplaceAll(text, nil)
		for _, internal := range strings.Split(string(list[1]), "|") {
			if regexp.MustCompile(`\b` + internal + `\??\s*[:(<]`).Match(text) {
				t.Errorf("%s declares %s, which the build renames", name, internal)
			}
		}
	}
}

func TestClientIsServedToEveryPage(t *testing.T) {
	version := clientVersion()
	for _, tt := range []struct {
		method, path string
		status       int
		contentType  string
		caching      string
	}{
		{"GET", "/client/" + version + "/pepay-gateway.js", 200, "text/javascript; charset=utf-8", immutable},
		{"GET", "/client/v1/pepay-gateway.js", 200, "text/javascript; charset=utf-8", shortly},
		{"HEAD", "/client/v1/pepay-gateway.mjs", 200, "text/javascript; charset=utf-8", shortly},
		{"GET", "/client/v1/pepay-gateway.d.ts", 200, "text/plain; charset=utf-8", shortly},
		{"GET", "/client/9.9.9/pepay-gateway.js", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/client/v1/nothing.js", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/client/v1/", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/client/v1/../../web.go", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/client/v1/pepay-gateway.js", 405, "text/plain; charset=utf-8", ""},
	} {
		res := do(Client(), tt.method, tt.path, "")
		if res.StatusCode != tt.status {
			t.Errorf("%s %s: status = %d, want %d", tt.method, tt.path, res.StatusCode, tt.status)
		}
		for name, want := range map[string]string{
			"Content-Type": tt.contentType, "Cache-Control": tt.caching,
			"Access-Control-Allow-Origin": "*", "X-Content-Type-Options": "nosniff",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s %s: %s = %q, want %q", tt.method, tt.path, name, got, want)
			}
		}
	}
	etag := do(Client(), "GET", "/client/v1/pepay-gateway.js", "").Header.Get("ETag")
	if got, want := do(Client(), "GET", "/client/v1/pepay-gateway.js", etag).StatusCode, http.StatusNotModified; got != want {
		t.Errorf("status with the ETag %q = %d, want %d", etag, got, want)
	}
}

// A page that copies the pinned script tag must get the file it was written for.
func TestDocsPinTheElementByItsHash(t *testing.T) {
	docs, err := os.ReadFile("../docs/browser.md")
	if err != nil {
		t.Fatal(err)
	}
	body, err := bundles.ReadFile("dist/element.js")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384(body)
	for _, want := range []string{
		`integrity="sha384-` + base64.StdEncoding.EncodeToString(sum[:]) + `"`,
		"/client/" + clientVersion() + "/element.js",
	} {
		if !strings.Contains(string(docs), want) {
			t.Errorf("docs/browser.md lacks %s", want)
		}
	}
}
