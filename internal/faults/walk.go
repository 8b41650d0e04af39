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

// places are the crash places that nothing has died at. All lives share them.
type places struct {
	mu   sync.Mutex // guards left
	left []string
}

func newPlaces() *places {
	p := &places{}
	for _, place := range crash.Places {
		if _, ok := unreachable()[place]; !ok {
			p.left = append(p.left, place)
		}
	}
	return p
}

// arm is what a process dies at.
func (p *places) arm() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.left, ",")
}

func (p *places) strike(place string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = slices.DeleteFunc(p.left, func(q string) bool { return q == place })
}

// remain are those of some places that nothing has died at.
func (p *places) remain(places ...string) (left []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, place := range places {
		if slices.Contains(p.left, place) {
			left = append(left, place)
		}
	}
	return left
}

// everyday are the places that no scene is there for.
func everyday() []string {
	return slices.DeleteFunc(slices.Clone(crash.Places[:]), func(place string) bool {
		return slices.ContainsFunc(slices.Concat(scenes(), historyScenes(), trimScenes()), func(s scene) bool { return slices.Contains(s.places, place) })
	})
}

// end says which places nothing came by. Each is a failure.
func (p *places) end(t *tally) {
	for place, why := range unreachable() {
		t.say("%s: %s", place, why)
	}
	if left := p.remain(crash.Places[:]...); len(left) > 0 {
		t.begin("not reached")
		t.note(func(e *entry) { e.times--; e.notMet += len(left) })
		t.say("NOT REACHED: no process came by %s", strings.Join(left, ", "))
	}
}

// A walk dies, in one life, at every crash place that is left. A process is armed with all of them, so it
// dies at the first that it comes by, and the next start gets further. What the roles do not come by in
// everyday life is brought about by scenes.
type walk struct {
	*places
	l      *life
	stray  []*event // that fit only when the definitions have changed
	strays int      // how often there were some
	notes  int      // fields that a type was widened by
	extras int      // types that were added
	groups int      // imports of many groups

	mu     sync.Mutex // guards what follows
	since  time.Time  // when the worker began or died last
	walked int        // batches that survived in a row
}

// enter lets worker and batches die, or one of them, or none.
func (w *walk) enter(speed, batch bool) {
	w.l.speed.arming(nil, nil)
	w.l.batch.arming(nil, nil)
	if speed {
		w.l.speed.arming(w.begin, func(said string, by syscall.Signal) { w.died("speed", said, by) })
	}
	if batch {
		w.l.batch.arming(w.arm, func(said string, by syscall.Signal) { w.died("batch", said, by) })
	}
	_ = w.l.speed.signal(syscall.SIGTERM) // if it is not running, it will be, armed or not
}

// begin is what the next run of the worker dies at.
func (w *walk) begin() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	return w.arm()
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
	w.strike(place)
	pkg, _, _ := strings.Cut(place, ".")
	w.l.tally.count(fmt.Sprintf("%s dies in %s.*", role, pkg))
}

// through goes through everyday life and some scenes, and compares after each. It reports whether the
// life can go on.
func (w *walk) through(ctx context.Context, scenes []scene) (bool, error) {
	w.enter(true, true)
	if ok, err := w.scene(ctx, scene{name: "everyday life", do: (*walk).idle}); err != nil || !ok {
		return false, err
	}
	for _, s := range scenes {
		if len(w.remain(s.places...)) == 0 {
			continue
		}
		if ok, err := w.scene(ctx, s); err != nil || !ok {
			return ok, err
		}
	}
	if len(w.remain(everyday()...)) > 0 {
		if ok, err := w.scene(ctx, scene{name: "everyday life", do: (*walk).idle}); err != nil || !ok {
			return false, err
		}
	}
	w.enter(false, false)
	return w.l.check(ctx, true)
}

// attempts is how often a scene is played: a process that dies elsewhere may end it before its place.
const attempts = 3

func (w *walk) scene(ctx context.Context, s scene) (bool, error) {
	l := w.l
	l.tally.begin("scene: " + s.name)
	attempt, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for n := 0; n == 0 || n < attempts && len(w.remain(s.places...)) > 0; n++ {
		if err := s.do(w, attempt); err != nil {
			if ended := l.ended(ctx); ended != nil {
				return false, ended
			}
			l.tally.failed("%s: %v", s.name, err)
			return false, nil
		}
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

// met waits until something has died at all of the places, or it is time to bring them about once more.
// With hurry batches run without pause.
func (w *walk) met(ctx context.Context, hurry bool, places ...string) error {
	return w.within(ctx, 12*time.Second, hurry, places...)
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
		out, err := w.l.command(ctx, w.arm(), args...)
		if err == nil || !strings.Contains(err.Error(), syscall.SIGKILL.String()) || ctx.Err() != nil {
			return out, err
		}
		w.died(args[0], out, syscall.SIGKILL)
	}
}
