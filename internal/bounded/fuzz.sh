#!/bin/bash
# Runs every fuzz target for FUZZTIME (5s), two at a time, each package's binary built once.
# Prints a line per target and exits 1 if one failed: its input is then under the package's
# testdata/fuzz, and 'go test -run FuzzX/NAME' runs it again. PATTERN chooses targets.
set -u
cd "$(dirname "$0")/../.." || exit 1
GO=${GO:-go}
export FUZZTIME=${FUZZTIME:-5s} ROOT=$PWD
pattern=${PATTERN:-.}
work=$(mktemp -d) || exit 1
export WORK=$work
trap 'rm -rf "$work"' EXIT
# What inputs of other runs have reached is worth keeping between runs: Go's own cache has it.
CACHE=$($GO env GOCACHE)/fuzz; export CACHE

# Packages that have targets: found in the text, for to list them with go test would build all others.
mapfile -t dirs < <(grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' batch cmd internal schemas serving speed 2>/dev/null | xargs -n1 dirname | sort -u)
for dir in "${dirs[@]}"; do
	binary=$work/${dir//\//_}.test
	grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | grep -E "$pattern" | sed "s#^#$dir $binary #" >"$binary.list"
	[[ -s $binary.list ]] || continue
	# The compiler counts what an input reaches in our code and in the Parquet reader: what `go test -fuzz` would
	# count in every library as well guides little, and would have all of them compiled again.
	$GO test -c -vet=off -gcflags=watershed/...=-d=libfuzzer -gcflags=github.com/parquet-go/...=-d=libfuzzer -ldflags=-w -o "$binary" "./$dir" || exit 1
	cat "$binary.list" >>"$work/targets"
done
[[ -s $work/targets ]] || { echo "no fuzz target matches $pattern" >&2; exit 1; }

run() { # DIR BINARY TARGET
	local log=$WORK/${1//\//_}.$3.log
	cd "$ROOT/$1" || return 1
	# A worker that is slow when the time is up makes Go say "context deadline exceeded", which is no finding:
	# those name an input (go.dev/issue/48157).
	if GOMEMLIMIT=1GiB "$2" -test.run='^$' -test.fuzz="^$3\$" -test.fuzztime="$FUZZTIME" -test.parallel=1 \
		-test.fuzzminimizetime=5s -test.fuzzcachedir="$CACHE/watershed/$1" >"$log" 2>&1 ||
		{ grep -q '^    context deadline exceeded$' "$log" && ! grep -qE 'Failing input|panic:|fatal error:' "$log"; }; then
		printf 'ok    %-18s %-16s %s\n' "$1" "$3" "$(grep -oE 'execs: [0-9]+' "$log" | tail -1)"
	else
		printf 'FAIL  %-18s %s\n' "$1" "$3"
		cat "$log"
		return 1
	fi
}
export -f run
xargs -P2 -L1 bash -c 'run "$@" || exit 1' run <"$work/targets"
