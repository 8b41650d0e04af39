package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Config says where ClickHouse is. Addr, User and Password are the admin user's.
type Config struct {
	Addr     string // host:port of the native protocol
	Database string // empty: "watershed"
	User     string
	Password string
	NoFsync  bool         // leave it to the operating system when parts reach the disk
	Logger   *slog.Logger // nil: none
}

// oldest is the first version of ClickHouse that this package was tried on.
const oldest = "26.7"

// A DB is the writers' side of the database. Its methods may be called from any goroutine.
// Errors of ClickHouse are *Error.
type DB struct {
	*client
	wires  *wires // for inserts
	fsync  bool
	of     string // of a scratch: the database that it lies beside
	logger *slog.Logger

	patience time.Duration // with deletions of bookkeeping
}

// Open connects, checks the server's version, and makes the database and its system tables
// where they are missing.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Database == "" {
		cfg.Database = "watershed"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := connect(cfg.Addr, "", cfg.User, cfg.Password, own())
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	db := &DB{client: c, wires: newWires(cfg.Addr, cfg.User, cfg.Password), fsync: !cfg.NoFsync, logger: cfg.Logger, patience: deletePatience}
	if err := db.prepare(ctx, cfg.Database); err != nil {
		return nil, fmt.Errorf("open ClickHouse at %s: %w", cfg.Addr, errors.Join(err, db.Close()))
	}
	return db, nil
}

func (db *DB) prepare(ctx context.Context, database string) error {
	// Compared as numbers: 26.10 is newer than 26.7.
	const sql = "SELECT version() AS version, arrayMap(x -> toUInt32OrZero(x), arraySlice(splitByChar('.', version()), 1, 2)) >= arrayMap(x -> toUInt32OrZero(x), splitByChar('.', "
	got, err := rows[struct {
		Version string `ch:"version"`
		Fits    uint8  `ch:"fits"`
	}](ctx, db.client, sql+literal(oldest)+")) AS fits")
	if err != nil {
		return err
	}
	if len(got) != 1 || got[0].Fits == 0 {
		return fmt.Errorf("server is version %v, want %s or newer", got, oldest)
	}
	if err := db.exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quote(database)); err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	db.database = database
	return db.createSystem(ctx)
}

// Close gives up the connections.
func (db *DB) Close() error { return errors.Join(db.conn.Close(), db.wires.close()) }

// queryID names a fenced write after its role and term, so that TakeOver finds it.
func (db *DB) queryID(role string, term uint64) string {
	return fmt.Sprintf("%s%d/%s", db.idPrefix(role), term, uuid.NewString())
}

func (db *DB) idPrefix(role string) string { return "watershed/" + db.database + "/" + role + "/" }
