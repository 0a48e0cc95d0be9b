# make dev     the whole product on this machine, nothing to install
# make test    installs what it lacks (apt), then runs every check and test
# make screenshots   pictures of the pages, into screenshots/
# make lint fuzz bench build   what they say
GO     ?= go
TOOL    = $(GO) tool -modfile=tools/go.mod
FUZZ   ?= 30s
SOURCES = $(shell git ls-files '*.go')

.PHONY: dev build test lint setup fuzz bench screenshots

dev:
	$(GO) run . dev

build:
	$(GO) build -trimpath -o bin/pepay-gateway .

# The race detector is on, the order of tests is shuffled, nothing is skipped.
test: setup lint
	$(GO) test -race -shuffle=on -timeout 9m ./...

lint:
	@unformatted="$$($(TOOL) gofumpt -l $(SOURCES))"; \
	if [ -n "$$unformatted" ]; then echo "gofumpt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

setup:
	@tools/setup.sh

# Every fuzz target for FUZZ each, one after the other.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ) $$pkg; \
	  done; done

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# The two in docs/images are ops-light.png and storefront-light.png.
screenshots: setup
	cd web && node screenshots.mjs ../screenshots
