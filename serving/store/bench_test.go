package store_test

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

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
