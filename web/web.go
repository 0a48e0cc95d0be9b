// Package web holds the pages of the gateway, built into the binary: the demo
// storefront of dev, the operations page of the admin listener, and the browser
// client that shops load.
//
// It serves files and nothing else: the APIs that the pages call belong to the
// listener that mounts them.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"time"
)

// policy lets a page load its own files and talk to its own origin, and to
// nobody else. Text can never become markup or code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"

// contentTypes is our own table because the one in mime depends on the machine.
var contentTypes = map[string]string{
	"":      "text/plain; charset=utf-8", // LICENSE
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".mjs":  "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".ts":   "text/plain; charset=utf-8", // declarations, for people to read
}

//go:embed storefront ops shared uplot
var files embed.FS

// Storefront serves the demo storefront at / and its files beside it; every
// other path is 404. It answers GET and HEAD. The handler is safe for
// concurrent use.
func Storefront() http.Handler { return newSite("/", "shared", "storefront") }

// Ops serves the operations page at /ops/ and its files below it; every other
// path is 404. Mount it on "/ops/" without stripping the prefix. It answers GET
// and HEAD. The handler is safe for concurrent use.
func Ops() http.Handler { return newSite("/ops/", "shared", "uplot", "ops") }

// A site is a fixed set of files by URL path. It is never changed once made.
type site map[string]file

type file struct {
	body        []byte
	contentType string
	etag        string
}

// newSite publishes the files of dirs under base, and index.html as base itself.
func newSite(base string, dirs ...string) site {
	s := make(site)
	for _, dir := range dirs {
		entries, err := files.ReadDir(dir)
		if err != nil {
			panic(err) // the directory is embedded: see above
		}
		for _, e := range entries {
			s.add(base, path.Join(dir, e.Name()))
		}
	}
	return s
}

func (s site) add(base, name string) {
	body, err := fs.ReadFile(files, name)
	if err != nil {
		panic(err) // the name came from the same tree
	}
	urlPath := base + path.Base(name)
	if path.Base(name) == "index.html" {
		urlPath = base
	}
	sum := sha256.Sum256(body)
	s[urlPath] = file{body, contentTypes[path.Ext(name)], `"` + hex.EncodeToString(sum[:16]) + `"`}
}

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	f, ok := s[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	f.serve(w, r, "no-cache")
}

// serve answers GET and HEAD.
func (f file) serve(w http.ResponseWriter, r *http.Request, caching string) {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	h.Set("Cache-Control", caching)
	h.Set("Content-Type", f.contentType)
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}
