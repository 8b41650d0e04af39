package main

import (
	"context"
	"errors"
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
	lookEvery = 5 * time.Second  // at whether the worker had to start over
)

// checkStore says what ClickHouse lacks. Views of which something is missing answer with an
// error from then on, until a build is live that has everything; never with a part.
func (a *app) checkStore(ctx context.Context, e *engines) (schemas.Damage, error) {
	damage, err := a.damage(ctx, e)
	if err != nil || damage.None() {
		return damage, err
	}
	for line := range strings.Lines(damage.String()) {
		a.log.Error("ClickHouse lacks what the views rest on; they answer with an error until a batch has computed it again", "missing", strings.TrimSpace(line), "build", damage.Build)
	}
	// If we stop here, the next start finds the same.
	return damage, e.db.Seal(ctx, damage)
}

// damage says what ClickHouse lacks, and changes nothing.
func (a *app) damage(ctx context.Context, e *engines) (schemas.Damage, error) {
	cut, ok, err := e.log.LastCut(ctx)
	if err != nil {
		return schemas.Damage{}, err
	}
	damage, err := e.db.Check(ctx)
	if err != nil {
		return damage, err
	}
	first, _, err := e.log.OldestCut(ctx)
	if err != nil {
		return damage, err
	}
	batches := ok && cut.Number > 1 // cut 1 begins the log, every other one is a batch's or a repair's
	switch {
	case damage.All != "" && !batches:
		return schemas.Damage{}, nil // views begin with the log, not with a build
	case damage.None() && damage.Build == 0 && batches:
		damage.All = fmt.Sprintf("it has no build, and the log is at cut %d", cut.Number)
	case damage.None() && first.Anew > 0:
		// Speed states begin at this cut, or will when the worker comes to it.
		live, err := e.db.Live(ctx)
		if err != nil || live.Cut >= first.Number {
			return damage, err
		}
		damage.All = fmt.Sprintf("the log was begun anew at cut %d, and build %d stands at cut %d", first.Number, live.Build, live.Cut)
	case damage.None():
		return damage, nil
	}
	return damage, nil
}

// heal rebuilds what ClickHouse has lost, until nothing is missing. It looks again whenever the
// worker had to start over, and runs a batch too when views wait for one: after a repair has begun
// the log anew, or when the log was trimmed past them. damaged is what a look before the loops
// began has found.
func (l *loops) heal(ctx context.Context, damaged bool) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = healFirst, healMost
	var seen uint64 // restarts of the worker at the last look
	for {
		tried := damaged
		if damaged {
			l.a.log.Info("batch: computing what views lack")
			_, _ = l.batch(ctx) // it has said how it ended; whether it helped, the next look tells
		}
		if at := l.worker.Stats(); damaged || at.Restarts != seen || at.Stranded > 0 {
			if lacking, err := l.lacking(ctx); err != nil {
				l.a.log.Warn("ClickHouse cannot be looked at", "error", err)
			} else {
				damaged, seen = lacking, at.Restarts
			}
		}
		wait := lookEvery
		switch {
		case damaged && tried: // it failed, or its build did not go live
			wait = pause.NextBackOff()
		case damaged:
			wait = 0
		default:
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// lacking reports whether views lack what only a batch can give them.
func (l *loops) lacking(ctx context.Context) (bool, error) {
	d, err := l.a.checkStore(ctx, l.e)
	if err != nil && ctx.Err() == nil {
		// The database itself may be gone: opening it makes what is missing of it.
		db, openErr := l.a.openStore(ctx)
		if openErr != nil {
			return false, errors.Join(err, openErr)
		}
		_ = db.Close() // idle connections
		d, err = l.a.checkStore(ctx, l.e)
	}
	return !d.None() || l.worker.Stats().Stranded > 0, err
}
