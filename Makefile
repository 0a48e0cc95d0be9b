# make dev     the whole product on this machine, nothing to install
# make test    installs what it lacks (apt), then runs every check and test
# make mutants removes each rule of the protocol from a copy, and wants a test to notice (NAME=i08: those alone)
# make lint fuzz bench build   what they say
GO     ?= go
TOOL    = $(GO) tool -modfile=tools/go.mod
FUZZ   ?= 30s
SOURCES = $(shell git ls-files '*.go')

MUTANTS = $(GO) -C tools run ./mutants -root ..

.PHONY: dev build test lint setup fuzz bench mutants

dev:
	$(GO) run . dev

build:
	$(GO) build -trimpath -o bin/pepay-gateway .

# The race detector is on, the order of tests is shuffled, nothing is skipped.
test: setup lint
	$(GO) test -race -shuffle=on -timeout 9m ./...
	$(GO) -C tools test ./mutants

lint:
	@unformatted="$$($(TOOL) gofumpt -l $(SOURCES))"; \
	if [ -n "$$unformatted" ]; then echo "gofumpt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) -C tools vet ./mutants
	$(MUTANTS) -check -doc docs/mutants.md

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

mutants:
	$(MUTANTS) -doc docs/mutants.md $(if $(NAME),-name $(NAME))
