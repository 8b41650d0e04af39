package store_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// BenchmarkInsertSlices is the batch layer's write of a first run: three plans of five
// measures, sketches among them, 151 dates, 1 M groups in all.
func BenchmarkInsertSlices(b *testing.B) {
	db := open(b)
	ctx := b.Context()
	var plans []*view.Plan
	for i := range 3 {
		p := newPlan(fmt.Sprintf("bench%d", i), byte(1+i))
		p.Measures = keep(p.Measures, "flights", "total", "mean", "words", "spread")
		plans = append(plans, p)
	}
	check(b, db.EnsurePlans(ctx, plans, true))
	check(b, db.TakeOver(ctx, store.RoleBatch, 1))
	const dates, groups = 151, 2208
	events := make([]event, 3*groups)
	for i := range events {
		events[i] = event{hour: int64(i%groups) * 3_600_000_000, shop: "shop", n: int64(i), x: float64(i%500) + 1, word: fmt.Sprint("w", i%300)}
	}
	next := uint64(1 << 32)
	rows := int64(0)
	parts := make([][]schemas.SliceStates, len(plans))
	for i, p := range plans {
		rec := states(b, p, events)
		for range dates {
			parts[i] = append(parts[i], schemas.SliceStates{States: rec})
			rows += rec.NumRows()
		}
	}
	for b.Loop() {
		b.StopTimer()
		for i := range parts {
			for k := range parts[i] {
				next++
				parts[i][k].Slice = next
			}
		}
		b.StartTimer()
		var g errgroup.Group
		for i, p := range plans {
			g.Go(func() error { return db.InsertSlices(ctx, p, 1, parts[i]) })
		}
		check(b, g.Wait())
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkInsert is one flush of 256k groups of four events, in the order of their keys: both
// sketches, sums of integers and decimals, an average, a string; and the processors' time of both
// sides for each row.
func BenchmarkInsert(b *testing.B) {
	db, conn := open(b), admin(b, devtest.SharedClickHouse(b))
	p := newPlan("bench", 1)
	p.Measures = keep(p.Measures, "flights", "total", "price", "mean", "best", "words", "spread")
	check(b, db.EnsurePlans(b.Context(), asPlans(p), true))
	const groups = 256 << 10
	events := make([]event, 4*groups)
	for i := range events {
		events[i] = event{hour: int64(i%groups/64) * 3_600_000_000, shop: fmt.Sprintf("shop %02d", i%64), null: i%64 == 63, ok: true,
			n: int64(i), price: int64(i % 977), x: float64(i*2654435761%50000) + 1, word: fmt.Sprint("w", i*2654435761%100000)}
	}
	rec := states(b, p, events)
	seq := uint64(0)
	write := func() {
		seq++
		check(b, db.InsertSpeed(b.Context(), p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: seq}}, rec))
	}
	write() // the first makes the table's directory and the connection
	check(b, conn.Exec(b.Context(), "SYSTEM STOP MERGES"))
	defer func() { check(b, conn.Exec(context.Background(), "SYSTEM START MERGES")) }()
	ours, theirs := ownCPU(b), serverCPU(b, conn)
	for b.Loop() {
		write()
	}
	rows := float64(rec.NumRows()) * float64(b.N)
	b.ReportMetric(rows/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(ownCPU(b)-ours)/rows, "ns-of-ours/row")
	b.ReportMetric(float64(serverCPU(b, conn)-theirs)/rows, "ns-of-clickhouse/row")
}

// ownCPU is how long the processors have worked for this process.
func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverCPU is how long they have worked for ClickHouse's queries.
func serverCPU(b *testing.B, conn driver.Conn) time.Duration {
	var us uint64
	check(b, conn.QueryRow(b.Context(), "SELECT sum(value) FROM system.events WHERE event IN ('UserTimeMicroseconds', 'SystemTimeMicroseconds')").Scan(&us))
	return time.Duration(us) * time.Microsecond
}

// BenchmarkInsertSpeed is one flush of a hundred groups.
func BenchmarkInsertSpeed(b *testing.B) {
	db := open(b)
	p := newPlan("bench", 1)
	check(b, db.EnsurePlans(b.Context(), asPlans(p), true))
	rec := states(b, p, some(1, 100))
	seq := uint64(0)
	for b.Loop() {
		seq++
		check(b, db.InsertSpeed(b.Context(), p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: seq}}, rec))
	}
}

func keep(measures []view.Measure, names ...string) []view.Measure {
	var out []view.Measure
	for _, m := range measures {
		for _, n := range names {
			if m.Name == n {
				out = append(out, m)
			}
		}
	}
	return out
}
