// Package devtest gives tests the real engines. An engine that cannot start fails the test: nothing is
// ever skipped.
//
// A package whose tests use ClickHouse has
//
//	func TestMain(m *testing.M) { devtest.Main(m) }
package devtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"watershed/internal/devserver"
)

// startTimeout bounds the start of one engine. It takes about a second; the rest is for machines on
// which many packages are tested at once.
const startTimeout = 2 * time.Minute

// libraryVariable names a ClickHouse library other than the installed one.
const libraryVariable = "WATERSHED_CLICKHOUSE_LIB"

// Main runs a package's tests and exits. It is the body of TestMain: the test binary may have been
// started as a ClickHouse, and the shared one must be stopped.
func Main(m *testing.M) {
	devserver.Child()
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared ClickHouse:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Config is what the helpers here start ClickHouse with, on dir: the reader may select from every
// database whose name begins with "watershed". Tests that restart a server pass it to
// devserver.StartClickHouse themselves.
func Config(dir string) devserver.ClickHouseConfig {
	return devserver.ClickHouseConfig{
		Dir:            dir,
		LibPath:        os.Getenv(libraryVariable),
		ReaderDatabase: "watershed*",
		MaxMemory:      4 << 30,
	}
}

// ClickHouse starts a server of the test's own, which ends with it.
func ClickHouse(t testing.TB) *devserver.ClickHouse {
	t.Helper()
	return StartClickHouse(t, Config(t.TempDir()))
}

// StartClickHouse starts a server that ends with the test.
func StartClickHouse(t testing.TB, cfg devserver.ClickHouseConfig) *devserver.ClickHouse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c, err := devserver.StartClickHouse(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// SharedClickHouse is one server for all tests of the package, started by the first that asks and
// stopped by Main. Tests keep apart by databases of their own.
func SharedClickHouse(t testing.TB) *devserver.ClickHouse {
	t.Helper()
	c, err := shared.start()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// NATS starts a server that ends with the test.
func NATS(t testing.TB) *devserver.NATS {
	t.Helper()
	return StartNATS(t, devserver.NATSConfig{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

// StartNATS starts a server that ends with the test.
func StartNATS(t testing.TB, cfg devserver.NATSConfig) *devserver.NATS {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	n, err := devserver.StartNATS(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// UserFiles is the directory in which file() and deltaLakeLocal() look by default.
func UserFiles(c *devserver.ClickHouse) string { return filepath.Join(c.Dir(), "user_files") }

// sharedServer is one server for a whole test process. Go's testing gives TestMain no other way to
// hand something to the tests than a variable of the package, hence the one below.
type sharedServer struct {
	mu  sync.Mutex // guards the rest
	dir string
	run *devserver.ClickHouse
	err error // of the one attempt to start
}

var shared sharedServer

func (s *sharedServer) start() (*devserver.ClickHouse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil || s.err != nil {
		return s.run, s.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if s.dir, s.err = os.MkdirTemp("", "watershed-clickhouse-"); s.err != nil {
		return nil, s.err
	}
	s.run, s.err = devserver.StartClickHouse(ctx, Config(s.dir))
	return s.run, s.err
}

func (s *sharedServer) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.run != nil {
		err = s.run.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
