package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"watershed/internal/devserver/devtest"
)

// A takeover does not wait for inserts that have no block yet, because a block that comes later meets
// the new term at the fence. That needs ClickHouse to count a block's rows before it brings them to a
// materialized view: here a view that takes its time is caught in the middle, and its query must
// not look as if it still waited.
func TestRowsCountAsWrittenBeforeTheFence(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	check(t, db.TakeOver(t.Context(), "speed", 1))
	for _, sql := range []string{
		"CREATE TABLE slow_in (n UInt64) ENGINE = Null",
		"CREATE TABLE slow (n UInt64) ENGINE = MergeTree ORDER BY n",
		"CREATE MATERIALIZED VIEW slow_fence TO slow AS SELECT n FROM slow_in WHERE sleepEachRow(2) = 0",
	} {
		check(t, conn.Exec(t.Context(), sql))
	}
	const id = "slow-insert"
	listed := func() []string {
		return ask(t, conn, "SELECT written_rows + read_rows FROM system.processes WHERE query_id = '"+id+"' AND query_kind = 'Insert'")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	batch, err := conn.PrepareBatch(clickhouse.Context(ctx, clickhouse.WithQueryID(id)), "INSERT INTO slow_in (n)")
	check(t, err)
	if got := listed(); len(got) != 1 || got[0] != "0" {
		t.Fatalf("an insert that waits for its block has rows %v; want 0", got)
	}
	check(t, batch.Append(uint64(1)))
	sent := make(chan error, 1)
	go func() { sent <- batch.Send() }()
	for counted := false; !counted; {
		select {
		case err := <-sent:
			t.Fatalf("the insert ended (%v) and was never seen with rows", err)
		default:
			got := listed()
			counted = len(got) == 1 && got[0] != "0"
		}
	}
	if got := ask(t, conn, "SELECT count() FROM slow"); got[0] != "0" {
		t.Errorf("rows were counted when %s of them were written already", got[0])
	}
	check(t, <-sent)
}
