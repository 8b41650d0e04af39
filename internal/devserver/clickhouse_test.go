package devserver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/durable"
)

func TestMain(m *testing.M) { devtest.Main(m) }

func connect(t *testing.T, c *devserver.ClickHouse, user, password string) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{c.Addr()},
		Auth: clickhouse.Auth{Username: user, Password: password},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func asAdmin(t *testing.T, c *devserver.ClickHouse) driver.Conn {
	t.Helper()
	user, password := c.Admin()
	return connect(t, c, user, password)
}

func exec(t *testing.T, conn driver.Conn, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if err := conn.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func number(t *testing.T, conn driver.Conn, query string) uint64 {
	t.Helper()
	var n uint64
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestRowsSurviveAKill(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	first := devtest.StartClickHouse(t, cfg)
	exec(t, asAdmin(t, first),
		"CREATE DATABASE watershed",
		"CREATE TABLE watershed.rows (n UInt64) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO watershed.rows SELECT number FROM numbers(1000)")
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := first.Err(); err != nil {
		t.Errorf("Err after Kill: got %v; want nil", err)
	}

	second := devtest.StartClickHouse(t, cfg)
	if got := number(t, asAdmin(t, second), "SELECT count() FROM watershed.rows"); got != 1000 {
		t.Errorf("rows after kill and restart: got %d; want 1000", got)
	}
	_, before := first.Reader()
	if _, after := second.Reader(); before != after {
		t.Errorf("the reader's password changed with a restart")
	}
}

func TestADirectoryHasOneServer(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	first := devtest.StartClickHouse(t, cfg)
	second, err := devserver.StartClickHouse(t.Context(), cfg)
	var locked *durable.LockedError
	if !errors.As(err, &locked) {
		if err == nil {
			second.Close()
		}
		t.Fatalf("second start: got %v; want a LockedError", err)
	}
	if locked.Holder.PID != os.Getpid() {
		t.Errorf("holder: got %d; want this process, %d", locked.Holder.PID, os.Getpid())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	devtest.StartClickHouse(t, cfg)
}

func TestADeathIsReported(t *testing.T) {
	c := devtest.ClickHouse(t)
	process, err := os.FindProcess(c.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if c.Err() == nil {
		t.Error("Err after a death that nobody asked for: got nil")
	}
}

func TestAFailedStartSaysWhatClickHouseSaid(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	// A directory where ClickHouse wants a file.
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "data", "status"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := devserver.StartClickHouse(t.Context(), cfg)
	if err == nil {
		c.Close()
		t.Fatal("start: got nil; want an error")
	}
	if !strings.Contains(err.Error(), "DB::") || !strings.Contains(err.Error(), "Is a directory") {
		t.Errorf("start: got %v; want ClickHouse's own words", err)
	}
}

func TestAMissingLibraryNamesTheCommand(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	cfg.LibPath = filepath.Join(t.TempDir(), "libchdb.so")
	_, err := devserver.StartClickHouse(t.Context(), cfg)
	var missing *devserver.NotInstalledError
	if !errors.As(err, &missing) {
		t.Fatalf("start: got %v; want a NotInstalledError", err)
	}
	for _, want := range []string{cfg.LibPath, "npm ci --prefix internal/devserver/engine", "make setup"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
}

func TestPasswordsAreNeededAndSecret(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	cfg.AdminPassword = "s3cret <&>"
	c := devtest.StartClickHouse(t, cfg)
	user, password := c.Admin()
	if password != cfg.AdminPassword {
		t.Fatalf("admin password: got %q; want the given one", password)
	}
	if got := number(t, connect(t, c, user, password), "SELECT toUInt64(7)"); got != 7 {
		t.Fatalf("got %d; want 7", got)
	}
	for _, u := range []string{user, "reader"} {
		if err := connect(t, c, u, "").Ping(t.Context()); err == nil {
			t.Errorf("user %s was let in without a password", u)
		}
	}
	// ClickHouse insists on a user without a password; it must be of no use.
	for _, q := range []string{"SELECT 1", "SYSTEM STOP LISTEN TCP", "SELECT * FROM system.users", "CREATE DATABASE d"} {
		if err := connect(t, c, "default", "").Exec(t.Context(), q); err == nil {
			t.Errorf("the user default may do %s", q)
		}
	}
	for _, name := range []string{"credentials.json", "users.xml"} {
		info, err := os.Stat(filepath.Join(c.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: got %v; want 0600", name, info.Mode())
		}
	}
}

func TestReaderMayReadAndNothingElse(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	admin := asAdmin(t, c)
	exec(t, admin,
		"CREATE DATABASE watershed_reader",
		"CREATE TABLE watershed_reader.rows (n UInt64) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO watershed_reader.rows SELECT number FROM numbers(10)",
		"CREATE VIEW watershed_reader.evens SQL SECURITY INVOKER AS SELECT n FROM watershed_reader.rows WHERE n % 2 = 0",
		"CREATE DATABASE private",
		"CREATE TABLE private.rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	if err := os.WriteFile(filepath.Join(devtest.UserFiles(c), "secret.csv"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	user, password := c.Reader()
	reader := connect(t, c, user, password)

	for _, q := range []string{
		"SELECT sum(n) FROM watershed_reader.rows",
		"SELECT count() FROM watershed_reader.evens",
		"SELECT count() FROM system.tables WHERE database = 'watershed_reader'",
	} {
		t.Run("allowed "+q, func(t *testing.T) { number(t, reader, q) })
	}
	for _, q := range []string{
		"SELECT * FROM file('secret.csv', CSV, 'n UInt64')",
		"SELECT * FROM url('http://127.0.0.1:1/', CSV, 'n UInt64')",
		"SELECT * FROM remote('127.0.0.1', system.one)",
		"SELECT * FROM deltaLakeLocal('/')",
		"SELECT * FROM executable('x', CSV, 'n UInt64')",
		"DROP TABLE watershed_reader.rows",
		"TRUNCATE TABLE watershed_reader.rows",
		"ALTER TABLE watershed_reader.rows DELETE WHERE 1",
		"INSERT INTO watershed_reader.rows VALUES (1)",
		"CREATE TABLE watershed_reader.more (n UInt64) ENGINE = Memory",
		"CREATE TEMPORARY TABLE more (n UInt64)",
		"SELECT * FROM private.rows",
		"SELECT * FROM system.users",
		"SELECT * FROM system.processes",
		"SELECT * FROM system.server_settings",
		"KILL QUERY WHERE 1",
		"SYSTEM STOP MERGES watershed_reader.rows",
		"SYSTEM SHUTDOWN",
		"SET readonly = 0",
		"SET max_memory_usage = 1000000000000",
		"SET max_memory_usage_for_user = 0",
		"SELECT 1 SETTINGS max_execution_time = 200",
		"SELECT 1 SETTINGS max_threads = 64",
	} {
		t.Run("refused "+q, func(t *testing.T) {
			err := reader.Exec(t.Context(), q)
			var exception *clickhouse.Exception
			if !errors.As(err, &exception) {
				t.Fatalf("got %v; want ClickHouse to refuse", err)
			}
		})
	}
	for seconds, allowed := range map[int]bool{20: true, 200: false} {
		t.Run(fmt.Sprintf("max_execution_time %d", seconds), func(t *testing.T) {
			ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": seconds}))
			if err := reader.Exec(ctx, "SELECT 1"); (err == nil) != allowed {
				t.Errorf("got %v; want allowed = %v", err, allowed)
			}
		})
	}
	t.Run("a deadline of the client's", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := reader.Exec(ctx, "SELECT 1"); err != nil {
			t.Error(err)
		}
	})
}

func TestFilesOfUserFilesAreReadable(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	cfg.UserFiles = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.UserFiles, "n.csv"), []byte("3\n4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	conn := asAdmin(t, devtest.StartClickHouse(t, cfg))
	query := fmt.Sprintf("SELECT sum(n) FROM file('%s/n.csv', CSV, 'n UInt64')", cfg.UserFiles)
	if got := number(t, conn, query); got != 7 {
		t.Errorf("got %d; want 7", got)
	}
}
