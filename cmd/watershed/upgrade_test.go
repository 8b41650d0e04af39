//go:build upgrade

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ebitengine/purego"
	"github.com/rogpeppe/go-internal/testscript"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg"
)

// oldLibrary is an older engine that `make upgrade` has fetched, and its version.
func oldLibrary(t *testing.T, variable string) (path, version string) {
	t.Helper()
	dir := os.Getenv(variable)
	path = filepath.Join(dir, "node_modules", "@chdb", "lib-linux-x64-gnu", "libchdb.so")
	if _, err := os.Stat(path); dir == "" || err != nil {
		t.Fatalf("%s names no older engine: run make upgrade", variable)
	}
	version, _, _ = strings.Cut(filepath.Base(dir), "-")
	return path, version
}

// TestUpgrade runs testdata/upgrade: the drill, from the oldest engine that Watershed runs on.
func TestUpgrade(t *testing.T) {
	library, _ := oldLibrary(t, "UPGRADE_FROM")
	p := scripts(t, "testdata/upgrade")
	prepare := p.Setup
	p.Setup = func(env *testscript.Env) error {
		env.Setenv("OLD", library)
		return prepare(env)
	}
	testscript.Run(t, p)
}

// TestUpgradeStates has an engine that is older than Watershed takes write the states of every
// measure, and today's merge and finish them.
func TestUpgradeStates(t *testing.T) {
	library, version := oldLibrary(t, "UPGRADE_STATES_FROM")
	dir := t.TempDir()
	number := schemas.Type{Kind: schemas.Int64}
	var columns, states, finishes []string
	for name, f := range map[string]agg.Func{
		"count": measure(t, "count", schemas.Type{}), "sum": measure(t, "sum", number), "min": measure(t, "min", number), "max": measure(t, "max", number),
		"avg": measure(t, "avg", number), "uniq": measure(t, "uniq", number), "quantiles": measure(t, "quantiles", number, 0.5, 0.95),
	} {
		arg := "n"
		if name == "count" {
			arg = ""
		}
		var names []string
		for i, c := range f.Columns(name) {
			columns = append(columns, c.Name+" "+c.ClickHouse)
			states = append(states, f.StateSQL(arg, false)[i]+" AS "+c.Name)
			names = append(names, c.Name)
		}
		finishes = append(finishes, "ifNull(toString("+f.FinishSQL(names)+"), 'null')")
	}
	values := "(SELECT number % 10 AS g, toInt64(intHash32(number) % 1000) AS n, number % 3 AS part FROM numbers(100000))"
	// The same over states that were never stored, by the engine that finishes.
	direct := fmt.Sprintf("SELECT [%s] FROM (SELECT g, %s FROM %s GROUP BY g, part) GROUP BY g ORDER BY g",
		strings.Join(finishes, ", "), strings.Join(states, ", "), values)

	old := exec.Command(os.Args[0], "-test.run", "^TestOldEngine$")
	old.Env = append(os.Environ(), "OLD_ENGINE="+library, "OLD_ENGINE_PATH="+filepath.Join(dir, "data"), "OLD_ENGINE_SQL="+strings.Join([]string{
		fmt.Sprintf("CREATE TABLE states (g UInt64, %s) ENGINE = AggregatingMergeTree ORDER BY g", strings.Join(columns, ", ")),
		fmt.Sprintf("INSERT INTO states (g, %s) SELECT g, %s FROM %s WHERE part < 2 GROUP BY g, part", columnNames(columns), strings.Join(states, ", "), values),
	}, ";"))
	if msg, err := old.CombinedOutput(); err != nil {
		t.Fatalf("write states with %s: %v\n%s", version, err, msg)
	}
	at(t, dir, func(ctx context.Context, conn clickhouse.Conn) {
		for _, sql := range []string{
			fmt.Sprintf("INSERT INTO states (g, %s) SELECT g, %s FROM %s WHERE part = 2 GROUP BY g", columnNames(columns), strings.Join(states, ", "), values),
			"OPTIMIZE TABLE states FINAL",
		} {
			if err := conn.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		got := answers(t, ctx, conn, fmt.Sprintf("SELECT [%s] FROM states GROUP BY g ORDER BY g", strings.Join(finishes, ", ")))
		want := answers(t, ctx, conn, direct)
		if len(want) != 10 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("states of %s are finished as %v; want %v", version, got, want)
		}
	})
}

func columnNames(columns []string) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i], _, _ = strings.Cut(c, " ")
	}
	return strings.Join(names, ", ")
}

func measure(t *testing.T, name string, arg schemas.Type, levels ...float64) agg.Func {
	t.Helper()
	f, err := agg.New(name, arg, levels)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestOldEngine is the process of an older engine, in which TestUpgradeStates has it run statements.
// Its library does not serve as today's does, but its files are the same.
func TestOldEngine(t *testing.T) {
	library := os.Getenv("OLD_ENGINE")
	if library == "" {
		return
	}
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		t.Fatal(err)
	}
	var commandLine func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	purego.RegisterLibFunc(&commandLine, handle, "chdb_query_cmdline")
	var resultError func(unsafe.Pointer) string
	purego.RegisterLibFunc(&resultError, handle, "chdb_result_error")
	var pins runtime.Pinner
	defer pins.Unpin()
	var argv []*byte
	for _, arg := range []string{"clickhouse", "--path=" + os.Getenv("OLD_ENGINE_PATH"), "--query", os.Getenv("OLD_ENGINE_SQL")} {
		text := append([]byte(arg), 0)
		pins.Pin(&text[0])
		argv = append(argv, &text[0])
	}
	n := int32(len(argv))
	argv = append(argv, nil)
	pins.Pin(&argv[0])
	result := commandLine(n, unsafe.Pointer(&argv[0]))
	if result == nil {
		t.Fatal("no result")
	}
	if msg := resultError(result); msg != "" {
		t.Fatal(msg)
	}
}

// at runs today's engine on a directory for as long as do takes.
func at(t *testing.T, dir string, do func(context.Context, clickhouse.Conn)) {
	t.Helper()
	cfg := devtest.Config(dir)
	c, err := devserver.StartClickHouse(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	user, password := c.Admin()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{c.Addr()}, Auth: clickhouse.Auth{Username: user, Password: password}})
	if err != nil {
		t.Fatal(err)
	}
	do(t.Context(), conn)
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func answers(t *testing.T, ctx context.Context, conn clickhouse.Conn, sql string) (out [][]string) {
	t.Helper()
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row []string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
