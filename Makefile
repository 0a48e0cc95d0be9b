# make dev     the whole product on this machine, nothing to install
# make test    installs what it lacks (apt), then runs every check and test
# make chaos upgrade failover rolling fuzz   proofs that take longer: docs/testing.md
# make mutants removes each rule of the protocol from a copy, and wants a test to notice (NAME=i08: those alone)
# make figures    size of the browser client, and time from the start of dev to an order on the screen
# make client     the browser client, after a change of its source
# make screenshots   pictures of the pages and the element, into screenshots/
# make bench   measures this build beside a bare server, and Nchan where it is installed
# make growth  measures how memory and processor time grow with connections, orders, nodes and the log
# make lint benchmarks build   what they say
GO     ?= go
TOOL    = $(GO) tool -modfile=tools/go.mod
FUZZ   ?= 30s
CLIENTS ?= 3000
SECONDS = 600
SEED    = 1
ROWS    =
SHOPPERS = 100
OLD     = HEAD~1
ROUNDS  = 20
PROVE   = PEPAY_GATEWAY_PROGRAM=$(CURDIR)/bin/pepay-gateway $(GO) test -count=1 -v ./gateway/e2e
RUNS   ?= 3
SOURCES = $(shell git ls-files '*.go')

MUTANTS = $(GO) -C tools run ./mutants -root ..

.PHONY: dev build client test figures lint setup chaos upgrade failover rolling fuzz mutants bench growth benchmarks screenshots

dev:
	$(GO) run . dev

build:
	$(GO) build -trimpath -o bin/pepay-gateway .

# The browser client: built into web/dist, and as a package that npm installs.
client:
	$(GO) generate ./web
	web/pack.sh bin

# The race detector is on, the order of tests is shuffled, nothing is skipped.
# Tests that may run beside others wait more than they work; the longest package
# is first, so that the rest goes beside it.
test: setup lint
	$(GO) test -race -shuffle=on -parallel 5 -timeout 15m ./gateway/e2e ./...
	$(GO) -C tools test ./mutants
	@$(MAKE) --no-print-directory figures

# What a page loads, and how long it is from nothing to an order on the screen.
figures: setup build
	@$(GO) test -count=1 -v -run '^TestClientIsSmall$$' ./web | grep -oE '(pepay-gateway|element)\.m?js: .*'
	@cd web && PROGRAM=$(CURDIR)/bin/pepay-gateway node --test test/live/start.test.mjs | grep -o 'first painted order.*'

lint:
	@unformatted="$$($(TOOL) gofumpt -l $(SOURCES))"; \
	if [ -n "$$unformatted" ]; then echo "gofumpt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) -C tools vet ./mutants
	$(MUTANTS) -check -doc docs/mutants.md
	cd web && npx --no-install tsc -p client

setup:
	@tools/setup.sh

# What follows runs the program as users build it. The race detector is for make
# test: it is slow, and ends at 8,128 goroutines.

# The fault suite.
chaos: setup build
	$(PROVE) -run '^TestChaos$$' -timeout 3h -chaos.seconds $(SECONDS) -chaos.seed $(SEED) -chaos.rows "$(ROWS)" -chaos.shoppers $(SHOPPERS)

# Three nodes rolled from the program of the commit OLD to this one, under load.
upgrade: setup build
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	git archive $(OLD) | tar -x -C "$$dir" && (cd "$$dir" && $(GO) build -o pepay-gateway-old .) && \
	$(PROVE) -run '^TestChaos$$' -timeout 1h -chaos.seconds 60 -chaos.seed $(SEED) -chaos.shoppers $(SHOPPERS) -chaos.old "$$dir/pepay-gateway-old"

# How long news waits when the leader, or Redis's primary, fails.
failover: setup build
	$(PROVE) -run 'FailoverTimes$$' -timeout 1h -failover.rounds $(ROUNDS)

# Three nodes restarted one by one, under CLIENTS clients, behind nginx.
rolling: setup build
	ROLLING_CLIENTS=$(CLIENTS) ROLLING_DRAIN=20s $(PROVE) -run '^TestRollingRestart$$' -timeout 10m

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

# The curves of docs/performance.md: about 10 minutes each run.
growth: build
	bin/pepay-gateway bench --self --runs $(RUNS) growth $(BENCHFLAGS)

# For benchstat.
benchmarks:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# The two in docs/images are ops-light.png and storefront-light.png, the second with
# Debian's fonts-inter installed.
screenshots: setup
	cd web && node screenshots.mjs ../screenshots

mutants:
	$(MUTANTS) -doc docs/mutants.md $(if $(NAME),-name $(NAME))
