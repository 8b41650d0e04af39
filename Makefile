# Watershed's targets. `make help` lists them.
SHELL       := /bin/bash
GO          ?= go
BIN         := bin/watershed
ENGINE      := internal/devserver/engine
MODULES     := $(ENGINE)/node_modules
DUCKDB      := cmd/bench/duckdb
VERSION     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
ARGS        ?=
PATTERN     ?= .
FUZZTIME    ?= 60s
BENCHTIME   ?= 1s
N           ?= 200
SEED        ?= 0
EVENTS      ?= 10000000
JSON        ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: bench-batch race bench-speed upgrade help setup build demo test lint bench fuzz faults year model clean go cc

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(MODULES)/.ready $(DUCKDB)/node_modules/.ready ## fetch the ClickHouse library, the demo's flights, and DuckDB for the benchmark (npm)

# The library is an optional dependency, which npm leaves out without a word where it does not
# fit or cannot be had; so look.
$(MODULES)/.ready: $(ENGINE)/package-lock.json $(ENGINE)/package.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js and npm (Debian: apt-get install nodejs npm)" >&2; exit 1; }
	npm ci --prefix $(ENGINE) --no-audit --no-fund --loglevel=error
	@[ -n "$$(find $(MODULES)/@chdb -name libchdb.so 2>/dev/null)" ] || { \
	  echo "npm brought no ClickHouse library: it is there for linux/amd64 with glibc alone, and this is $$(uname -sm). Otherwise see what 'npm ci --prefix $(ENGINE)' says." >&2; exit 1; }
	@touch $@

# DuckDB is 70 MB. (Not npm ci: that refuses a lock file without the libraries for other systems.)
$(DUCKDB)/node_modules/.ready: $(DUCKDB)/package-lock.json $(DUCKDB)/package.json
	npm install --prefix $(DUCKDB) --no-save --no-audit --no-fund --loglevel=error
	@touch $@

go:
	@command -v $(GO) >/dev/null || { echo "go is missing: install Go 1.26 or newer, see https://go.dev/doc/install" >&2; exit 1; }

# The race detector needs a C compiler; nothing else does.
cc:
	@command -v gcc >/dev/null || command -v cc >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "the race detector needs a C compiler: installing gcc" >&2; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev; \
	  else \
	    echo "the race detector needs a C compiler: run 'apt-get install gcc libc6-dev' as root" >&2; exit 1; \
	  fi; }

build: go ## build bin/watershed
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(BIN) ./cmd/watershed

demo: setup build ## three million flights through both layers; stays up afterwards (ARGS=--exit: leaves)
	$(BIN) demo $(ARGS)

# Where goroutines share memory, which the race detector looks at in every run. It makes everything several
# times slower, so the command, whose scripts start dozens of processes, and history, which shares little, are
# looked at by `make race` alone. What takes longest goes first.
RACE := ./batch ./speed ./serving/... ./internal/eventlog ./internal/devserver/... ./internal/faultproxy

# What fills millions of rows from one goroutine runs without the race detector: that has nothing to find there,
# and takes most of a minute for it.
NORACE := ^TestWindowBytes$$

# The pointer checks that come with the race detector end the process where parquet-go, on a damaged
# file, would only panic, which history turns into an error. Garbage is collected more seldom than usual:
# that is a quarter of the work.
#
# Nothing here needs C but the race detector: all else is compiled without it, so that lint, the tests, the
# program that the faults run and the fuzz targets share what is compiled. `make lint` has vetted the code.
test: go cc setup ## every test, on real engines; with the race detector where goroutines share memory
	@dir=$$(mktemp -d -p "$$(internal/devserver/devtest/scratch.sh)" watershed-test.XXXXXX) && trap 'rm -rf "$$dir"' EXIT && \
	  echo "tests write below $$dir" && export GOTMPDIR="$${GOTMPDIR:-$${TMPDIR:-/tmp}}" TMPDIR="$$dir" GOGC=400 && \
	  CGO_ENABLED=1 $(GO) test -vet=off -race -gcflags=all=-d=checkptr=0 -p 3 -timeout 14m -skip '$(NORACE)' $(RACE) && \
	  export CGO_ENABLED=0 && $(GO) test -vet=off -run '$(NORACE)' ./speed && \
	  $(GO) test -vet=off -p 3 -timeout 14m ./internal/faults ./cmd/watershed ./batch/history $$(comm -23 <($(GO) list ./... | sort) <($(GO) list $(RACE) | sort))
	CGO_ENABLED=0 GO=$(GO) FUZZTIME=3s internal/bounded/fuzz.sh

race: go cc setup ## every test with the race detector (half an hour)
	CGO_ENABLED=1 $(GO) test -race -gcflags=all=-d=checkptr=0 -p 3 -timeout 60m ./...

lint: go ## gofmt, go vet, and the import table
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted" >&2; exit 1; }
	CGO_ENABLED=0 GOGC=400 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) test -vet=off ./internal/layout

bench: go setup ## the benchmarks beside the code, each for BENCHTIME (1s)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

bench-batch: go setup ## the batch layer beside ClickHouse and DuckDB: EVENTS (10 M), JSON=FILE, ARGS (docs/bench)
	$(GO) build -o bin/bench ./cmd/bench
	bin/bench --events $(EVENTS) $(if $(JSON),--json '$(JSON)') $(ARGS)

bench-speed: go setup ## producers to views, beside ClickHouse with materialized views: JSON=FILE, ARGS (docs/bench)
	$(GO) build -o bin/bench ./cmd/bench
	bin/bench speed $(if $(JSON),--json '$(JSON)') $(ARGS)

fuzz: go setup ## each fuzz target for FUZZTIME (60s), two at a time; PATTERN chooses some
	CGO_ENABLED=0 GO=$(GO) FUZZTIME=$(FUZZTIME) PATTERN='$(PATTERN)' internal/bounded/fuzz.sh

year: go setup ## a simulated year: 365 nightly batches, and what has grown (docs/YEAR.md)
	$(GO) run ./internal/year $(ARGS)

faults: go setup ## N (200) random faults and every crash place, with nothing lost or counted twice (SEED= repeats)
	$(GO) run ./internal/faults -n $(N) -seed $(SEED) $(ARGS)

# The oldest engine that Watershed runs on, and an older one whose states must still be read.
UPGRADE_FROM        ?= 26.7.0-stable.1
UPGRADE_STATES_FROM ?= 26.5.3

upgrade: go setup ## states of older ClickHouse libraries (fetched into a temporary directory) are read by this one
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	  for v in $(UPGRADE_FROM) $(UPGRADE_STATES_FROM); do \
	    npm install --prefix "$$dir/$$v" --no-audit --no-fund --loglevel=error "@chdb/lib-linux-x64-gnu@$$v" || exit 1; done && \
	  UPGRADE_FROM="$$dir/$(UPGRADE_FROM)" UPGRADE_STATES_FROM="$$dir/$(UPGRADE_STATES_FROM)" \
	    $(GO) test -count=1 -tags upgrade -run 'TestUpgrade' -v ./cmd/watershed

clean: ## remove what was built and fetched
	rm -rf bin $(MODULES) $(DUCKDB)/node_modules

model: ## check the protocol and its seeded bugs with Spin (docs/model)
	@if ! command -v spin >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get install -y spin gcc libc6-dev; fi
	docs/model/run.sh
