package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"watershed/schemas"
)

// ClickHouse is a cache of history and log. Here it is held against what the views rest on, and
// what it has lost is computed again by a batch, without an operator.

const (
	healFirst = 5 * time.Second  // between attempts to rebuild
	healMost  = 10 * time.Minute // likewise
)

// checkStore says what ClickHouse lacks. Views of which something is missing answer with an
// error from then on, until a build is live that has everything; never with a part.
func (a *app) checkStore(ctx context.Context, e *engines) (schemas.Damage, error) {
	cut, ok, err := e.log.LastCut(ctx)
	if err != nil {
		return schemas.Damage{}, err
	}
	damage, err := e.db.Check(ctx)
	if err != nil {
		return damage, err
	}
	batches := ok && cut.Number > 1 // cut 1 begins the log, every other one is a batch's
	switch {
	case damage.All != "" && !batches:
		return schemas.Damage{}, nil // views begin with the log, not with a build
	case damage.None() && damage.Build == 0 && batches:
		damage.All = fmt.Sprintf("it has no build, and the log is at cut %d", cut.Number)
	case damage.None():
		return damage, nil
	}
	for line := range strings.Lines(damage.String()) {
		a.log.Error("ClickHouse lacks what the views rest on; they answer with an error until a batch has computed it again", "missing", strings.TrimSpace(line), "build", damage.Build)
	}
	// If we stop here, the next start finds the same.
	return damage, e.db.Seal(ctx, damage)
}

// heal rebuilds what ClickHouse has lost, until nothing is missing, and looks again whenever the
// worker had to start over. damaged is what a look before the loops began has found.
func (l *loops) heal(ctx context.Context, damaged bool) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = healFirst, healMost
	var seen uint64 // restarts of the worker at the last look
	look := time.NewTicker(trimEvery)
	defer look.Stop()
	for {
		if damaged {
			l.a.log.Info("batch: rebuilding what ClickHouse has lost")
			if _, err := l.batch(ctx); err == nil {
				damaged = false
			}
		}
		restarts := l.worker.Stats().Restarts
		if damaged || restarts != seen {
			if d, err := l.a.checkStore(ctx, l.e); err == nil {
				damaged, seen = !d.None(), restarts
			}
		}
		next := look.C
		var again <-chan time.Time
		if damaged {
			next, again = nil, time.After(pause.NextBackOff())
		} else {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		case <-again:
		}
	}
}
