package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"watershed/internal/crash"
)

const (
	placesAtOnce = 12              // deaths between two comparisons
	survived     = 3 * time.Second // a worker that lives so long, with batches, comes by no place any more
)

// A walk dies at every crash place once. A process is armed with all the places that are left, so it
// dies at the first that it comes by, and the next start gets further.
type walk struct {
	l *life // that is walked through

	mu     sync.Mutex // guards what follows
	left   []string   // places that nothing has died at
	deaths int        // since the last comparison
	rest   bool       // nothing is armed for now
	since  time.Time  // when the worker began or died last
	walked int        // batches that survived in a row
}

func newWalk() *walk { return &walk{left: slices.Clone(crash.Places[:])} }

// roles lets worker and batch die in a life, and compares after each lot of deaths. It reports whether
// the life can go on.
func (w *walk) roles(ctx context.Context, l *life) (bool, error) {
	w.l = l
	l.speed.gate.Lock()
	l.speed.arm = func() string { return w.arm("speed") }
	l.speed.died = func(said string, by syscall.Signal) { w.died("speed", said, by) }
	l.speed.gate.Unlock()
	l.batch.gate.Lock()
	l.batch.arm = func() string { return w.arm("batch") }
	l.batch.died = func(said string, by syscall.Signal) { w.died("batch", said, by) }
	l.batch.gate.Unlock()
	defer l.disarm()
	for more := true; more; {
		var err error
		if more, err = w.lot(ctx); err != nil {
			return false, err
		}
		took, err := l.level(ctx)
		if err != nil {
			return false, err
		}
		l.tally.recovered(took, soon)
		if ok, err := l.check(ctx, !more); err != nil || !ok {
			return ok, err
		}
	}
	return true, nil
}

func (l *life) disarm() {
	l.speed.gate.Lock()
	l.speed.arm, l.speed.died = nil, nil
	l.speed.gate.Unlock()
	l.batch.gate.Lock()
	l.batch.arm, l.batch.died = nil, nil
	l.batch.gate.Unlock()
}

// arm is what the next run of a role dies at.
func (w *walk) arm(role string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if role == "speed" {
		w.since = time.Now()
	}
	if w.rest {
		return ""
	}
	return strings.Join(w.left, ",")
}

// died notes where a process has died, by what it said last.
func (w *walk) died(role, said string, by syscall.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	place := ""
	if by == syscall.SIGKILL {
		for line := range strings.Lines(said) {
			if at, ok := strings.CutPrefix(strings.TrimSpace(line), "crash: "); ok {
				place = at
			}
		}
	}
	if place == "" {
		if role == "batch" {
			w.walked++
		}
		return
	}
	w.walked, w.since = 0, time.Now()
	w.deaths++
	w.left = slices.DeleteFunc(w.left, func(p string) bool { return p == place })
	pkg, _, _ := strings.Cut(place, ".")
	w.l.tally.begin(fmt.Sprintf("%s dies in %s.*", role, pkg))
}

// lot lets the roles die some times. It reports whether there may be more.
func (w *walk) lot(ctx context.Context) (more bool, err error) {
	w.mu.Lock()
	w.rest, w.deaths, w.walked = false, 0, 0
	w.mu.Unlock()
	_ = w.l.speed.signal(syscall.SIGTERM) // if it is not running, it will be, and armed
	for {
		w.l.batch.hurry()
		w.mu.Lock()
		enough := w.deaths >= placesAtOnce
		over := w.walked >= 3 && time.Since(w.since) > survived
		w.rest = enough || over
		w.mu.Unlock()
		if over || enough {
			// One that runs is armed still: it dies yet, or is told to begin anew.
			return enough, w.l.speed.stop(syscall.SIGTERM, func() error { return nil })
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return false, err
		}
	}
}

// commands dies in the commands that an operator runs: those that write, and, with the log gone and a
// file damaged, the one that heals. It reports whether the life can go on.
func (w *walk) commands(ctx context.Context, l *life) (bool, error) {
	w.l = l
	again, err := l.knownEvents()
	if err != nil {
		return false, err
	}
	for _, args := range [][]string{{"import", "sale", l.path("import-sale-1.ndjson")}, {"publish", "sale", again}} {
		if out, err := w.run(ctx, args...); err != nil {
			return false, fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	l.healer = w.run
	defer func() { l.healer = l.once }()
	for _, f := range allFaults() {
		if !slices.Contains([]string{"log deleted", "history bit flipped"}, f.name) {
			continue
		}
		if ok, err := l.suffer(ctx, f, true); err != nil || !ok {
			return ok, err
		}
	}
	return true, nil
}

// end says which places nothing came by.
func (w *walk) end(t *tally) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.left) > 0 {
		t.begin("not reached")
		t.note(func(e *entry) { e.times--; e.notMet += len(w.left) })
		t.say("no process came by %s", strings.Join(w.left, ", "))
	}
}

// run runs a command again and again, armed with all that is left, until it survives.
func (w *walk) run(ctx context.Context, args ...string) (string, error) {
	for {
		out, err := w.l.command(ctx, strings.Join(w.left, ","), args...)
		if err == nil || !strings.Contains(err.Error(), syscall.SIGKILL.String()) || ctx.Err() != nil {
			return out, err
		}
		w.died(args[0], out, syscall.SIGKILL)
	}
}
