package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/internal/devserver"
	"watershed/internal/durable"
)

// embedded are the engines that `up` and the demo run themselves: those for which no address
// is configured. They listen on loopback alone.
type embedded struct {
	a          *app
	lock       *durable.DirLock
	nats       *devserver.NATS
	clickhouse *devserver.ClickHouse
	chConfig   devserver.ClickHouseConfig
}

// The memory of this process, in bytes, above which the collector works harder. It is no limit: what
// is needed is had. GOMEMLIMIT sets another one.
const (
	laptopMemory = 384 << 20 // with the embedded engines
	workerMemory = 208 << 20 // of `speed`; while a view catches up it needs more, for a second window of duplicates

	// workerGrowth is by how many percent the memory of `speed` grows between two collections as long as it is below that: each
	// message leaves ten small objects behind, and a third of the collections cost a tenth less processor time where each event is
	// a message. GOGC sets another one.
	workerGrowth = 300

	besidesStates = 256 << 20 // of `batch`, besides its memory for states
)

func (a *app) preferMemory(bytes int64) {
	if a.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}

// startEmbedded claims the directory and starts the engines on it, side by side. userFiles is
// what ClickHouse's file() may read; empty: the history.
func (a *app) startEmbedded(ctx context.Context, userFiles string) (_ *embedded, err error) {
	if err := durable.MkdirAll(a.cfg.Dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	a.preferMemory(laptopMemory)
	e := &embedded{a: a}
	if e.lock, err = durable.Lock(a.cfg.Dir); err != nil {
		return nil, fmt.Errorf("%w\nStop that one first, or give this one another --dir", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if a.cfg.History == "" {
		a.cfg.History = filepath.Join(a.cfg.Dir, "history")
	}
	if err := durable.MkdirAll(a.cfg.History); err != nil {
		return nil, fmt.Errorf("history directory: %w", err)
	}
	if userFiles == "" {
		userFiles = a.cfg.History
	}
	g, gctx := errgroup.WithContext(ctx)
	if a.cfg.NATS == "" {
		g.Go(func() (err error) {
			e.nats, err = devserver.StartNATS(gctx, devserver.NATSConfig{Dir: filepath.Join(a.cfg.Dir, "nats"), SyncAlways: true, Logger: a.log})
			return err
		})
	}
	if a.cfg.ClickHouse == "" {
		e.chConfig = devserver.ClickHouseConfig{
			Dir: filepath.Join(a.cfg.Dir, "clickhouse"), LibPath: a.cfg.ClickHouseLib,
			ReaderDatabase: a.cfg.Database, UserFiles: userFiles, Logger: a.log,
		}
		g.Go(func() (err error) {
			e.clickhouse, err = devserver.StartClickHouse(gctx, e.chConfig)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if e.nats != nil {
		a.cfg.NATS = e.nats.URL()
	}
	if e.clickhouse != nil {
		a.cfg.ClickHouse = e.clickhouse.Addr()
		a.cfg.ClickHouseUser, a.cfg.ClickHousePassword = e.clickhouse.Admin()
		a.cfg.ReaderUser, a.cfg.ReaderPassword = e.clickhouse.Reader()
	}
	return e, nil
}

// watch starts ClickHouse again, on the same ports, when its process is gone. The loops ride
// that out: they go on from the positions that are stored.
func (e *embedded) watch(ctx context.Context) error {
	if e.clickhouse == nil {
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.clickhouse.Done():
		}
		e.a.log.Error("the embedded ClickHouse is gone; starting it again", "error", e.clickhouse.Err())
		cfg := e.chConfig
		cfg.TCPPort, cfg.HTTPPort = port(e.clickhouse.Addr()), port(e.clickhouse.HTTPAddr())
		start, cancel := context.WithTimeout(ctx, time.Minute)
		again, err := devserver.StartClickHouse(start, cfg)
		cancel()
		if err != nil {
			return fmt.Errorf("the embedded ClickHouse died and does not start again: %w", err)
		}
		e.clickhouse = again
	}
}

func port(addr string) int {
	_, p, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(p) // of an address that a listener gave
	return n
}

// close stops the engines and frees the directory. The roles must have ended.
func (e *embedded) close() error {
	var errs []error
	if e.clickhouse != nil {
		errs = append(errs, e.clickhouse.Close())
	}
	if e.nats != nil {
		errs = append(errs, e.nats.Close())
	}
	return errors.Join(append(errs, e.lock.Close())...)
}
