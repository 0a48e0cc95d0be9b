package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"path"
	"strings"
)

//go:generate ./build.sh

//go:embed dist
var bundles embed.FS

//go:embed client/package.json
var clientPackage []byte

const (
	// immutable is for addresses that name a version, whose files never change.
	immutable = "public, max-age=31536000, immutable"
	// shortly is for the newest of version 1: pages follow a fix within minutes.
	shortly = "public, max-age=300"
)

// Client serves the browser client below /client/: the files of this version
// under /client/<x.y.z>/, and again under /client/v1/. Every origin may load
// them. It answers GET and HEAD. The handler is safe for concurrent use.
func Client() http.Handler {
	entries, err := bundles.ReadDir("dist")
	if err != nil {
		panic(err) // the directory is embedded: see above
	}
	files := make(map[string]file, len(entries))
	for _, e := range entries {
		body, err := bundles.ReadFile("dist/" + e.Name())
		if err != nil {
			panic(err) // the name came from the same tree
		}
		sum := sha256.Sum256(body)
		files[e.Name()] = file{body, contentTypes[path.Ext(e.Name())], `"` + hex.EncodeToString(sum[:16]) + `"`}
	}
	version := clientVersion()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		dir, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/client/"), "/")
		f, ok := files[name]
		switch {
		case ok && dir == version:
			f.serve(w, r, immutable)
		case ok && dir == "v1":
			f.serve(w, r, shortly)
		default:
			http.NotFound(w, r)
		}
	})
}

// clientVersion is the version of the browser client.
func clientVersion() string {
	var p struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(clientPackage, &p); err != nil || p.Version == "" {
		panic("web: client/package.json has no version") // it is embedded, and tested
	}
	return p.Version
}
