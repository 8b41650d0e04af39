package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// floatPlan has no measures but a sum, a mean and a standard deviation of float64.
func floatPlan(name string) *view.Plan {
	p := newPlan(name, 1)
	p.Measures = slices.DeleteFunc(p.Measures, func(m view.Measure) bool { return m.Name != "weight" && m.Name != "heft" && m.Name != "wobble" })
	return p
}

// Where the values of a group cancel, what is left of their sum depends on the order of additions and on
// how they were divided among slices and flushes. That is no drift; an event that was lost or changed is.
func TestAuditOfFloatSums(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p := floatPlan("floats")
	ensure(t, db, true, p)
	ctx := t.Context()
	check(t, db.TakeOver(ctx, store.RoleBatch, 1))
	next := uint64(1 << 32)
	// Each of the parts becomes a slice.
	side := func(parts ...[]float64) (ids []uint64) {
		t.Helper()
		for _, values := range parts {
			var events []event
			for _, x := range values {
				events = append(events, event{shop: "s", x: x})
			}
			next++
			check(t, db.InsertSlices(ctx, p, 1, []schemas.SliceStates{{Slice: next, States: states(t, p, events)}}))
			ids = append(ids, next)
		}
		return ids
	}
	audit := func(old, fresh []uint64) schemas.Audit {
		t.Helper()
		a, err := db.Audit(ctx, p, schemas.AuditSpec{Old: old, New: fresh})
		check(t, err)
		return a
	}
	shown := func(ids []uint64) string {
		t.Helper()
		var in []string
		for _, id := range ids {
			in = append(in, fmt.Sprint(id))
		}
		return ask(t, conn, "SELECT sum(weight) FROM `floats__"+p.Hash[:8]+"__batch` WHERE _slice IN ("+strings.Join(in, ",")+")")[0]
	}
	differ := 0
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		values := []float64{1, 0.5, 0.5, -2, 1e7, -1e7}
		for range 20 {
			values = append(values, (rng.Float64()-0.5)*1e-9)
		}
		divided := func() [][]float64 {
			rng.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			return [][]float64{slices.Clone(values[:9]), slices.Clone(values[9:17]), slices.Clone(values[17:])}
		}
		a, b := side(divided()...), side(divided()...)
		if shown(a) != shown(b) {
			differ++
		}
		if got := audit(a, b); got.Groups != 1 || got.Equal != 1 {
			t.Errorf("the same values in another order: %+v", got)
		}
		// One event less, whose value is above the tolerance of what all magnitudes are; and one below it.
		magnitudes := 0.
		for _, x := range values {
			magnitudes += math.Abs(x)
		}
		all := append(slices.Clone(values), magnitudes*agg.Tolerance*2)
		if got := audit(side(all), side(values)); got.Drifted != 1 {
			t.Errorf("an event of %g is lost among magnitudes of %g: %+v", all[len(all)-1], magnitudes, got)
		}
	}
	if differ == 0 {
		t.Error("no order of additions gave another sum: this tests nothing")
	}
	// Beyond the range of float64 nothing can be told; nothing against a value is drift.
	most := []float64{math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64}
	if got := audit(side(most), side(most[:1], most[1:2], most[2:])); got.Equal != 1 {
		t.Errorf("a sum that overflows: %+v", got)
	}
	if got := audit(side([]float64{1, -1}), nil); got.Drifted != 1 {
		t.Errorf("all events of a group are lost: %+v", got)
	}
}
