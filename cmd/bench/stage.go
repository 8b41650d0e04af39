package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/batch/history"
	"watershed/internal/devserver"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/serving/store"
	"watershed/speed"
)

const (
	database = "watershed"
	app      = "watershed/WATERSHED/0"
	logBytes = 64 << 20
	patience = 5 * time.Minute
)

// A server is a ClickHouse of its own, in a directory of its own, for one measurement.
type server struct {
	*devserver.ClickHouse
	dir string
}

// startServer starts a ClickHouse whose file() sees userFiles.
func (b *bench) startServer(ctx context.Context, userFiles string) (*server, error) {
	dir, err := os.MkdirTemp(b.cfg.Dir, "clickhouse-")
	if err != nil {
		return nil, err
	}
	c, err := devserver.StartClickHouse(ctx, devserver.ClickHouseConfig{Dir: dir, UserFiles: userFiles, MaxMemory: b.cfg.Memory})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &server{c, dir}, nil
}

func (s *server) close() error { return errors.Join(s.ClickHouse.Close(), os.RemoveAll(s.dir)) }

// A stage is a Watershed as it runs in production, on engines of its own, whose history is a copy of
// a dataset's: all but the batch, which is another process.
type stage struct {
	dir    string
	data   *dataset
	nats   *devserver.NATS
	server *server
	log    *eventlog.Log
	db     *store.DB
	stop   context.CancelFunc // of the loops
	loops  *errgroup.Group
}

// openStage starts all of it. The log has its first cut, with the definitions of these views.
func (b *bench) openStage(ctx context.Context, d *dataset, root string, views []string) (_ *stage, err error) {
	s := &stage{data: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp(b.cfg.Dir, "stage-"); err != nil {
		return nil, err
	}
	if err := clone(root, s.history()); err != nil {
		return nil, err
	}
	if s.nats, err = devserver.StartNATS(ctx, devserver.NATSConfig{Dir: filepath.Join(s.dir, "nats"), SyncAlways: true}); err != nil {
		return nil, err
	}
	if s.server, err = b.startServer(ctx, s.dir); err != nil {
		return nil, err
	}
	if s.log, err = eventlog.Open(ctx, eventlog.Config{URL: s.nats.URL(), MaxBytes: logBytes}); err != nil {
		return nil, err
	}
	user, password := s.server.Admin()
	if s.db, err = store.Open(ctx, store.Config{Addr: s.server.Addr(), Database: database, User: user, Password: password}); err != nil {
		return nil, err
	}
	if _, err := s.log.PublishCut(ctx, schemas.Cut{}, d.set(views), schemas.Set{}); err != nil {
		return nil, err
	}
	return s, s.start()
}

func (s *stage) history() string { return filepath.Join(s.dir, "history") }

// start starts the archiver and the speed worker, which have nothing to do but cuts.
func (s *stage) start() error {
	archiver, err := history.NewArchiver(history.ArchiverConfig{
		Root: s.history(), App: app, DeadLetters: s.log,
		Source: func(ctx context.Context, after schemas.Position, types ...string) (history.Source, schemas.Cut, error) {
			cut, _, err := s.log.CutFor(ctx, after.Seq)
			if err != nil {
				return nil, cut, err
			}
			chunks, err := s.log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
			return chunks, cut, err
		},
	})
	if err != nil {
		return err
	}
	// The loops end with stop, whatever becomes of the context that the stage was opened with.
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.loops = stop, &errgroup.Group{}
	worker := speed.New(speedLog{s.log}, s.db, speed.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	for _, run := range []func(context.Context) error{archiver.Run, worker.Run} {
		s.loops.Go(func() error {
			if err := run(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return nil
}

func (s *stage) close() error {
	var errs []error
	if s.stop != nil {
		s.stop()
		errs = append(errs, s.loops.Wait())
	}
	if s.log != nil {
		s.log.Close()
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.close())
	}
	if s.nats != nil {
		errs = append(errs, s.nats.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// speedLog is the log as the speed layer reads it.
type speedLog struct{ *eventlog.Log }

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{MaxRows: speed.ChunkRows})
}
