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
	placesAtOnce = 12              // places of a role between two comparisons
	tooLong      = 4 * time.Second // for a worker to reach its place
)

// An armed role dies at one place after the other: each start is armed with the next.
type armed struct {
	role string

	mu    sync.Mutex // guards what follows
	queue []string
	now   string // the place of the run that is under way
	since time.Time
}

// next is the place of the next run.
func (a *armed) next() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = ""
	if len(a.queue) > 0 {
		a.now, a.queue = a.queue[0], a.queue[1:]
	}
	a.since = time.Now()
	return a.now
}

func (a *armed) set(queue []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = slices.Clone(queue)
}

// state is the place of the present run and how long it has been running; idle: nothing is left.
func (a *armed) state() (now string, since time.Duration, idle bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now, time.Since(a.since), len(a.queue) == 0 && a.now == ""
}

// A walk dies at every crash place once.
type walk struct {
	l     *life
	speed armed
	batch armed

	mu      sync.Mutex        // guards reached
	reached map[string]string // role by place
}

// crashPlaces lets worker and batch die at each place, many back to back, and compares after each
// lot. Places that neither reaches are tried in the commands that write.
func (l *life) crashPlaces(ctx context.Context) (bool, error) {
	w := &walk{l: l, speed: armed{role: "speed"}, batch: armed{role: "batch"}, reached: make(map[string]string)}
	l.speed.died = func(place string, by syscall.Signal) { w.died("speed", place, by) }
	l.batch.died = func(place string, by syscall.Signal) { w.died("batch", place, by) }
	l.speed.arm, l.batch.arm = w.speed.next, w.batch.next
	defer func() { l.speed.arm, l.batch.arm, l.speed.died, l.batch.died = nil, nil, nil, nil }()

	speed, batch := likely("speed"), likely("batch")
	for len(speed)+len(batch) > 0 {
		w.speed.set(take(&speed, w.left))
		w.batch.set(take(&batch, w.left))
		if err := w.lot(ctx); err != nil {
			return false, err
		}
		d, err := l.level(ctx)
		if err != nil {
			l.tally.say("after a lot of crash places: %v", err)
		}
		l.tally.recovered(d, soon)
		if ok, err := l.check(ctx, len(speed)+len(batch) == 0); err != nil || !ok {
			return ok, err
		}
	}
	for _, place := range w.left(crash.Places[:]) {
		if err := w.inCommands(ctx, place); err != nil {
			return false, err
		}
	}
	return l.check(ctx, true)
}

// likely orders the places by how likely a role reaches them.
func likely(role string) []string {
	rank := map[string]map[string]int{
		"speed": {"speed": 0, "history": 1, "durable": 2, "store": 3, "eventlog": 4, "batch": 9},
		"batch": {"batch": 0, "store": 1, "eventlog": 2, "history": 5, "durable": 6, "speed": 9},
	}[role]
	pkg := func(place string) int { name, _, _ := strings.Cut(place, "."); return rank[name] }
	places := slices.DeleteFunc(slices.Clone(crash.Places[:]), func(p string) bool { return pkg(p) == 9 })
	slices.SortStableFunc(places, func(a, b string) int { return pkg(a) - pkg(b) })
	return places
}

// take removes the next lot from a list.
func take(from *[]string, left func([]string) []string) []string {
	*from = left(*from)
	n := min(placesAtOnce, len(*from))
	lot := (*from)[:n]
	*from = (*from)[n:]
	return lot
}

// left are the places not reached yet.
func (w *walk) left(places []string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, p := range places {
		if w.reached[p] == "" {
			out = append(out, p)
		}
	}
	return out
}

// died notes where a process has died. That was our place if nothing else kills just now.
func (w *walk) died(role, place string, by syscall.Signal) {
	if place == "" || by != syscall.SIGKILL {
		return
	}
	w.mu.Lock()
	w.reached[place] = role
	w.mu.Unlock()
	pkg, _, _ := strings.Cut(place, ".")
	w.l.tally.begin(fmt.Sprintf("%s dies at %s.*", role, pkg))
}

// lot waits until both roles are through with what they are armed with.
func (w *walk) lot(ctx context.Context) error {
	if err := w.l.speed.signal(syscall.SIGTERM); err != nil && ctx.Err() != nil {
		return err
	}
	for {
		if _, _, idle := w.batch.state(); !idle {
			w.l.batch.hurry()
		}
		place, since, idle := w.speed.state()
		_, _, batchIdle := w.batch.state()
		if idle && batchIdle {
			return nil
		}
		if place != "" && since > tooLong { // it is not on the worker's way
			_ = w.l.speed.signal(syscall.SIGTERM) // it may have died just now
			if err := pause(ctx, 2*restartAfter); err != nil {
				return err
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// inCommands tries to die at a place in the commands that an operator runs.
func (w *walk) inCommands(ctx context.Context, place string) error {
	l := w.l
	for _, try := range [][]string{{"import", "sale", l.path("import-sale-1.ndjson")}, {"publish", "sale", l.path("import-sale-1.ndjson")}, {"repair"}} {
		out, err := l.command(ctx, place, try...)
		if err != nil && strings.Contains(err.Error(), "killed") {
			w.died(try[0], place, syscall.SIGKILL)
			if _, err := l.persist(ctx, try...); err != nil {
				return fmt.Errorf("%s again after it died at %s: %w: %s", try[0], place, err, out)
			}
			return nil
		}
	}
	l.tally.begin("not reached")
	l.tally.note(func(e *entry) { e.times--; e.notMet++ })
	l.tally.say("  no process came by %s", place)
	return nil
}
