package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/rogpeppe/go-internal/testscript"
)

// spoilTable empties the marks of a system table's parts, in the ClickHouse of the `up` on a directory, so
// that it cannot be read any more: spoiled DIR TABLE.
func spoilTable(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	r := readRunning(ts, args[0])
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{r.ClickHouse}, Auth: clickhouse.Auth{Username: r.ClickHouseUser, Password: r.ClickHousePassword},
	})
	ts.Check(err)
	defer conn.Close()
	ctx := context.Background()
	ts.Check(conn.Exec(ctx, "SYSTEM STOP MERGES watershed."+args[1])) // or they replace what is damaged
	var paths []string
	ts.Check(conn.QueryRow(ctx, "SELECT groupArray(path) FROM system.parts WHERE active AND database = 'watershed' AND table = {name:String}",
		clickhouse.Named("name", args[1])).Scan(&paths))
	for _, path := range paths {
		marks, err := filepath.Glob(filepath.Join(path, "*.cmrk*"))
		ts.Check(err)
		for _, f := range marks {
			ts.Check(os.Truncate(f, 0))
		}
	}
	if len(paths) == 0 {
		ts.Fatalf("table %s has no parts", args[1])
	}
	ts.Check(conn.Exec(ctx, "SYSTEM DROP MARK CACHE"))
}
