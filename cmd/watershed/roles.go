package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"watershed/batch/history"
	"watershed/speed"
)

// loops is the speed role: the worker and the archiver, which share nothing, what keeps the log
// short behind them, and what rebuilds ClickHouse when it has lost something.
//
//	log ──▶ worker ───▶ ClickHouse (states, epoch >= n) ◀── heal (a batch)
//	  ├───▶ archiver ─▶ history (Delta tables) ─────────────┘
//	  └◀─── trimmer (up to what both have)
type loops struct {
	a        *app
	e        *engines
	worker   *speed.Worker
	archiver *history.Archiver
	flushes  *flushMetrics
	trimmer  *trimmer // nil: the log is not trimmed
	damaged  bool     // ClickHouse lacked something before the loops began

	stuck            atomic.Int32         // loops that the log does not fit
	archiverRestarts atomic.Uint64        // times that the archiver started over after an error
	batchFailures    atomic.Uint64        // batches of this process that failed
	waits            atomic.Pointer[hold] // why heal computes nothing; nil: it may
}

// newLoops makes what `up` and `speed` run, and publishes the log's first cut if it has none.
func (a *app) newLoops(ctx context.Context, e *engines) (*loops, error) {
	if err := a.ensureCut(ctx, e); err != nil {
		return nil, err
	}
	damage, err := a.checkStore(ctx, e)
	if err != nil {
		return nil, err
	}
	l, err := a.loopsOf(e)
	if err == nil {
		l.damaged = !damage.None()
	}
	return l, err
}

func (a *app) loopsOf(e *engines) (*loops, error) {
	archiver, err := history.NewArchiver(history.ArchiverConfig{
		Root: a.cfg.History, App: a.appID(), Source: archiverSource(e.log), DeadLetters: e.log, Log: a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("archiver: %w", err)
	}
	cfg := a.cfg.tuning.speed()
	flushes := newFlushMetrics()
	cfg.Logger = a.log
	cfg.Flushed = func(f speed.Flush) {
		e.log.Stored() // requests that wait for a position look at once, and once for all views
		flushes.flushed(f)
	}
	from := speedLog{Log: e.log}
	if cfg.Tracer = a.tracer(); cfg.Tracer != nil {
		from.traced = speed.Traced
	}
	l := &loops{a: a, e: e, archiver: archiver, flushes: flushes, worker: speed.New(from, e.db, cfg)}
	if a.cfg.Trim == trimAuto {
		l.trimmer = newTrimmer(l)
	}
	return l, nil
}

// run runs the loops until ctx ends. One that stops says why and leaves the others running; the
// role ends when worker and archiver have.
func (l *loops) run(ctx context.Context) error {
	forget, err := l.e.log.OnWanted(l.worker.Want)
	if err != nil {
		return err
	}
	defer forget()
	beside, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { l.heal(beside, l.damaged); return nil })
	if l.trimmer != nil {
		g.Go(func() error { l.trimmer.run(beside); return nil })
	}
	errs := make(chan error, 2)
	go func() { errs <- l.ended("speed", l.again(ctx, "speed", l.worker.Run)) }()
	go func() { errs <- l.ended("archiver", l.again(ctx, "archiver", l.archive)) }()
	err = errors.Join(<-errs, <-errs)
	stop()
	return errors.Join(err, g.Wait())
}

const (
	unfitEvery = 10 * time.Second // how often a loop that the log does not fit tries again
	unfitLook  = time.Second      // how often it looks whether the other one is stuck too
)

// again runs a loop. If the log is not the one that it stands in, it says so, and waits for a repair as
// long as the other loop has work; when the log fits neither of them, both end.
func (l *loops) again(ctx context.Context, name string, run func(context.Context) error) error {
	for {
		err := run(ctx)
		if !isLogChanged(err) {
			return err
		}
		l.stuck.Add(1)
		l.a.log.Error(name+": stopped until the log is repaired", "error", err)
		for began := time.Now(); time.Since(began) < unfitEvery; {
			if l.stuck.Load() == 2 {
				return err
			}
			select {
			case <-time.After(unfitLook):
			case <-ctx.Done():
				return nil
			}
		}
		l.stuck.Add(-1)
	}
}

// ended reports the end of one loop while the other goes on.
func (l *loops) ended(name string, err error) error {
	if err != nil && !errors.Is(err, context.Canceled) {
		l.a.log.Error(name+": stopped; the other loop of this process goes on", "error", err)
		return err
	}
	return nil
}

// archive runs the archiver for good. What may pass (the log or the disk away for a time) is
// tried again, from what the tables say; a log that is not the one archived so far is not.
func (l *loops) archive(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 10*time.Second
	for {
		began := time.Now()
		err := l.archiver.Run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case isLogChanged(err):
			return err
		}
		if time.Since(began) > pause.MaxInterval {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		l.archiverRestarts.Add(1)
		l.a.log.Warn("archiver: starting over from the tables", "error", err, "in", wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// isLogChanged reports whether the log is not the one that positions were taken from, or has
// forgotten them.
func isLogChanged(err error) bool {
	var changed interface{ LogChanged() bool }
	return errors.As(err, &changed) && changed.LogChanged()
}

// failing is, by event type, why the archiver does not get on with it.
func (l *loops) failing() map[string]error {
	if l == nil {
		return nil
	}
	return l.archiver.Failing()
}
