package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// A lane is a row of lives, one after the other. There are two lanes, so that one does something while the
// other waits. In every second life of a lane the horizon of duplicates is short and the log is trimmed.
type lane struct {
	*plan
	number int
	dir    string
	bin    string
	pace   pace
	disks  bool
	hand   []fault // that the lives go through
	places *places // nil: none is died at
	tally  *tally
}

// last is the lane of the lives that are lived, behind all others, if there are places left that nothing has
// died at: processes that died elsewhere, again and again, were in the way.
const last = 3

// lives deals the faults to the lanes and lets them live.
func (p *plan) lives(outer context.Context, dir, bin string, b *book) error {
	all := &tally{book: b}
	hand, err := newDeck(rand.New(rand.NewPCG(p.seed, 0)), p.only, all)
	if err != nil {
		return err
	}
	faults := hand.draw(p.n)
	pc, first := longPace(), (p.n+1)/2
	if p.short {
		pc = shortPace()
	}
	var left *places
	if p.places {
		left = newPlaces()
		defer left.end(all)
		first = p.n / 4 // most scenes are the first lane's
	}
	g, ctx := errgroup.WithContext(outer)
	for i, share := range [][]fault{faults[:first], faults[first:]} {
		l := &lane{plan: p, number: i + 1, dir: dir, bin: bin, pace: pc, disks: hand.disks, hand: share, places: left, tally: &tally{book: b, lane: i + 1}}
		g.Go(func() error { return l.run(ctx) })
	}
	err = g.Wait()
	if err == nil && p.places {
		err = (&lane{plan: p, number: last, dir: dir, bin: bin, pace: pc, disks: hand.disks, places: left, tally: &tally{book: b, lane: last}}).run(outer)
	}
	return err
}

// scenes are those of a life of the lane.
func (n *lane) scenes(life int) []scene {
	switch {
	case n.places == nil:
	case life == 2 && n.number > 1:
		return trimScenes()
	case life == 1 && n.number == 1:
		return scenes()
	case life == 1 && n.number == 2:
		return historyScenes()
	case life == 1:
		return slices.Concat(scenes(), historyScenes())
	}
	return nil
}

// due reports whether there is something to do in a life.
func (n *lane) due(life int) bool {
	left := func(s scene) bool { return len(n.places.remain(s.places...)) > 0 }
	return len(n.hand) > 0 || slices.ContainsFunc(n.scenes(life), left) || n.number == last && life == 1 && len(n.places.remain(everyday()...)) > 0
}

func (n *lane) run(ctx context.Context) error {
	for number := 1; number <= 2 || len(n.hand) > 0; number++ {
		if !n.due(number) {
			continue
		}
		if err := n.life(ctx, number); err != nil {
			return fmt.Errorf("life %d of lane %d: %w", number, n.number, err)
		}
	}
	return nil
}

// life lives one life.
func (n *lane) life(ctx context.Context, number int) error {
	home := filepath.Join(n.dir, fmt.Sprintf("life-%d.%d", n.number, number))
	horizon := wholeHorizon
	if number%2 == 0 {
		horizon = trimmedHorizon
	}
	w, scenes := &walk{places: n.places}, n.scenes(number)
	var fromStart *walk
	if len(scenes) > 0 && n.number != 2 {
		fromStart = w
	}
	seed := n.seed + uint64(number)<<32 + uint64(n.number)<<48
	l, err := newLife(ctx, home, n.bin, seed, n.pace, n.tally, horizon, n.disks, fromStart)
	if err != nil {
		return errors.Join(fmt.Errorf("it does not begin: %w", err), l.disks.close())
	}
	w.l = l
	n.tally.say("life %d in %s, duplicates are found within %s", number, home, horizon)
	bad := n.tally.failures()
	err = n.live(ctx, l, w, scenes)
	l.summary()
	err = errors.Join(err, l.close())
	bad = n.tally.failures() - bad
	if bad > 0 || err != nil {
		err = errors.Join(err, l.disks.keep())
	}
	if err = errors.Join(err, l.disks.close()); err == nil && bad == 0 && n.plan.dir == "" {
		err = os.RemoveAll(home)
	}
	return err
}

// longest is the time for the start of a life, a fault or a scene on a machine with much else to do.
const longest = 8 * time.Minute

const (
	// A life ends before the log is as long as the default horizon: it is never trimmed, and a copy of
	// an event is always known.
	wholeHorizon = 15 * time.Minute
	lifeTime     = 10 * time.Minute

	// With this one most copies come too late to be known, and the log is trimmed once a minute.
	trimmedHorizon = 10 * time.Second
)

// live goes through the scenes, and then through faults until the life is over.
func (n *lane) live(ctx context.Context, l *life, w *walk, scenes []scene) error {
	began := time.Now()
	if err := l.importSome(ctx); err != nil {
		return err
	}
	if len(scenes) > 0 {
		if ok, err := w.through(ctx, scenes); err != nil || !ok {
			return err
		}
	}
	for done := 1; done <= l.pace.perLife && len(n.hand) > 0 && time.Since(began) < lifeTime && context.Cause(l.ctx) == nil; done++ {
		f := n.hand[0]
		n.hand = n.hand[1:]
		if ok, err := l.suffer(ctx, f, done%l.pace.exactEvery == 0 || f.heavy || done == l.pace.perLife || len(n.hand) == 0); err != nil || !ok {
			return err
		}
	}
	return context.Cause(l.ctx)
}

// suffer goes through one fault. It reports whether the life can go on.
func (l *life) suffer(ctx context.Context, f fault, exact bool) (bool, error) {
	l.tally.begin(f.name)
	l.tally.say("%s", f.name)
	if err := l.importSome(ctx); err != nil {
		return false, err
	}
	attempt, cancel := context.WithTimeout(l.ctx, longest)
	defer cancel()
	err := f.do(attempt, l)
	if errors.Is(err, errNotHealed) {
		l.tally.failed("%v", err)
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
	if err != nil { // what is missing, the comparison finds
		l.tally.say("  %v", err)
	}
	if !f.measured {
		l.recovered(took, f.promised)
	}
	return l.check(l.ctx, exact)
}

// recovered notes how long it took to be level again.
func (l *life) recovered(took, promised time.Duration) {
	l.tally.recovered(took, promised)
	if promised > 0 && took > promised {
		l.tally.say("  level again after %.1f s; promised are %.0f", took.Seconds(), promised.Seconds())
	}
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
