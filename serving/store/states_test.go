package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
)

// States of both layers, of every type, merged in the view, must finish as ClickHouse's own
// aggregation over the same events does.
func TestMergedViewEqualsRawAggregation(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	check(t, db.TakeOver(t.Context(), "speed", 1))
	check(t, db.TakeOver(t.Context(), "batch", 1))

	a, b, c := some(1, 300), some(2, 300), some(3, 300)
	check(t, db.InsertSlices(t.Context(), p, 1, []schemas.SliceStates{{Slice: 1<<32 | 1, States: states(t, p, a)}, {Slice: 1<<32 | 2, States: states(t, p, b)}}))
	counts, err := db.CountSlices(t.Context(), asPlans(p), map[string][]uint64{p.Hash: {1<<32 | 1, 1<<32 | 2, 1<<32 | 3}})
	check(t, err)
	if want := (map[uint64]uint64{1<<32 | 1: uint64(states(t, p, a).NumRows()), 1<<32 | 2: uint64(states(t, p, b).NumRows())}); !cmp.Equal(counts, want) {
		t.Errorf("counts are %v; want %v", counts, want)
	}
	registered := []schemas.Slice{{Key: "k1", Plan: p.Hash, Date: -400, ID: 1<<32 | 1, Groups: 7, Events: 300, Duplicates: 2}, {Key: "k2", Plan: p.Hash, Date: 19000, ID: 1<<32 | 2, Groups: 8, Events: 300}}
	check(t, db.RegisterSlices(t.Context(), 1, registered))
	got, err := db.Slices(t.Context(), p.Hash)
	check(t, err)
	if diff := cmp.Diff(registered, got); diff != "" {
		t.Errorf("slices (-want +got):\n%s", diff)
	}
	build := schemas.Build{Number: 2, Cut: 2, Position: schemas.Position{Seq: 6, Hash: 1 << 63},
		Definitions: schemas.Set{Events: []*schemas.Event{}, Views: []*schemas.View{{Name: "sales", Dimensions: []schemas.Definition{}}}},
		Plans:       map[string]schemas.Covered{p.Hash: {Cut: 2, Position: schemas.Position{Seq: 6, Hash: 1 << 63}, Slices: registered}}}
	check(t, db.SaveBuild(t.Context(), 1, build))
	check(t, db.Flip(t.Context(), 1, schemas.Live{Flip: 1, Build: 2, Cut: 2}))

	// Epoch 1 lies before the build's cut: it is in the build already.
	check(t, db.InsertSpeed(t.Context(), p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: 5, Hash: 1}}, states(t, p, a)))
	check(t, db.InsertSpeed(t.Context(), p, 1, schemas.Mark{Epoch: 2, Position: schemas.Position{Seq: 9, Hash: 1 << 63}}, states(t, p, c)))

	all := append(append(a, b...), c...)
	want := oracle(t, conn, p, all)
	if diff := cmp.Diff(want, shown(t, conn, "sales")); diff != "" {
		t.Errorf("merged view (-want +got):\n%s", diff)
	}
	marks, err := db.Positions(t.Context(), asPlans(p))
	check(t, err)
	if want := (schemas.Mark{Epoch: 2, Position: schemas.Position{Seq: 9, Hash: 1 << 63}}); marks[p.Hash] != want {
		t.Errorf("position is %v; want %v", marks[p.Hash], want)
	}
	stored, err := db.Build(t.Context(), 2)
	check(t, err)
	stored.At = build.At
	if diff := cmp.Diff(build, stored); diff != "" {
		t.Errorf("build (-want +got):\n%s", diff)
	}
	rolled := ask(t, conn, "SELECT sum(flights) AS flights, uniqMerge(words) AS words FROM sales_states")
	if raw := ask(t, conn, "SELECT count(), uniq(word) FROM raw_events"); !cmp.Equal(rolled, raw) {
		t.Errorf("states roll up to %v; want %v", rolled, raw)
	}
	types := ask(t, conn, "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'sales' ORDER BY position")
	var wantTypes []string
	for i, ty := range []string{"DateTime64(6, \\'UTC\\')", "Nullable(String)", "Bool"} {
		wantTypes = append(wantTypes, p.Dimensions[i].Name+"\t"+ty)
	}
	for _, m := range p.Measures {
		wantTypes = append(wantTypes, m.Name+"\t"+escapeQuotes(m.Func.ResultType()))
	}
	if diff := cmp.Diff(wantTypes, types); diff != "" {
		t.Errorf("types of the view (-want +got):\n%s", diff)
	}
}
