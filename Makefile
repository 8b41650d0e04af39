# Watershed's targets. `make help` lists them.
SHELL       := /bin/bash
GO          ?= go
BIN         := bin/watershed
ENGINE      := internal/devserver/engine
VERSION     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
FUZZTIME    ?= 60s
BENCHTIME   ?= 1s

.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint bench fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(ENGINE)/node_modules/.ready ## fetch the ClickHouse library and the demo's flights (npm ci)

$(ENGINE)/node_modules/.ready: $(ENGINE)/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js and npm (Debian: apt-get install nodejs npm)" >&2; exit 1; }
	npm ci --prefix $(ENGINE) --no-audit --no-fund --loglevel=error
	@touch $@

build: ## build bin/watershed
	@command -v $(GO) >/dev/null || { echo "go is missing: install Go 1.26 or newer" >&2; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(BIN) ./cmd/watershed

demo: setup build ## three million flights through both layers; stays up afterwards (ARGS=--exit to leave)
	$(BIN) demo $(ARGS)

test: setup ## every test, on real engines, with the race detector
	@command -v gcc >/dev/null || command -v cc >/dev/null || { echo "the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2; exit 1; }
	CGO_ENABLED=1 $(GO) test -race -timeout 10m ./...

lint: ## gofmt, go vet, and the import table
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) test ./internal/layout

bench: setup ## the benchmarks beside the code
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./schemas/... ./internal/decode ./batch/... ./speed

fuzz: setup ## each fuzz target for FUZZTIME (60s)
	@$(GO) list ./... | while read -r pkg; do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

clean: ## remove what was built and fetched
	rm -rf bin $(ENGINE)/node_modules
