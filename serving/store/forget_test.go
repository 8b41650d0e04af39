package store_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/serving/store"
)

// Tables of a plan stay as long as it is shown or folded or in a kept build, merged views as
// long as they are shown, and views that others made for ever.
func TestForget(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	db, conn := open(t), admin(t, c)
	gone, built, stays, retiring := newPlan("sales", 1), newPlan("returns", 2), newPlan("sales", 3), newPlan("visits", 4)
	ensure(t, db, true, gone, built, stays, retiring)
	ctx := t.Context()
	check(t, db.PublishViews(ctx, asPlans(stays, built, retiring)))
	check(t, db.TakeOver(ctx, store.RoleBatch, 1))
	check(t, conn.Exec(ctx, "CREATE VIEW theirs AS SELECT 1"))
	covers := map[string]schemas.Covered{built.Hash: {Cut: 1}, stays.Hash: {Cut: 1}}
	check(t, db.SaveBuild(ctx, 1, schemas.Build{Number: 1, Cut: 1, Plans: covers}))
	check(t, db.Flip(ctx, 1, schemas.Live{Flip: 1, Build: 1, Cut: 1}))
	check(t, conn.Exec(ctx, "ALTER TABLE builds DROP PARTITION 0"))
	names := func(ctx context.Context) (out []string) {
		t.Helper()
		rows, err := conn.Query(ctx, "SELECT name FROM system.tables WHERE database = currentDatabase() AND (name LIKE '%__batch' OR engine = 'View') ORDER BY name")
		check(t, err)
		defer rows.Close()
		for rows.Next() {
			var name string
			check(t, rows.Scan(&name))
			out = append(out, name)
		}
		check(t, rows.Err())
		return out
	}
	dropped, err := db.Forget(ctx, 1, asPlans(stays), asPlans(retiring))
	check(t, err)
	want := []string{built.ID() + "__batch", "sales", stays.ID() + "__batch", "sales_states", "theirs", retiring.ID() + "__batch"}
	if got := names(ctx); !cmp.Equal(got, want) {
		t.Errorf("left are %v; want %v", got, want)
	}
	if dropped == 0 {
		t.Error("nothing was dropped")
	}
	if _, err := db.Forget(ctx, 0, nil, nil); err == nil {
		t.Error("a run whose term is over dropped tables")
	}
	if dropped, err = db.Forget(ctx, 1, asPlans(stays), asPlans(retiring)); err != nil || dropped != 0 {
		t.Errorf("the second call dropped %d, %v; want nothing", dropped, err)
	}
}
