package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

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
	w := &walk{}
	if p.places {
		w = newWalk(p.brief)
		defer w.end(t)
	}
	for number, done := 1, 0; done < p.n || number == 2 && !w.brief && len(w.remain(trims()...)) > 0; number++ {
		home := filepath.Join(dir, fmt.Sprintf("life-%d", number))
		horizon := wholeHorizon
		if number%2 == 0 {
			horizon = trimmedHorizon
		}
		var walked *walk
		if p.places && number == 1 {
			walked = w
		}
		l, err := newLife(ctx, home, bin, p.seed+uint64(number)<<32, pc, t, horizon, hand.disks, walked)
		if err != nil {
			return errors.Join(fmt.Errorf("begin life %d: %w", number, err), l.disks.close())
		}
		t.say("life %d in %s, duplicates are found within %s", number, home, horizon)
		bad := t.violations()
		n, err := l.live(ctx, hand, p.n-done, w)
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

// live goes through faults until the life is over, and returns how many there were. The first life is
// walked through before; in the second the log is trimmed, at the places of which the worker dies meanwhile.
func (l *life) live(ctx context.Context, hand *deck, n int, w *walk) (done int, err error) {
	began := time.Now()
	if err := l.importSome(ctx); err != nil {
		return 0, err
	}
	if w.l == l {
		if ok, err := w.through(ctx, l); err != nil || !ok {
			return 0, err
		}
	}
	trimming := l.horizon == trimmedHorizon && !w.brief && len(w.remain(trims()...)) > 0
	if trimming {
		w.enter(l, true, false)
	}
	for n = min(n, l.pace.perLife); done < n && time.Since(began) < lifeTime && context.Cause(l.ctx) == nil; {
		f := hand.draw()
		done++
		if ok, err := l.suffer(ctx, f, done%l.pace.exactEvery == 0 || f.heavy || done == n); err != nil || !ok {
			return done, err
		}
	}
	if trimming && context.Cause(l.ctx) == nil {
		if err := w.met(ctx, true, trims()...); err != nil {
			return done, err
		}
		w.enter(l, false, false)
		if _, err := l.check(ctx, true); err != nil {
			return done, err
		}
	}
	return done, context.Cause(l.ctx)
}

// trims are the places that only a process comes by that trims the log.
func trims() []string { return []string{"eventlog.trim-decided", "eventlog.trimmed"} }

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
