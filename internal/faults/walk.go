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

// survived is how long a worker lives, with batches, that comes by no place any more.
const survived = 1500 * time.Millisecond

// A walk dies at every crash place once. A process is armed with all the places that are left, so it
// dies at the first that it comes by, and the next start gets further. What the roles do not come by in
// everyday life is brought about by scenes.
type walk struct {
	brief bool     // everyday life only
	l     *life    // that is walked through
	stray []*event // that fit only when the definitions have changed

	mu     sync.Mutex // guards what follows
	left   []string   // places that nothing has died at
	since  time.Time  // when the worker began or died last
	walked int        // batches that survived in a row
}

func newWalk(brief bool) *walk {
	w := &walk{brief: brief}
	for _, place := range crash.Places {
		if _, ok := unreachable()[place]; !ok {
			w.left = append(w.left, place)
		}
	}
	return w
}

// enter lets worker and batches of a life die, or one of them.
func (w *walk) enter(l *life, speed, batch bool) {
	w.l = l
	l.speed.arming(nil, nil)
	l.batch.arming(nil, nil)
	if speed {
		l.speed.arming(func() string { return w.arm("speed") }, func(said string, by syscall.Signal) { w.died("speed", said, by) })
	}
	if batch {
		l.batch.arming(func() string { return w.arm("batch") }, func(said string, by syscall.Signal) { w.died("batch", said, by) })
	}
	_ = l.speed.signal(syscall.SIGTERM) // if it is not running, it will be, armed or not
}

// arm is what the next run of a role dies at.
func (w *walk) arm(role string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if role == "speed" {
		w.since = time.Now()
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
	w.left = slices.DeleteFunc(w.left, func(p string) bool { return p == place })
	pkg, _, _ := strings.Cut(place, ".")
	w.l.tally.count(fmt.Sprintf("%s dies in %s.*", role, pkg))
}

// remain are those of some places that nothing has died at.
func (w *walk) remain(places ...string) (left []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, place := range places {
		if slices.Contains(w.left, place) {
			left = append(left, place)
		}
	}
	return left
}

// through goes through everyday life and all scenes, and compares after each. It reports whether the
// life can go on.
func (w *walk) through(ctx context.Context, l *life) (bool, error) {
	w.enter(l, true, true)
	if ok, err := w.scene(ctx, scene{name: "everyday life", do: (*walk).idle}); err != nil || !ok {
		return false, err
	}
	for _, s := range scenes() {
		if w.brief || len(w.remain(s.places...)) == 0 {
			continue
		}
		if ok, err := w.scene(ctx, s); err != nil || !ok {
			return ok, err
		}
	}
	w.enter(l, false, false)
	return l.check(ctx, true)
}

func (w *walk) scene(ctx context.Context, s scene) (bool, error) {
	l := w.l
	l.tally.begin("scene: " + s.name)
	attempt, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.do(w, attempt); err != nil {
		if ended := l.ended(ctx); ended != nil {
			return false, ended
		}
		l.tally.note(func(e *entry) { e.notHealed++ })
		l.tally.say("  NOT HEALED: %s: %v", s.name, err)
		return false, nil
	}
	took, err := l.level(attempt)
	if err != nil {
		return false, fmt.Errorf("%s: %w", s.name, err)
	}
	l.tally.recovered(took, later)
	ok, err := l.check(ctx, false)
	l.tally.say("%s: %d places are left %s", s.name, len(w.remain(crash.Places[:]...)), strings.Join(w.remain(s.places...), ", "))
	return ok, err
}

// idle waits until worker and batches come by no place any more.
func (w *walk) idle(ctx context.Context) error {
	for {
		w.l.batch.hurry()
		w.mu.Lock()
		over := w.walked >= 3 && time.Since(w.since) > survived
		w.mu.Unlock()
		if over {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the roles die again and again, or do not run: %w", err)
		}
	}
}

// met waits until something has died at all of the places; if they are not met in time, the end of the
// walk says so. With hurry batches run without pause.
func (w *walk) met(ctx context.Context, hurry bool, places ...string) error {
	return w.within(ctx, 25*time.Second, hurry, places...)
}

func (w *walk) within(ctx context.Context, patience time.Duration, hurry bool, places ...string) error {
	for end := time.Now().Add(patience); time.Now().Before(end) && len(w.remain(places...)) > 0; {
		if hurry {
			w.l.batch.hurry()
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// run runs a command again and again, armed with all that is left, until it survives.
func (w *walk) run(ctx context.Context, args ...string) (string, error) {
	for {
		out, err := w.l.command(ctx, w.arm(args[0]), args...)
		if err == nil || !strings.Contains(err.Error(), syscall.SIGKILL.String()) || ctx.Err() != nil {
			return out, err
		}
		w.died(args[0], out, syscall.SIGKILL)
	}
}

// end says which places nothing came by. Each is a failure.
func (w *walk) end(t *tally) {
	for place, why := range unreachable() {
		t.say("%s: %s", place, why)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.left) > 0 && !w.brief {
		t.begin("not reached")
		t.note(func(e *entry) { e.times--; e.notMet += len(w.left) })
		t.say("NOT REACHED: no process came by %s", strings.Join(w.left, ", "))
	}
}
