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
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
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
	t := newTally(out)
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
	err = p.lives(ctx, dir, bin, t)
	ok = t.print() && err == nil
	if ok && p.dir == "" {
		return ok, os.RemoveAll(dir)
	}
	if !ok {
		fmt.Fprintf(out, "everything is kept in %s; repeat with: %s\n", dir, p.repeat())
	}
	return ok, err
}

// lives lives as many lives as the faults need. In every second one the horizon of duplicates is short
// and the log is trimmed.
func (p *plan) lives(ctx context.Context, dir, bin string, t *tally) error {
	hand, err := newDeck(rand.New(rand.NewPCG(p.seed, 0)), p.only, t)
	if err != nil {
		return err
	}
	pc := longPace()
	if p.short {
		pc = shortPace()
	}
	var w *walk
	if p.places {
		w = newWalk()
		defer w.end(t)
	}
	for number, done := 1, 0; done < p.n; number++ {
		home := filepath.Join(dir, fmt.Sprintf("life-%d", number))
		horizon := wholeHorizon
		if number%2 == 0 && hand.trimmable() {
			horizon = trimmedHorizon
		}
		l, err := newLife(ctx, home, bin, p.seed+uint64(number)<<32, pc, t, horizon, hand.disks)
		if err != nil {
			return errors.Join(fmt.Errorf("begin life %d: %w", number, err), l.disks.close())
		}
		t.say("life %d in %s, duplicates are found within %s", number, home, horizon)
		bad := t.violations()
		n, err := l.live(ctx, hand, p.n-done, w, number == 1)
		done += n
		l.summary()
		err = errors.Join(err, l.close())
		if t.violations() > bad || err != nil {
			err = errors.Join(err, l.disks.keep())
		}
		if err = errors.Join(err, l.disks.close()); err != nil {
			return fmt.Errorf("life %d: %w", number, err)
		}
		if t.violations() == bad && p.dir == "" {
			if err := os.RemoveAll(home); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// A life ends before the log is as long as the default horizon: it is never trimmed, and a copy of
	// an event is always known.
	wholeHorizon = 15 * time.Minute
	lifeTime     = 10 * time.Minute

	// With this one most copies come too late to be known, and the log is trimmed once a minute.
	trimmedHorizon = 10 * time.Second
)

// live goes through faults until the life is over, and returns how many there were.
func (l *life) live(ctx context.Context, hand *deck, n int, w *walk, first bool) (done int, err error) {
	began := time.Now()
	if err := l.importSome(ctx); err != nil {
		return 0, err
	}
	if w != nil && first {
		if ok, err := w.roles(ctx, l); err != nil || !ok {
			return 0, err
		}
		if ok, err := w.commands(ctx, l); err != nil || !ok {
			return 0, err
		}
		l.tally.say("crash places: %d are left", len(w.left))
	}
	for n = min(n, l.pace.perLife); done < n && time.Since(began) < lifeTime && context.Cause(l.ctx) == nil; {
		f := hand.draw(l.horizon == trimmedHorizon)
		done++
		if ok, err := l.suffer(ctx, f, done%l.pace.exactEvery == 0 || f.heavy || done == n); err != nil || !ok {
			return done, err
		}
	}
	if w != nil && len(w.left) > 0 && l.horizon == trimmedHorizon && context.Cause(l.ctx) == nil {
		if _, err := w.roles(ctx, l); err != nil { // what a trimmed log alone comes by
			return done, err
		}
	}
	return done, context.Cause(l.ctx)
}

// suffer goes through one fault. It reports whether the life can go on.
func (l *life) suffer(ctx context.Context, f fault, exact bool) (bool, error) {
	l.tally.begin(f.name)
	l.tally.say("%s", f.name)
	if err := l.importSome(ctx); err != nil {
		return false, err
	}
	attempt, cancel := context.WithTimeout(l.ctx, 3*time.Minute)
	defer cancel()
	err := f.do(attempt, l)
	if errors.Is(err, errNotHealed) {
		l.tally.note(func(e *entry) { e.notHealed++ })
		l.tally.say("  NOT HEALED: %v", err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.name, err)
	}
	wait, cancel := context.WithTimeout(l.ctx, giveUp)
	defer cancel()
	took, err := l.level(wait)
	if stopped := l.ended(ctx); stopped != nil {
		return false, stopped
	}
	l.tally.recovered(took, f.promised)
	if err != nil { // what is missing, the comparison finds
		l.tally.say("  %v", err)
	} else if f.promised > 0 && took > f.promised {
		l.tally.say("  level again after %.1f s; promised are %.0f", took.Seconds(), f.promised.Seconds())
	}
	return l.check(l.ctx, exact)
}

// summary says what a life saw.
func (l *life) summary() {
	events, messages, copies, imports := l.ledger.counts()
	answers, failed := l.reader.counts()
	l.tally.say("  %d events in %d messages, %d imports, %d events sent again; %d answers, %d errors, %d batches, worker started %d times",
		events, messages, imports, copies, answers, failed, len(l.batch.finished(0)), l.speed.starts)
	drifted := 0
	for _, o := range l.batch.finished(0) {
		drifted += o.drifted
	}
	if drifted > 0 {
		l.tally.say("  audits found %d drifted groups", drifted)
	}
}
