package store_test

import (
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// counts makes states of a plan that has one count and no dimensions.
func counts(p *view.Plan, n []uint64) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, p.StateSchema())
	defer b.Release()
	b.Field(0).(*array.Uint64Builder).AppendValues(n, nil)
	return b.NewRecord()
}

func TestAudit(t *testing.T) {
	db := open(t)
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	ctx := t.Context()
	check(t, db.TakeOver(ctx, store.RoleBatch, 1))
	check(t, db.TakeOver(ctx, store.RoleSpeed, 1))
	next := uint64(1 << 32)
	slice := func(events []event) uint64 {
		t.Helper()
		next++
		check(t, db.InsertSlices(ctx, p, 1, []schemas.SliceStates{{Slice: next, States: states(t, p, events)}}))
		return next
	}
	epoch := uint64(0)
	speed := func(events []event) uint64 {
		t.Helper()
		epoch++
		check(t, db.InsertSpeed(ctx, p, 1, schemas.Mark{Epoch: epoch, Position: schemas.Position{Seq: epoch}}, states(t, p, events)))
		return epoch
	}
	audit := func(spec schemas.AuditSpec) schemas.Audit {
		t.Helper()
		a, err := db.Audit(ctx, p, spec)
		check(t, err)
		return a
	}
	old, fresh, imported := some(1, 200), some(2, 100), some(3, 50)
	whole := append(append(append([]event{}, old...), fresh...), imported...)
	a, b, i := slice(old), slice(whole), slice(imported)
	e := speed(fresh)
	groups := uint64(states(t, p, whole).NumRows())

	// Equal: the old slice, the epoch and the import make the new slice.
	equal := schemas.AuditSpec{Build: 2, Baseline: 1, From: e, To: e + 1, Old: []uint64{a}, New: []uint64{b}, Imports: []uint64{i}}
	if got, want := audit(equal), (schemas.Audit{View: "sales", Plan: p.Hash, Build: 2, Baseline: 1, Groups: groups, Equal: groups}); !cmp.Equal(got, want) {
		t.Errorf("equal sides: %+v; want %+v", got, want)
	}
	// Shared slices are on neither side, whatever is in them.
	shared := slice(some(9, 40))
	both := equal
	both.Old, both.New = append([]uint64{shared}, both.Old...), append([]uint64{shared}, both.New...)
	if got := audit(both); got.Equal != groups || got.Groups != groups {
		t.Errorf("with a shared slice: %+v", got)
	}
	// Explained: the epoch has five events twice, and the batch says that it removed them.
	twice := append(append([]event{}, fresh...), fresh[:5]...)
	e = speed(twice)
	removed := slice(fresh[:5])
	touched := uint64(states(t, p, fresh[:5]).NumRows())
	explained := schemas.AuditSpec{From: e, To: e + 1, Old: []uint64{a}, New: []uint64{b}, Imports: []uint64{i}, Late: []uint64{removed}}
	if got := audit(explained); got.Explained != touched || got.Equal != groups-touched || got.Drifted != 0 {
		t.Errorf("duplicates: %+v; want %d explained of %d", got, touched, groups)
	}
	// Without that, the same groups drift.
	explained.Late = nil
	if got := audit(explained); got.Drifted != touched || got.Explained != 0 {
		t.Errorf("duplicates not removed: %+v; want %d drifted", got, touched)
	}
	// Drift: the epoch has lost one event. Exactly its group is named.
	lost := fresh[7]
	var rest []event
	for k, ev := range fresh {
		if k != 7 {
			rest = append(rest, ev)
		}
	}
	e = speed(rest)
	got := audit(schemas.AuditSpec{From: e, To: e + 1, Old: []uint64{a}, New: []uint64{b}, Imports: []uint64{i}, Late: []uint64{removed}})
	if got.Drifted != 1 || got.Groups != groups {
		t.Errorf("lost event: %+v; want 1 drifted of %d", got, groups)
	}
	named := false
	for _, w := range got.Worst {
		shop := w.Group["shop"]
		if (shop == "null") != lost.null || (!lost.null && shop != lost.shop) {
			t.Errorf("lost event of shop %q: named %+v", lost.shop, w)
		}
		if w.Measure == "flights" {
			named = w.Drift == 1 && w.Baseline != w.Batch
		}
	}
	if !named {
		t.Errorf("the count's drift of 1 is not named: %+v", got.Worst)
	}
	// Stored and read back.
	got.Build = 5
	check(t, db.SaveAudits(ctx, 1, []schemas.Audit{got, {View: "z", Plan: "q", Build: 5, Skipped: "new"}}))
	back, err := db.Audits(ctx, 3)
	check(t, err)
	if diff := cmp.Diff([]schemas.Audit{got, {View: "z", Plan: "q", Build: 5, Skipped: "new"}}, back); diff != "" {
		t.Errorf("audits (-want +got):\n%s", diff)
	}
}

// Names differ by case, quotes, and from what is ours.
func TestNames(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	a, b := newPlan("Select", 1), newPlan("select", 2)
	ensure(t, db, true, a, b)
	check(t, db.TakeOver(t.Context(), store.RoleSpeed, 1))
	check(t, db.InsertSpeed(t.Context(), a, 1, schemas.Mark{Position: schemas.Position{Seq: 1}}, states(t, a, some(1, 10))))
	if got := ask(t, conn, "SELECT (SELECT sum(flights) FROM `Select`), (SELECT sum(flights) FROM `select`)"); !cmp.Equal(got, []string{`10` + "\t" + `\N`}) && !cmp.Equal(got, []string{"10\t0"}) {
		t.Errorf("views show %q", got)
	}
	for _, names := range [][]string{{"live"}, {"builds_in"}, {"x", "x_states"}} {
		var plans []*view.Plan
		for i, n := range names {
			plans = append(plans, newPlan(n, byte(10+i)))
		}
		if err := db.EnsurePlans(t.Context(), plans, true); err == nil || !strings.Contains(err.Error(), "rename") {
			t.Errorf("views %v: %v; want an error", names, err)
		}
	}
}

// A filter on a dimension must reach the key on both sides, and the live build its partitions.
func TestPartitionsAndKeysAreUsed(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	db, conn := open(t), admin(t, c)
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	ctx := t.Context()
	check(t, db.TakeOver(ctx, store.RoleBatch, 1))
	check(t, db.TakeOver(ctx, store.RoleSpeed, 1))
	build := schemas.Build{Number: 2, Cut: 2, Plans: make(map[string]schemas.Covered)}
	covered := schemas.Covered{Cut: 2}
	for d := range 10 {
		id := schemas.SliceID(1, uint64(d), 0)
		check(t, db.InsertSlices(ctx, p, 1, []schemas.SliceStates{{Slice: id, States: states(t, p, some(d, 50))}}))
		if d < 4 {
			covered.Slices = append(covered.Slices, schemas.Slice{Plan: p.Hash, Date: int32(d), ID: id})
		}
	}
	for e := range 5 {
		check(t, db.InsertSpeed(ctx, p, 1, schemas.Mark{Epoch: uint64(e), Position: schemas.Position{Seq: uint64(e)}}, states(t, p, some(e, 50))))
	}
	build.Plans[p.Hash] = covered
	check(t, db.SaveBuild(ctx, 1, build))
	check(t, db.Flip(ctx, 1, schemas.Live{Flip: 1, Build: 2, Cut: 2}))
	rows, err := conn.Query(ctx, "EXPLAIN indexes = 1 SELECT * FROM sales WHERE hour = toDateTime64(0, 6, 'UTC')")
	check(t, err)
	defer rows.Close()
	var plan string
	for rows.Next() {
		var line string
		check(t, rows.Scan(&line))
		plan += strings.TrimSpace(line) + "\n"
	}
	check(t, rows.Err())
	for _, want := range []string{"Parts: 4/10", "Parts: 3/5", "(slice"} {
		if want = strings.Replace(want, "(slice", "_slice", 1); !strings.Contains(plan, want) {
			t.Errorf("the plan has no %q:\n%s", want, plan)
		}
	}
	if n := strings.Count(plan, "Condition: (hour in"); n < 2 {
		t.Errorf("the key is used %d times, want on both sides:\n%s", n, plan)
	}
}
