package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/internal/devserver"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
	"watershed/speed"
)

const (
	database = "watershed"
	app      = "watershed/WATERSHED/0"
	// logBytes is far less than a year takes: without trimming, the log would refuse within weeks.
	logBytes = 1 << 20
	patience = time.Minute
)

// Config says how long and how large the simulation is.
type Config struct {
	Dir       string // where everything is kept
	Days      int
	Every     int // days from one measurement to the next
	PerDay    int // events
	Seed      uint64
	Horizon   time.Duration // stretch of log in which the speed layer finds duplicates
	Retention time.Duration // of replaced files of history
	Logger    *slog.Logger
	Measured  func(Sample) // called after each measurement; may be nil
}

// A world is Watershed on its engines.
type world struct {
	cfg    Config
	nats   *devserver.NATS
	server *devserver.ClickHouse
	log    *eventlog.Log
	db     *store.DB
	defs   *schemas.Set
	plans  []*view.Plan

	archiver *history.Archiver
	stop     context.CancelFunc // of the loops
	loops    *errgroup.Group
}

// Simulate runs so many days and holds the answers against a recount, at every measurement and at the end.
func Simulate(ctx context.Context, cfg Config) (result *Result, err error) {
	w := &world{cfg: cfg}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.open(ctx); err != nil {
		return nil, err
	}
	g := newGenerator(cfg.Seed)
	result = &Result{Config: cfg}
	began := time.Now()
	var batches time.Duration
	since := 0
	for day := 1; day <= cfg.Days; day++ {
		took, err := w.day(ctx, g)
		if err != nil {
			return nil, fmt.Errorf("day %d: %w", day, err)
		}
		batches += took
		since++
		if day%cfg.Every != 0 && day != cfg.Days {
			continue
		}
		groups, err := recount(ctx, w.server, g)
		if err != nil {
			return nil, fmt.Errorf("day %d: %w", day, err)
		}
		s, err := w.measure(ctx, g)
		if err != nil {
			return nil, fmt.Errorf("day %d: %w", day, err)
		}
		s.Day, s.Since, s.Groups = day, time.Since(began), groups
		s.Values[batchSeconds] = batches.Seconds() / float64(since)
		batches, since = 0, 0
		result.Samples = append(result.Samples, s)
		if cfg.Measured != nil {
			cfg.Measured(s)
		}
	}
	result.Events, result.Took = int(g.next), time.Since(began)
	return result, nil
}

// day publishes a day's events, runs the nightly batch, and what follows it.
func (w *world) day(ctx context.Context, g *generator) (time.Duration, error) {
	for _, m := range g.day(w.cfg.PerDay) {
		if _, err := w.log.Publish(ctx, m.typ, []byte(m.payload), ""); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	report, err := batch.Run(ctx, w.log, w.db, batch.Config{History: w.history(), App: app, Wait: patience, Logger: w.cfg.Logger})
	took := time.Since(began)
	switch {
	case err != nil:
		return 0, err
	case !report.Flipped || report.Drifted() > 0:
		return 0, fmt.Errorf("build %d: flipped %t, %d groups drifted: %+v", report.Build, report.Flipped, report.Drifted(), report.Audit)
	}
	if err := w.trim(ctx); err != nil {
		return 0, err
	}
	return took, w.vacuum(ctx)
}

func (w *world) history() string { return filepath.Join(w.cfg.Dir, "history") }

func (w *world) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(w.history(), 0o700); err != nil {
		return err
	}
	if w.defs, err = load(); err != nil {
		return err
	}
	if w.plans, err = view.CompileSet(w.defs); err != nil {
		return err
	}
	if w.nats, err = devserver.StartNATS(ctx, devserver.NATSConfig{Dir: filepath.Join(w.cfg.Dir, "nats"), Logger: w.cfg.Logger}); err != nil {
		return err
	}
	if w.server, err = devserver.StartClickHouse(ctx, devserver.ClickHouseConfig{Dir: filepath.Join(w.cfg.Dir, "clickhouse"), UserFiles: w.history()}); err != nil {
		return err
	}
	if w.log, err = eventlog.Open(ctx, eventlog.Config{URL: w.nats.URL(), MaxBytes: logBytes, Logger: w.cfg.Logger}); err != nil {
		return err
	}
	user, password := w.server.Admin()
	if w.db, err = store.Open(ctx, store.Config{Addr: w.server.Addr(), Database: database, User: user, Password: password, NoFsync: true}); err != nil {
		return err
	}
	if _, err := w.log.PublishCut(ctx, schemas.Cut{}, *w.defs, schemas.Set{}); err != nil {
		return err
	}
	return w.start(ctx)
}

// start starts the worker and the archiver.
func (w *world) start(ctx context.Context) (err error) {
	w.archiver, err = history.NewArchiver(history.ArchiverConfig{
		Root: w.history(), App: app, DeadLetters: w.log,
		Source: func(ctx context.Context, after schemas.Position, types ...string) (history.Source, schemas.Cut, error) {
			cut, _, err := w.log.CutFor(ctx, after.Seq)
			if err != nil {
				return nil, cut, err
			}
			chunks, err := w.log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
			return chunks, cut, err
		},
	})
	if err != nil {
		return err
	}
	ctx, w.stop = context.WithCancel(ctx)
	w.loops = &errgroup.Group{}
	worker := speed.New(speedLog{w.log}, w.db, speed.Config{FlushEvery: 50 * time.Millisecond, Horizon: w.cfg.Horizon, Logger: w.cfg.Logger})
	w.loops.Go(func() error { return worker.Run(ctx) })
	w.loops.Go(func() error {
		if err := w.archiver.Run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	})
	return nil
}

// halt stops the worker and the archiver.
func (w *world) halt() error {
	if w.stop == nil {
		return nil
	}
	w.stop()
	w.stop = nil
	return w.loops.Wait()
}

func (w *world) close() error {
	err := w.halt()
	if w.log != nil {
		w.log.Close()
	}
	if w.db != nil {
		err = errors.Join(err, w.db.Close())
	}
	if w.server != nil {
		err = errors.Join(err, w.server.Close())
	}
	if w.nats != nil {
		err = errors.Join(err, w.nats.Close())
	}
	return err
}

type speedLog struct{ *eventlog.Log }

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{})
}
