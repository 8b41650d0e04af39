package batch_test

import (
	"fmt"
	"strings"
	"testing"

	"watershed/batch"
)

// ClickHouse has lost the rows of a slice that is registered: the next run counts, and computes it
// again instead of building on nothing.
func TestLostSliceIsComputedAgain(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	w.exec(fmt.Sprintf("TRUNCATE TABLE %s.%s__batch", w.name, w.plans()[0].ID()))
	if r := w.batch(nil); r.Slices.Computed != 1 {
		t.Errorf("%d slices were computed; want the lost one", r.Slices.Computed)
	}
	w.exact()
}

// A run that stood still between its lease and its cut, while another one ran whole, publishes
// nothing: its definitions were decided by a cut that is not the last any more.
func TestStaleRunPublishesNoCut(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	cfg := w.config()
	old := w.defs
	cfg.Definitions = &old
	ran := false
	cfg.Progress = func(p batch.Progress) {
		if p.Step == "cut" && !ran {
			ran = true
			w.batch(nil)
		}
	}
	before, _, err := w.log.LastCut(t.Context())
	w.check(err)
	if _, err := batch.Run(t.Context(), w.log, w.db, cfg); err == nil {
		t.Error("the stale run ended without an error")
	}
	after, _, err := w.log.LastCut(t.Context())
	w.check(err)
	if after.Number != before.Number+1 {
		t.Errorf("the last cut is %d; want only the newer run's, %d", after.Number, before.Number+1)
	}
	w.publish(hits(100, 110, 1, 0))
	w.level()
	w.batch(nil)
	w.exact()
}

// A definition that went and came back was not folded in between: a build from before shows a hole.
func TestRollbackOverAHoleIsRefused(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	first := w.batch(nil)
	was := w.defs.Views[0].Where.Text
	take := func(where string) {
		t.Helper()
		w.defs.Views[0].Where.Text = where
		w.batch(func(c *batch.Config) { c.Definitions = &w.defs })
		w.level()
	}
	take("n > 3")
	take("n > 3") // from here on nothing folds the first definition
	w.publish(hits(100, 150, 1, 0))
	w.level()
	take(was)
	w.publish(hits(150, 160, 1, 0))
	w.level()
	if _, err := w.rollback(first.Build, true); err == nil || !strings.Contains(err.Error(), "has not folded") {
		t.Errorf("rollback to build %d: %v; want that events would be missing", first.Build, err)
	}
	w.batch(nil)
	w.exact()
}

// Without a speed layer, what the live build holds is in no epoch: an older build would hide it.
func TestRollbackPastTheSpeedLayerIsRefused(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.check(w.db.EnsurePlans(t.Context(), w.plans(), true))
	first := w.batch(nil)
	w.publish(hits(100, 150, 1, 0))
	w.batch(nil)
	if _, err := w.rollback(first.Build, true); err == nil || !strings.Contains(err.Error(), "cannot be shown yet") {
		t.Errorf("rollback to build %d: %v; want that the speed layer is behind", first.Build, err)
	}
	w.exact()
	w.fold()
	_, err := w.rollback(first.Build, true)
	w.check(err)
	totals := fmt.Sprintf("SELECT hits FROM %s.total", w.name)
	if got := w.rows(totals); len(got) != 1 || strings.TrimSpace(got[0]) != "150" {
		t.Errorf("after the rollback the total is %v; want all 150 published", got)
	}
}

// A field becomes optional while the plan that required it retires: events without it do not fit
// that plan, and stop nothing.
func TestRelaxedFieldStopsNoPlan(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	relaxed := *w.defs.Events[0]
	relaxed.Fields = append(relaxed.Fields[:0:0], relaxed.Fields...)
	for i := range relaxed.Fields {
		relaxed.Fields[i].Optional = relaxed.Fields[i].Name == "site"
	}
	w.defs.Events[0] = &relaxed
	w.batch(func(c *batch.Config) { c.Definitions = &w.defs })
	w.publish(`{"id":1000,"time":"2024-05-01T10:00:00Z","n":1}`)
	w.publish(hits(100, 110, 1, 0))
	w.level() // the retiring plan is folded beside
	w.batch(nil)
	w.exact()
}
