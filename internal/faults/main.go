// Command faults breaks a Watershed in every way that is known, and counts what it loses: nothing, or
// this is a bug.
//
// It starts the real thing as processes of their own (NATS, ClickHouse, worker, batch, endpoint),
// publishes events without pause and keeps its own list of what was acknowledged. At random moments it
// kills, pauses, cuts off, fills up, doubles or destroys something, and lets processes die at each place
// of internal/crash. After each fault all views are compared, group by group, with a recount of the
// list; a reader that asks all through holds every single answer against what it may say. What a
// message names as healing is run, and must heal.
//
//	go run ./internal/faults -n 200 -seed 7
//
// The faults and events follow from the seed; the moments depend on the machine. The exit code is 0 only
// if nothing was lost, nothing counted twice, and no answer mixed two builds.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// A plan is what to do.
type plan struct {
	n      int
	seed   uint64
	short  bool
	places bool
	only   string // faults whose name begins so
	dir    string
	bin    string // built already
}

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var p plan
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&p.n, "n", 200, "random faults")
	f.Uint64Var(&p.seed, "seed", 0, "seed; 0: a new one")
	f.BoolVar(&p.short, "short", false, "pauses of a second instead of up to a minute, and fewer comparisons")
	f.BoolVar(&p.places, "places", true, "die at every crash place too")
	f.StringVar(&p.only, "only", "", "only faults whose name begins so")
	f.StringVar(&p.bin, "bin", "", "a watershed built with -tags crash (default: it is built from this source tree)")
	f.StringVar(&p.dir, "dir", "", "where to keep everything (default: a temporary directory, removed if all is well)")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if p.seed == 0 {
		p.seed = uint64(rand.Uint32()) + 1
	}
	ok, err := p.run(ctx, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "faults:", err)
		return 1
	}
	if !ok {
		return 1
	}
	return 0
}

// repeat is the command that does the same again.
func (p *plan) repeat() string {
	s := fmt.Sprintf("go run ./internal/faults -n %d -seed %d", p.n, p.seed)
	if p.short {
		s += " -short"
	}
	if !p.places {
		s += " -places=false"
	}
	if p.only != "" {
		s += fmt.Sprintf(" -only %q", p.only)
	}
	return s
}

// run does everything and prints the table.
func (p *plan) run(ctx context.Context, out io.Writer) (ok bool, err error) {
	b := newBook(out)
	t := &tally{book: b}
	t.say("repeat with: %s", p.repeat())
	dir := p.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "watershed-faults-"); err != nil {
			return false, err
		}
	}
	bin := p.bin
	if bin == "" {
		bin = filepath.Join(dir, "watershed")
		build := exec.CommandContext(ctx, "go", "build", "-tags", "crash", "-o", bin, "watershed/cmd/watershed")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build watershed: %w: %s", err, text)
		}
		t.say("built")
	}
	err = p.lives(ctx, dir, bin, b)
	ok = b.print() && err == nil
	if ok && p.dir == "" {
		return ok, os.RemoveAll(dir)
	}
	if !ok {
		fmt.Fprintf(out, "everything is kept in %s; repeat with: %s\n", dir, p.repeat())
	}
	return ok, err
}
