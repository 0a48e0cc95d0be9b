# make dev     the whole product on this machine, nothing to install
# make test    installs what it lacks (apt), then runs every check and test
# make client  the browser client, after a change of its source
# make lint fuzz bench build   what they say
GO     ?= go
TOOL    = $(GO) tool -modfile=tools/go.mod
FUZZ   ?= 30s
SOURCES = $(shell git ls-files '*.go')

.PHONY: dev build client test lint setup fuzz bench

dev:
	$(GO) run . dev

build:
	$(GO) build -trimpath -o bin/pepay-gateway .

# The browser client: built into web/dist, and as a package that npm installs.
client:
	$(GO) generate ./web
	web/pack.sh bin

# The race detector is on, the order of tests is shuffled, nothing is skipped.
test: setup lint
	$(GO) test -race -shuffle=on -timeout 9m ./...

lint:
	@unformatted="$$($(TOOL) gofumpt -l $(SOURCES))"; \
	if [ -n "$$unformatted" ]; then echo "gofumpt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	cd web && npx --no-install tsc -p client

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
