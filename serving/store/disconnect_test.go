package store_test

import (
	"context"
	"testing"
	"time"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/serving/store"
)

// The server survives clients that go away in the middle of anything. (The embedded ClickHouse
// ends when it reads from a connection that was reset.)
func TestGoingAwayDoesNotEndTheServer(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	db, r := open(t), reader(t, c)
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	check(t, db.TakeOver(t.Context(), store.RoleSpeed, 1))
	many := states(t, p, some(1, 20000))
	for i := range 20 {
		brief, end := context.WithTimeout(t.Context(), time.Duration(i)*1200*time.Microsecond)
		_ = db.InsertSpeed(brief, p, 1, schemas.Mark{Position: schemas.Position{Seq: uint64(i)}}, many) // most are cut short
		end()
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := r.Query(ctx, store.Query{SQL: "SELECT number, repeat('x', 1000) FROM numbers(100000000)"})
		if err != nil {
			t.Fatalf("query %d: %v", i, err)
		}
		for range i % 5 {
			rows.Next()
		}
		if i%2 == 0 {
			cancel()
		}
		_ = rows.Close() // the query was ended on purpose
		cancel()
		short, done := context.WithTimeout(t.Context(), time.Duration(i)*1600*time.Microsecond)
		if rows, err := r.Query(short, store.Query{SQL: "SELECT sleepEachRow(0.01) FROM numbers(100)"}); err == nil {
			for rows.Next() {
			}
			_ = rows.Close()
		}
		done()
	}
	select {
	case <-c.Done():
		t.Fatal("the server is gone:", c.Err())
	default:
	}
	rows, err := r.Query(t.Context(), store.Query{SQL: "SELECT 1"})
	check(t, err)
	check(t, rows.Close())
}
