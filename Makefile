# make dev     the whole product on this machine, nothing to install
# make test    installs what it lacks (apt), then runs every check and test
# make rolling restarts three nodes one by one, under CLIENTS clients, behind nginx
# make bench   measures this build beside a bare server, and Nchan where it is installed
# make lint fuzz benchmarks build   what they say
GO     ?= go
TOOL    = $(GO) tool -modfile=tools/go.mod
FUZZ   ?= 30s
CLIENTS ?= 3000
RUNS   ?= 3
SOURCES = $(shell git ls-files '*.go')

.PHONY: dev build test lint setup rolling fuzz bench benchmarks

dev:
	$(GO) run . dev

build:
	$(GO) build -trimpath -o bin/pepay-gateway .

# The race detector is on, the order of tests is shuffled, nothing is skipped.
# Tests that may run beside others wait more than they work.
test: setup lint
	$(GO) test -race -shuffle=on -parallel 8 -timeout 9m ./...

lint:
	@unformatted="$$($(TOOL) gofumpt -l $(SOURCES))"; \
	if [ -n "$$unformatted" ]; then echo "gofumpt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

setup:
	@tools/setup.sh

# Figures of a rolling restart. Without the race detector, which is for few clients.
rolling: setup
	ROLLING_CLIENTS=$(CLIENTS) ROLLING_DRAIN=20s $(GO) test -count=1 -v -run '^TestRollingRestart$$' -timeout 10m ./gateway/e2e

# Every fuzz target for FUZZ each, one after the other.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ) $$pkg; \
	  done; done

# The table of docs/performance.md: medians of RUNS runs, about 12 minutes each.
bench: build
	bin/pepay-gateway bench --self --runs $(RUNS) \
	  $$(test -e /usr/lib/nginx/modules/ngx_nchan_module.so && echo --nchan) $(BENCHFLAGS)

# For benchstat.
benchmarks:
	$(GO) test -run '^$$' -bench . -benchmem ./...
