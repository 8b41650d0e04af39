package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/serving/store"
)

// Build n has one slice of its own and shares one with build n-1. With one older build kept,
// each is condemned a call before it is dropped, and what is kept never goes.
func TestGarbage(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	ctx := t.Context()
	check(t, db.TakeOver(ctx, store.RoleSpeed, 1))
	const term = 2
	check(t, db.TakeOver(ctx, store.RoleBatch, term))
	slice := func(id uint64) schemas.Slice {
		t.Helper()
		check(t, db.InsertSlices(ctx, p, term, []schemas.SliceStates{{Slice: id, States: states(t, p, some(int(label(id)), 5))}}))
		return schemas.Slice{Key: "k", Plan: p.Hash, Date: int32(label(id)), ID: id}
	}
	orphan := slice(schemas.SliceID(1, 200, 0)) // of an older term, never registered
	own := slice(schemas.SliceID(term, 201, 0)) // of this term, not registered yet
	previous := slice(schemas.SliceID(term, 0, 0))
	check(t, db.RegisterSlices(ctx, term, []schemas.Slice{previous}))
	for n := uint64(1); n <= 4; n++ {
		s := slice(schemas.SliceID(term, n, 0))
		check(t, db.RegisterSlices(ctx, term, []schemas.Slice{s}))
		check(t, db.SaveBuild(ctx, term, schemas.Build{Number: n, Cut: n, Plans: map[string]schemas.Covered{p.Hash: {Cut: n, Slices: []schemas.Slice{previous, s}}}}))
		check(t, db.Flip(ctx, term, schemas.Live{Flip: n, Build: n, Cut: n}))
		check(t, db.InsertSpeed(ctx, p, 1, schemas.Mark{Epoch: n, Position: schemas.Position{Seq: n}}, states(t, p, some(int(n), 5))))
		previous = s
	}
	there := func() map[uint64]bool {
		t.Helper()
		ids := []uint64{orphan.ID, own.ID}
		for n := uint64(0); n <= 4; n++ {
			ids = append(ids, schemas.SliceID(term, n, 0))
		}
		got, err := db.CountSlices(ctx, asPlans(p), map[string][]uint64{p.Hash: ids})
		check(t, err)
		out := make(map[uint64]bool)
		for id := range got {
			out[label(id)] = true
		}
		return out
	}
	registered := func() (ids []uint64) {
		t.Helper()
		got, err := db.Slices(ctx, p.Hash)
		check(t, err)
		for _, s := range got {
			ids = append(ids, label(s.ID))
		}
		return ids
	}
	before := shown(t, conn, "sales")

	// Only the orphan goes at once. Builds 0, 1 and 2 are condemned: slices 0 and 1.
	dropped, err := db.Garbage(ctx, term, 1)
	check(t, err)
	if want := (map[uint64]bool{201: true, 0: true, 1: true, 2: true, 3: true, 4: true}); dropped != 1 || !cmp.Equal(there(), want) {
		t.Errorf("first call dropped %d and left %v; want 1 and %v", dropped, there(), want)
	}
	if got := registered(); !cmp.Equal(got, []uint64{2, 3, 4}) {
		t.Errorf("not condemned are %v; want 2, 3, 4", got)
	}
	if _, err := db.Build(ctx, 2); err == nil {
		t.Error("build 2 is still listed")
	}
	// Now slices 0 and 1 go, and epochs 1 and 2: build 3 is the oldest.
	dropped, err = db.Garbage(ctx, term, 1)
	check(t, err)
	if want := (map[uint64]bool{201: true, 2: true, 3: true, 4: true}); dropped != 4 || !cmp.Equal(there(), want) {
		t.Errorf("second call dropped %d and left %v; want 4 and %v", dropped, there(), want)
	}
	if got := ask(t, conn, "SELECT DISTINCT _epoch AS e FROM "+p.ID()+"__speed ORDER BY e"); !cmp.Equal(got, []string{"3", "4"}) {
		t.Errorf("epochs left are %v; want 3 and 4", got)
	}
	if diff := cmp.Diff(before, shown(t, conn, "sales")); diff != "" {
		t.Errorf("the live view changed (-want +got):\n%s", diff)
	}
	if dropped, err = db.Garbage(ctx, term, 1); err != nil || dropped != 0 {
		t.Errorf("third call dropped %d, %v; want nothing", dropped, err)
	}
	check(t, db.Flip(ctx, term, schemas.Live{Flip: 5, Build: 3, Cut: 3, Pinned: true}))
	if err := db.Flip(ctx, term, schemas.Live{Flip: 6, Build: 2, Cut: 2}); err == nil {
		t.Error("flipped to a dropped build")
	}
}

// label is the number of a slice's parcel.
func label(id uint64) uint64 { return id >> schemas.ParcelBits & 0xff }
