package store_test

import (
	"testing"

	"watershed/internal/devserver/devtest"
)

// A merged view is made anew when its plan has changed, when it is gone, and when somebody has put another
// in its place; and left alone otherwise.
func TestPublishViewsAgain(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p, changed := newPlan("sales", 1), newPlan("sales", 2)
	ensure(t, db, true, p, changed)
	ctx := t.Context()
	uuid := func() string {
		t.Helper()
		return ask(t, conn, "SELECT uuid FROM system.tables WHERE database = currentDatabase() AND name = 'sales'")[0]
	}
	shows := func(hash string) bool {
		t.Helper()
		return ask(t, conn, "SELECT position(as_select, '"+hash+"') > 0 AS shown FROM system.tables WHERE database = currentDatabase() AND name = 'sales'")[0] == "1"
	}
	check(t, db.PublishViews(ctx, asPlans(p)))
	before := uuid()
	check(t, db.PublishViews(ctx, asPlans(p)))
	if uuid() != before {
		t.Error("a view that has not changed was made anew")
	}
	check(t, db.PublishViews(ctx, asPlans(changed)))
	if !shows(changed.Hash) {
		t.Error("the view does not show the changed plan")
	}
	check(t, db.PublishViews(ctx, asPlans(p)))
	if !shows(p.Hash) {
		t.Error("the view does not show the plan that it was changed back to")
	}
	for _, damage := range []string{"DROP VIEW sales", "CREATE OR REPLACE VIEW sales AS SELECT 1"} {
		check(t, conn.Exec(ctx, damage))
		check(t, db.PublishViews(ctx, asPlans(p)))
		if !shows(p.Hash) {
			t.Errorf("after %q the view does not show its plan", damage)
		}
	}
}
