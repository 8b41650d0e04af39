package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/speed"
)

// runWorker is the speed role: the worker and the archiver, two loops that share nothing. One
// that stops says why and leaves the other running; the role ends when both have.
//
//	log ──▶ worker ───▶ ClickHouse (states, epoch >= n)
//	  └───▶ archiver ─▶ history (Delta tables)
func (a *app) runWorker(ctx context.Context, worker *speed.Worker, archiver *history.Archiver) error {
	errs := make(chan error, 2)
	go func() { errs <- a.loop("speed", worker.Run(ctx)) }()
	go func() { errs <- a.loop("archiver", a.archive(ctx, archiver)) }()
	return errors.Join(<-errs, <-errs)
}

// loop reports the end of one loop while the other goes on.
func (a *app) loop(name string, err error) error {
	if err != nil && !errors.Is(err, context.Canceled) {
		a.log.Error(name+": stopped; the other loop of this process goes on", "error", err)
		return err
	}
	return nil
}

func (a *app) newWorker(e *engines) *speed.Worker {
	return speed.New(speedLog{e.log}, e.db, speed.Config{Logger: a.log})
}

func (a *app) newArchiver(e *engines) (*history.Archiver, error) {
	return history.NewArchiver(history.ArchiverConfig{
		Root: a.cfg.History, App: a.appID(), Source: archiverSource(e.log), DeadLetters: e.log,
	})
}

// archive runs the archiver for good. What may pass (the log or the disk away for a time) is
// tried again, from what the tables say; a log that is not the one archived so far is not.
func (a *app) archive(ctx context.Context, archiver *history.Archiver) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 10*time.Second
	for {
		began := time.Now()
		err := archiver.Run(ctx)
		var changed *eventlog.LogChangedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &changed):
			return err
		}
		if time.Since(began) > pause.MaxInterval {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		a.log.Warn("archiver: starting over from the tables", "error", err, "in", wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// startWorker is what `up`, `speed` and the demo do before the loops: the first cut.
func (a *app) startWorker(ctx context.Context, e *engines) (*speed.Worker, *history.Archiver, error) {
	if err := a.ensureCut(ctx, e.log); err != nil {
		return nil, nil, err
	}
	archiver, err := a.newArchiver(e)
	if err != nil {
		return nil, nil, fmt.Errorf("archiver: %w", err)
	}
	return a.newWorker(e), archiver, nil
}
