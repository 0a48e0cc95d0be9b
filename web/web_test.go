package web

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func do(h http.Handler, method, target, ifNoneMatch string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	if ifNoneMatch != "" {
		r.Header.Set("If-None-Match", ifNoneMatch)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestSitesServeTheirFilesOnly(t *testing.T) {
	for _, tt := range []struct {
		name, method, path string
		site               http.Handler
		status             int
		contentType        string
	}{
		{"storefront page", "GET", "/", Storefront(), 200, "text/html; charset=utf-8"},
		{"storefront order", "GET", "/order.html", Storefront(), 200, "text/html; charset=utf-8"},
		{"storefront drawing", "GET", "/lamp.svg", Storefront(), 200, "image/svg+xml"},
		{"storefront script", "GET", "/shop.js", Storefront(), 200, "text/javascript; charset=utf-8"},
		{"storefront style", "HEAD", "/style.css", Storefront(), 200, "text/css; charset=utf-8"},
		{"storefront shared", "GET", "/icon.svg", Storefront(), 200, "image/svg+xml"},
		{"storefront unknown", "GET", "/nothing", Storefront(), 404, "text/plain; charset=utf-8"},
		{"storefront directory", "GET", "/storefront/", Storefront(), 404, "text/plain; charset=utf-8"},
		{"storefront parent", "GET", "/../web.go", Storefront(), 404, "text/plain; charset=utf-8"},
		{"storefront post", "POST", "/", Storefront(), 405, "text/plain; charset=utf-8"},
		{"ops page", "GET", "/ops/", Ops(), 200, "text/html; charset=utf-8"},
		{"ops script", "GET", "/ops/app.js", Ops(), 200, "text/javascript; charset=utf-8"},
		{"ops shared", "GET", "/ops/base.css", Ops(), 200, "text/css; charset=utf-8"},
		{"ops library", "GET", "/ops/uPlot.iife.min.js", Ops(), 200, "text/javascript; charset=utf-8"},
		{"ops library's licence", "GET", "/ops/LICENSE", Ops(), 200, "text/plain; charset=utf-8"},
		{"ops root", "GET", "/", Ops(), 404, "text/plain; charset=utf-8"},
		{"ops delete", "DELETE", "/ops/", Ops(), 405, "text/plain; charset=utf-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := do(tt.site, tt.method, tt.path, "")
			if res.StatusCode != tt.status {
				t.Errorf("status = %d, want %d", res.StatusCode, tt.status)
			}
			if got := res.Header.Get("Content-Type"); got != tt.contentType {
				t.Errorf("Content-Type = %q, want %q", got, tt.contentType)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": policy,
				"Referrer-Policy":         "no-referrer",
				"X-Content-Type-Options":  "nosniff",
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestUnchangedFileIsNotSentAgain(t *testing.T) {
	first := do(Storefront(), "GET", "/shop.js", "")
	etag := first.Header.Get("ETag")
	if !regexp.MustCompile(`^"[0-9a-f]{32}"$`).MatchString(etag) {
		t.Fatalf("ETag = %q, want a strong one", etag)
	}
	if got, want := first.Header.Get("Cache-Control"), "no-cache"; got != want {
		t.Errorf("Cache-Control = %q, want %q", got, want)
	}
	again := do(Storefront(), "GET", "/shop.js", etag)
	if got, want := again.StatusCode, http.StatusNotModified; got != want {
		t.Errorf("status with If-None-Match = %d, want %d", got, want)
	}
	other := do(Storefront(), "GET", "/shop.js", `"other"`)
	if got, want := other.StatusCode, http.StatusOK; got != want {
		t.Errorf("status with a foreign If-None-Match = %d, want %d", got, want)
	}
}

// The policy forbids inline script and style, and markup must never be made
// from text.
func TestPagesKeepToTheirPolicy(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|<script(>|[^>]*[^>"]>[^<])|\son[a-z]+=|\sstyle=|javascript:`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	for _, s := range []http.Handler{Storefront(), Ops()} {
		for name, f := range s.(site) {
			if f.contentType == "" {
				t.Errorf("%s has no content type", name)
			}
			if strings.HasPrefix(f.contentType, "text/html") && inline.Match(f.body) {
				t.Errorf("%s has inline code: %q", name, inline.Find(f.body))
			}
			if markup.Match(f.body) {
				t.Errorf("%s makes markup from text: %q", name, markup.Find(f.body))
			}
		}
	}
}
