package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"watershed/batch"
	"watershed/schemas"
	"watershed/serving/store"
)

// ClickHouse is a cache of history and log. Here it is held against what the views rest on, and
// what it has lost is computed again by a batch, without an operator.

const (
	healFirst = 5 * time.Second  // between attempts to rebuild
	healMost  = 10 * time.Minute // likewise
	healYield = time.Minute      // for a batch that has taken over from ours, the first time
	lookEvery = 5 * time.Second  // at whether the worker had to start over
)

// checkStore says what ClickHouse lacks. Views of which something is missing answer with an
// error from then on, until a build is live that has everything; never with a part.
func (a *app) checkStore(ctx context.Context, e *engines) (schemas.Damage, error) {
	return a.checkAgain(ctx, e, "")
}

// checkAgain is checkStore, but does not tell again what is known.
func (a *app) checkAgain(ctx context.Context, e *engines, known string) (schemas.Damage, error) {
	if err := a.mend(ctx, e); err != nil {
		return schemas.Damage{}, err
	}
	damage, err := a.damage(ctx, e)
	if isDamaged(err) {
		if err = a.mend(ctx, e); err == nil {
			damage, err = a.damage(ctx, e)
		}
	}
	if err != nil || damage.None() {
		return damage, err
	}
	for line := range strings.Lines(damage.String()) {
		if damage.String() == known {
			break
		}
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

// mend renews tables that ClickHouse cannot read any more, if it has said so of one: they count as lost
// from then on. Until somebody writes them again, views that rest on them answer with an error.
func (a *app) mend(ctx context.Context, e *engines) error {
	if suspect, err := e.db.Suspect(ctx); err != nil || !suspect {
		return err
	}
	found, err := e.db.Unreadable(ctx)
	if err != nil || len(found) == 0 {
		return err
	}
	return e.renew(ctx, found)
}

// renew renews damaged tables, with the terms that the log has counted.
func (e *engines) renew(ctx context.Context, found []store.Unreadable) error {
	return e.db.Renew(ctx, found, func(ctx context.Context, role string) (uint64, error) {
		return e.log.Last(ctx, "term."+role)
	})
}

// isDamaged reports whether ClickHouse could not read a table of ours.
func isDamaged(err error) bool {
	var damaged interface{ Damaged() bool }
	return errors.As(err, &damaged) && damaged.Damaged()
}

// mended runs a batch, and once more if it has met a table that ClickHouse cannot read: that is renewed
// before, and what it held is computed again.
func (a *app) mended(ctx context.Context, e *engines, run func() (*batch.Report, error)) (*batch.Report, error) {
	report, err := run()
	if !isDamaged(err) {
		return report, err
	}
	a.log.Error("batch: ClickHouse cannot read a table: it is renewed, and the batch begins again", "error", err)
	if _, lookErr := a.checkStore(ctx, e); lookErr != nil {
		return report, errors.Join(err, lookErr)
	}
	return run()
}

// heal rebuilds what ClickHouse has lost, until nothing is missing. It looks again whenever the
// worker had to start over or ClickHouse could not read a table, and runs a batch too when views wait for one: after a repair has begun
// the log anew, or when the log was trimmed past them. damaged is what a look before the loops
// began has found.
func (l *loops) heal(ctx context.Context, damaged bool) {
	h := newHealing()
	var seen uint64 // restarts of the worker at the last look
	var known string
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = lookEvery
		at := l.worker.Stats()
		if !l.e.db.MetDamage() && (!damaged && at.Restarts == seen && at.Stranded == 0 || l.held(ctx)) {
			continue
		}
		lacking, err := l.lacking(ctx, &known)
		if err != nil {
			l.a.log.Warn("ClickHouse cannot be looked at", "error", err)
			continue
		}
		damaged, seen = lacking, at.Restarts
		switch now := time.Now(); {
		case !damaged:
			h = newHealing()
		case l.held(ctx), l.pinned(ctx):
		case now.Before(h.next):
			wait = min(lookEvery, h.next.Sub(now))
		default:
			l.a.log.Info("batch: computing what views lack")
			report, err := l.batch(ctx) // it has said how it ended; whether it helped, the next look tells
			h.tried(time.Now(), err)
			if err == nil && report.Gated {
				l.hold(ctx, report.Baseline, fmt.Sprintf("the audit of build %d found more drift than --gate lets through: run `watershed batch --gate off`", report.Build))
			}
			wait = 0
		}
	}
}

// A healing says when the next attempt to rebuild may begin.
type healing struct {
	next     time.Time
	failed   *backoff.ExponentialBackOff // pauses after attempts that did not help
	patience time.Duration               // for the batch of somebody else that took over from the last attempt
}

func newHealing() *healing {
	h := &healing{failed: backoff.NewExponentialBackOff(), patience: healYield}
	h.failed.InitialInterval, h.failed.MaxInterval = healFirst, healMost
	return h
}

// tried notes how an attempt ended. Who took over from it is computing the same, and if it was us who had
// taken over from him before, he and we would go on so for as long as both take longer than the other's
// pause: so he gets time, and more of it each time that this happens.
func (h *healing) tried(now time.Time, err error) {
	var f interface{ Fenced() bool }
	if errors.As(err, &f) && f.Fenced() {
		h.next = now.Add(h.patience)
		h.patience = min(2*h.patience, healMost)
		return
	}
	h.next = now.Add(h.failed.NextBackOff())
}

// A hold is why no batch of ours can give views what they lack, as long as nobody changes what is live.
type hold struct {
	live schemas.Live
	why  string // and what ends it
}

// hold says once, here and in the status, what somebody has to decide, unless another build is live already.
func (l *loops) hold(ctx context.Context, build uint64, why string) bool {
	live, err := l.e.db.Live(ctx)
	if err != nil || live.Build != build {
		return false
	}
	l.waits.Store(&hold{live, why})
	l.a.log.Error("views lack something, and no batch can give it to them as things stand", "live", build, "do", why)
	return true
}

// held reports whether what was decided before a hold still stands. A build that is computed meanwhile
// would be kept beside the others and not shown.
func (l *loops) held(ctx context.Context) bool {
	h := l.waits.Load()
	if h == nil {
		return false
	}
	if live, err := l.e.db.Live(ctx); err == nil && live.Flip == h.live.Flip {
		return true
	}
	l.waits.Store(nil)
	return false
}

// pinned holds if a rollback has pinned a build that is still there. (One whose rows are gone is shown by
// no view, and its pin holds nothing.)
func (l *loops) pinned(ctx context.Context) bool {
	live, err := l.e.db.Live(ctx)
	if err != nil || !live.Pinned {
		return false
	}
	if _, err := l.e.db.Build(ctx, live.Build); err != nil {
		return false
	}
	return l.hold(ctx, live.Build, fmt.Sprintf("build %d is pinned by a rollback: run `watershed rollback --release`, and what is missing is computed again", live.Build))
}

// lacking reports whether views lack what only a batch can give them. known is what it has said before.
func (l *loops) lacking(ctx context.Context, known *string) (bool, error) {
	d, err := l.a.checkAgain(ctx, l.e, *known)
	if err != nil && ctx.Err() == nil {
		// The database itself may be gone: opening it makes what is missing of it.
		db, openErr := l.a.openStore(ctx)
		if openErr != nil {
			return false, errors.Join(err, openErr)
		}
		_ = db.Close() // idle connections
		d, err = l.a.checkAgain(ctx, l.e, *known)
	}
	*known = d.String()
	return !d.None() || l.worker.Stats().Stranded > 0, err
}
