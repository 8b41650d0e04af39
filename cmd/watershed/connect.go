package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"watershed/internal/durable"
	"watershed/internal/eventlog"
	"watershed/serving/store"
)

// A running says where the engines and the endpoint of a running `up` are. It lies in its
// directory, for the owner's eyes alone, as long as it runs.
type running struct {
	PID                int       `json:"pid"`
	Since              time.Time `json:"since"`
	NATS               string    `json:"nats"`
	ClickHouse         string    `json:"clickhouse"`
	ClickHouseUser     string    `json:"clickhouse_user"`
	ClickHousePassword string    `json:"clickhouse_password"`
	ReaderUser         string    `json:"reader_user"`
	ReaderPassword     string    `json:"reader_password"`
	History            string    `json:"history"`
	Endpoint           string    `json:"endpoint"`
}

const runningFile = "running.json"

func (r *running) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteSecret(filepath.Join(dir, runningFile), append(b, '\n'))
}

// findRunning reads where the engines of a directory are; ok is false when none run there.
func findRunning(dir string) (r running, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, runningFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, false, fmt.Errorf("%s: %w", filepath.Join(dir, runningFile), err)
	}
	lock, err := durable.Lock(dir)
	if err == nil { // its process is gone without having removed the file
		return r, false, lock.Close()
	}
	var held *durable.LockedError
	if errors.As(err, &held) {
		return r, true, nil
	}
	return r, false, err
}

// locate fills in what was not set from the `up` that runs on the directory.
func (a *app) locate() error {
	r, ok, err := findRunning(a.cfg.Dir)
	if err != nil {
		return err
	}
	if ok {
		c := &a.cfg
		if c.NATS == "" {
			c.NATS = r.NATS
		}
		if c.ClickHouse == "" {
			c.ClickHouse, c.ClickHouseUser, c.ClickHousePassword = r.ClickHouse, r.ClickHouseUser, r.ClickHousePassword
			c.ReaderUser, c.ReaderPassword = r.ReaderUser, r.ReaderPassword
		}
		if c.History == "" {
			c.History = r.History
		}
		if !c.given["listen"] {
			c.Listen = r.Endpoint
		}
	}
	if a.cfg.History == "" {
		a.cfg.History = filepath.Join(a.cfg.Dir, "history")
	}
	return nil
}

func (a *app) openLog(ctx context.Context) (*eventlog.Log, error) {
	if a.cfg.NATS == "" {
		return nil, usage("no NATS server: `watershed up` does not run on %s, and neither --nats nor %s is set", a.cfg.Dir, envName("nats"))
	}
	log, err := eventlog.Open(ctx, eventlog.Config{
		URL: a.cfg.NATS, Credentials: a.cfg.NATSCredentials, Stream: a.cfg.Stream,
		MaxBytes: a.cfg.LogMaxBytes, Replicas: a.cfg.LogReplicas, Logger: a.log,
		Past: time.Duration(a.cfg.Past), Future: time.Duration(a.cfg.Future),
	})
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if !a.cfg.given["log-max-bytes"] {
		return log, nil
	}
	raised, err := log.RaiseLimit(ctx, a.cfg.LogMaxBytes)
	if err != nil {
		log.Close()
		return nil, err
	}
	if raised {
		a.log.Info("raised the limit of the log", "bytes", a.cfg.LogMaxBytes)
	}
	return log, nil
}

func (a *app) openStore(ctx context.Context) (*store.DB, error) {
	if a.cfg.ClickHouse == "" {
		return nil, usage("no ClickHouse: `watershed up` does not run on %s, and neither --clickhouse nor %s is set", a.cfg.Dir, envName("clickhouse"))
	}
	return store.Open(ctx, store.Config{
		Addr: a.cfg.ClickHouse, Database: a.cfg.Database,
		User: a.cfg.ClickHouseUser, Password: a.cfg.ClickHousePassword, Logger: a.log,
	})
}

// engines are open connections to both engines.
type engines struct {
	log *eventlog.Log
	db  *store.DB
}

// connect opens both engines; close them.
func (a *app) connect(ctx context.Context) (*engines, error) {
	if err := a.locate(); err != nil {
		return nil, err
	}
	log, err := a.openLog(ctx)
	if err != nil {
		return nil, err
	}
	db, err := a.openStore(ctx)
	if err != nil {
		log.Close()
		return nil, err
	}
	return &engines{log, db}, nil
}

func (e *engines) close() {
	e.log.Close()
	_ = e.db.Close() // idle connections
}

// app id of the archiver's txns: there is one shard.
func (a *app) appID() string { return "watershed/" + a.cfg.Stream + "/0" }
