package store_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/serving/store"
)

// Speed states that begin behind the cut of the live build are not shown over it: the view answers
// with an error, and again with values as soon as a build reaches as far.
func TestBeginsEndAnswersThatWouldHaveAGap(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p, q := newPlan("sales", 1), newPlan("other", 2)
	ensure(t, db, true, p, q)
	ctx := t.Context()
	check(t, db.TakeOver(ctx, store.RoleBatch, 1))
	check(t, db.TakeOver(ctx, store.RoleSpeed, 1))
	at := func(epoch, seq uint64) schemas.Mark {
		return schemas.Mark{Epoch: epoch, Position: schemas.Position{Seq: seq, Hash: 1<<63 | seq}}
	}
	begins := func() map[string]schemas.Mark {
		t.Helper()
		got, err := db.Begins(ctx, asPlans(p, q))
		check(t, err)
		return got
	}
	if got := begins(); len(got) != 0 {
		t.Errorf("begins of plans that never ran: %v", got)
	}
	check(t, db.Begin(ctx, 1, map[string]schemas.Mark{p.Hash: {}, q.Hash: {}}))
	check(t, db.InsertSpeed(ctx, p, 1, at(0, 3), states(t, p, some(1, 5))))
	before := shown(t, conn, "sales")

	check(t, db.Begin(ctx, 1, map[string]schemas.Mark{p.Hash: at(2, 20)}))
	if want := (map[string]schemas.Mark{p.Hash: at(2, 20), q.Hash: {}}); !cmp.Equal(begins(), want) {
		t.Errorf("begins are %v; want %v", begins(), want)
	}
	throws := func(view string) {
		t.Helper()
		if _, err := tryAsk(ctx, conn, "SELECT * FROM "+view); err == nil || !strings.Contains(err.Error(), "view sales: its speed states do not reach back") {
			t.Errorf("%s: %v; want that states are missing", view, err)
		}
	}
	throws("sales")
	throws("sales_states")
	throws("(SELECT sum(flights) FROM sales WHERE flights > 100)")
	shown(t, conn, "other")

	slice := schemas.Slice{Key: "k", Plan: p.Hash, ID: schemas.SliceID(1, 1, 0)}
	check(t, db.InsertSlices(ctx, p, 1, []schemas.SliceStates{{Slice: slice.ID, States: states(t, p, some(1, 5))}}))
	counts, err := db.CountSlices(ctx, asPlans(p), map[string][]uint64{p.Hash: {slice.ID}})
	check(t, err)
	slice.Groups = counts[slice.ID]
	check(t, db.RegisterSlices(ctx, 1, []schemas.Slice{slice}))
	for n, cut := range []uint64{1, 2} { // the first does not reach as far, whatever the build's own cut is
		number := uint64(2 + n)
		check(t, db.SaveBuild(ctx, 1, schemas.Build{Number: number, Cut: number, Plans: map[string]schemas.Covered{p.Hash: {Cut: cut, Slices: []schemas.Slice{slice}}, q.Hash: {Cut: number}}}))
		check(t, db.Flip(ctx, 1, schemas.Live{Flip: number, Build: number, Cut: number}))
		if cut == 1 {
			throws("sales")
		}
	}
	if diff := cmp.Diff(before, shown(t, conn, "sales")); diff != "" {
		t.Errorf("over a build up to where the states begin (-want +got):\n%s", diff)
	}
	// Table begins has lost its newest row of the plan. The older one would let a build at cut 1 answer with
	// a gap: the check misses the row, and a seal brings it back, no more.
	if got, err := db.Check(ctx); err != nil || !got.None() {
		t.Errorf("before: %s, %v", got, err)
	}
	check(t, conn.Exec(ctx, "ALTER TABLE begins DELETE WHERE epoch = 2 SETTINGS mutations_sync = 1"))
	check(t, conn.Exec(ctx, "INSERT INTO begins (plan, shard, epoch, seq, hash, term) VALUES ('"+p.Hash+"', 0, 0, 0, 0, 1)"))
	damage, err := db.Check(ctx)
	check(t, err)
	if want := "begin at cut 2 is not where it was stored"; !strings.Contains(damage.Of(p.Hash), want) || damage.Of(q.Hash) != "" {
		t.Errorf("damage is %q; want that of sales: %s", damage, want)
	}
	check(t, db.Seal(ctx, damage))
	if got := begins()[p.Hash].Epoch; got != 2 {
		t.Errorf("after the seal states begin at cut %d; want 2", got)
	}
	if got, err := db.Check(ctx); err != nil || !got.None() {
		t.Errorf("afterwards: %s, %v", got, err)
	}
	shown(t, conn, "sales")

	check(t, db.TakeOver(ctx, store.RoleSpeed, 2))
	if err := db.Begin(ctx, 1, map[string]schemas.Mark{p.Hash: at(9, 90)}); err == nil {
		t.Error("an older term began")
	}
}
