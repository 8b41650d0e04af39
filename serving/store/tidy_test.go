package store_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// Night after night a slice is computed anew, while another view is held over at the first cut: what
// is kept of the first does not grow with the nights, and what the second needs stays. Bookkeeping goes
// some rows at a time, so that what two halves of the nights have at most is compared.
func TestNightsLeaveNothingBehind(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p, q := newPlan("sales", 1), newPlan("other", 2)
	ensure(t, db, true, p, q)
	ctx := t.Context()
	const nights, keep = 26, 2
	sizes := func() (out []int) {
		all := []string{"(SELECT count() FROM begins FINAL)", "(SELECT count() FROM positions FINAL)"}
		for _, table := range []string{"slices", "condemned", "live", "terms", "builds"} {
			all = append(all, fmt.Sprintf("(SELECT count() FROM %s)", table))
		}
		all = append(all, "(SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table LIKE 'sales%')")
		for _, n := range strings.Fields(ask(t, conn, "SELECT "+strings.Join(all, ", "))[0]) {
			rows, err := strconv.Atoi(n)
			check(t, err)
			out = append(out, rows)
		}
		return out
	}
	events := 0
	var most []int // rows of each table, in the first half of the nights
	for night := uint64(1); night <= nights; night++ {
		check(t, db.TakeOver(ctx, store.RoleSpeed, night))
		check(t, db.TakeOver(ctx, store.RoleBatch, night))
		mark := schemas.Mark{Epoch: night - 1, Position: schemas.Position{Seq: night}}
		if night == 1 {
			check(t, db.Begin(ctx, night, map[string]schemas.Mark{p.Hash: {}, q.Hash: {}}))
		}
		for _, plan := range []*view.Plan{p, q} {
			check(t, db.InsertSpeed(ctx, plan, night, mark, states(t, plan, some(int(night), 3))))
		}
		events += 3
		check(t, db.SavePositions(ctx, night, map[string]schemas.Mark{p.Hash: {Epoch: night, Position: mark.Position}, q.Hash: {Epoch: night, Position: mark.Position}}))
		s := schemas.Slice{Key: fmt.Sprint(night), Plan: p.Hash, Date: 7, ID: schemas.SliceID(night, 1, 0), Groups: uint64(states(t, p, some(1, events)).NumRows())}
		check(t, db.InsertSlices(ctx, p, night, []schemas.SliceStates{{Slice: s.ID, States: states(t, p, some(1, events))}}))
		check(t, db.RegisterSlices(ctx, night, []schemas.Slice{s}))
		check(t, db.SaveBuild(ctx, night, schemas.Build{Number: night, Cut: night, Plans: map[string]schemas.Covered{
			p.Hash: {Cut: night, Slices: []schemas.Slice{s}}, q.Hash: {Cut: 0}}}))
		check(t, db.Flip(ctx, night, schemas.Live{Flip: night, Build: night, Cut: night}))
		_, err := db.Garbage(ctx, night, keep)
		check(t, err)
		for _, name := range []string{"sales", "other"} {
			if got := ask(t, conn, "SELECT sum(flights) FROM "+name); !cmp.Equal(got, []string{fmt.Sprint(events)}) {
				t.Fatalf("night %d: %s counts %v; want %d", night, name, got, events)
			}
		}
		now := sizes()
		if most == nil {
			most = now
		}
		for i, n := range now {
			if night > nights/2 && n > most[i] {
				t.Errorf("after night %d the tables have %v rows; want %v at most, as until night %d", night, now, most, nights/2)
			}
			most[i] = max(most[i], n)
		}
		if damage, err := db.Check(ctx); err != nil || !damage.None() {
			t.Errorf("night %d: damage %q, %v; want none", night, damage, err)
		}
	}
}

// Rows of bookkeeping that ClickHouse does not delete hold nobody up. What is condemned stays condemned as
// long as it is listed, and goes once ClickHouse is well again.
func TestDeletionsThatDoNotEnd(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	db.SetPatience(100 * time.Millisecond)
	ctx := t.Context()
	left := func(table string) string {
		return ask(t, conn, "SELECT count() FROM "+table)[0]
	}
	check(t, conn.Exec(ctx, "SYSTEM STOP MERGES slices"))
	const nights, keep = 30, 2
	for night := uint64(1); night <= nights; night++ {
		if night == nights {
			if left("slices") != fmt.Sprint(nights-1) || left("condemned") == "0" {
				t.Fatalf("%s slices are listed and %s condemned while ClickHouse deletes nothing", left("slices"), left("condemned"))
			}
			check(t, conn.Exec(ctx, "SYSTEM START MERGES slices"))
			db.SetPatience(time.Minute)
		}
		check(t, db.TakeOver(ctx, store.RoleBatch, night))
		s := schemas.Slice{Key: fmt.Sprint(night), Plan: p.Hash, Date: 7, ID: schemas.SliceID(night, 1, 0), Groups: uint64(states(t, p, some(1, 3)).NumRows())}
		check(t, db.InsertSlices(ctx, p, night, []schemas.SliceStates{{Slice: s.ID, States: states(t, p, some(1, 3))}}))
		check(t, db.RegisterSlices(ctx, night, []schemas.Slice{s}))
		check(t, db.SaveBuild(ctx, night, schemas.Build{Number: night, Cut: night, Plans: map[string]schemas.Covered{p.Hash: {Cut: night, Slices: []schemas.Slice{s}}}}))
		check(t, db.Flip(ctx, night, schemas.Live{Flip: night, Build: night, Cut: night}))
		_, err := db.Garbage(ctx, night, keep)
		check(t, err)
	}
	if n, err := strconv.Atoi(left("slices")); err != nil || n > nights/2 {
		t.Errorf("%d slices are listed after ClickHouse deletes again (%v)", n, err)
	}
}
