package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// giveUp is how long answers may stay behind before what is missing counts as lost.
const giveUp = 90 * time.Second

// quiet stops the publishers between two messages, so that what is acknowledged is what was sent.
// It returns what lets them go on.
func (l *life) quiet() (resume func()) {
	for _, p := range l.publishers {
		p.turn.Lock()
	}
	return func() {
		for _, p := range l.publishers {
			p.turn.Unlock()
		}
	}
}

// level waits until every publisher has published something again since the call, and the reader's
// answers show all that was acknowledged by then; it returns the time that took.
func (l *life) level(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for _, p := range l.publishers {
		from, _, _ := p.count()
		for { // the first may have been under way before
			if now, _, _ := p.count(); now >= from+2 {
				break
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return 0, fmt.Errorf("nothing is acknowledged any more: %w", err)
			}
		}
	}
	want := make(map[string]int64)
	for _, p := range l.publishers {
		want[p.eventType] = l.ledger.ackedUpTo(p.eventType, ^uint64(0))
	}
	for {
		if a := l.reader.latest(); a != nil && a.asked.After(began) && l.shows(a, want) {
			return a.at.Sub(began), nil
		}
		l.reader.hurry()
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return 0, fmt.Errorf("answers do not get level: %w; the last error of the endpoint: %v", err, l.reader.why())
		}
	}
}

// shows reports whether an answer has at least so many published events of each type.
func (l *life) shows(a *answer, want map[string]int64) bool {
	marks := a.marks(l.views)
	for _, v := range l.views {
		if !v.all {
			continue
		}
		imported, _ := l.ledger.bounds(v.eventType, 0, marks[v.eventType])
		if a.sum(v.name).n-imported < want[v.eventType] {
			return false
		}
	}
	return true
}

// check compares every group of every view with the recount, with the publishers at rest; if exact,
// once more behind a batch that has healed what could be healed. It reports whether all was equal.
func (l *life) check(ctx context.Context, exact bool) (bool, error) {
	resume := l.quiet()
	defer resume()
	ok, err := l.compare(ctx, "batch and speed together", nil)
	if err != nil || !ok || !exact {
		return ok, err
	}
	wait, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	if err := l.batch.complete(wait); err != nil {
		return false, err
	}
	l.ledger.healed()
	imports := make(map[string]int64)
	for eventType := range l.importGen {
		imports[eventType] = l.ledger.marks(eventType)
	}
	return l.compare(ctx, "behind a batch", imports)
}

// compare asks until nothing is lost; what is there twice is wrong at once.
func (l *life) compare(outer context.Context, what string, imports map[string]int64) (bool, error) {
	ctx, cancel := context.WithTimeout(outer, giveUp)
	defer cancel()
	sql := groupsSQL(l.views)
	missing, reason := int64(1), errors.New("there was no answer") // if there is none at all
	for {
		a, err := ask(ctx, l.endpoint, sql)
		if err == nil {
			marks := a.marks(l.views)
			least, most := l.ledger.recount(l.views, marks)
			d := compare(a.tables, least, most, l.ledger.isWaived())
			for t, n := range marks {
				if n < imports[t] {
					d.lost += imports[t] - n
					d.words = append(d.words, fmt.Sprintf("build %d shows %d of %d imports of %s", a.build, n, imports[t], t))
				}
			}
			if d.double == 0 && d.lost == 0 {
				return true, nil
			}
			if d.double > 0 {
				l.tally.add(double, d.double, fmt.Sprintf("%s, build %d, position %d: %q", what, a.build, a.position, d.words))
				return false, nil
			}
			missing, reason = d.lost, fmt.Errorf("build %d, position %d: %q", a.build, a.position, d.words)
		} else if ctx.Err() == nil {
			reason = err
		}
		if pause(ctx, 150*time.Millisecond) != nil {
			if err := l.ended(outer); err != nil {
				return false, err
			}
			l.tally.add(lost, missing, fmt.Sprintf("%s, after %s: %v", what, giveUp, reason))
			return false, nil
		}
	}
}

// ended is why everything is being stopped; nil: it is not.
func (l *life) ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return context.Cause(l.ctx)
}
