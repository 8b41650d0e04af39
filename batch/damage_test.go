package batch_test

import (
	"fmt"
	"strings"
	"testing"

	"watershed/serving/store"
)

// throws fails the test unless a view answers with an error.
func (w *world) throws(view string) {
	w.t.Helper()
	got, err := w.db.Query(w.t.Context(), store.Query{SQL: fmt.Sprintf("SELECT * FROM %s.%s", w.name, view)})
	if err != nil {
		return
	}
	defer got.Close()
	for got.Next() {
	}
	if got.Err() == nil {
		w.t.Errorf("view %s answers; want an error while something is missing", view)
	}
}

// Whatever ClickHouse loses, a check names it, and from then on the views that rest on it throw; the
// others answer exactly. The next batch computes what is missing, and no operator is needed.
func TestWhatClickHouseLosesIsComputedAgain(t *testing.T) {
	for name, lose := range map[string]struct {
		sql     func(w *world, batch, speed string) string
		missing string
		all     bool // views of both plans are hit
	}{
		"slices": {func(w *world, batch, _ string) string {
			partition := w.rows(fmt.Sprintf("SELECT any(partition) FROM system.parts WHERE active AND database = '%s' AND table = '%s'", w.name, batch))[0]
			return fmt.Sprintf("ALTER TABLE %s.%s DROP PARTITION %s", w.name, batch, strings.Trim(partition, "\" "))
		}, "groups instead of", false},
		"slice table": {func(w *world, batch, _ string) string { return fmt.Sprintf("DROP TABLE %s.%s SYNC", w.name, batch) },
			"the table of its slices is gone", false},
		"registered slices": {func(w *world, _, _ string) string { return fmt.Sprintf("TRUNCATE TABLE %s.slices", w.name) },
			"are not registered", true},
		"build": {func(w *world, _, _ string) string {
			live, err := w.db.Live(w.t.Context())
			w.check(err)
			return fmt.Sprintf("ALTER TABLE %s.builds DROP PARTITION %d", w.name, live.Build)
		}, "the rows of build", true},
		"live": {func(w *world, _, _ string) string { return fmt.Sprintf("TRUNCATE TABLE %s.live", w.name) },
			"no row says which build is live", true},
		"speed table": {func(w *world, _, speed string) string { return fmt.Sprintf("DROP TABLE %s.%s SYNC", w.name, speed) },
			"the table of its speed states is gone", false},
		"beginnings": {func(w *world, _, _ string) string { return fmt.Sprintf("TRUNCATE TABLE %s.begins", w.name) },
			"where its speed states begin", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.archive()
			w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
			stop := w.foldUntil()
			w.batch(nil)
			w.publish(hits(200, 250, 3, 0))
			w.level()
			stop()
			sites := w.plans()[0]
			w.exec(lose.sql(w, sites.ID()+"__batch", sites.ID()+"__speed"))
			damage, err := w.db.Check(t.Context())
			w.check(err)
			if !strings.Contains(damage.String(), lose.missing) || lose.all != (damage.Of(w.plans()[1].Hash) != "") {
				t.Errorf("damage is %q; want %q", damage, lose.missing)
			}
			w.check(w.db.Seal(t.Context(), damage))
			w.throws("sites")
			w.throws("sites_states")
			if lose.all {
				w.throws("total")
			}
			w.fold() // makes the tables that are missing
			w.throws("sites")
			if r := w.batch(nil); !r.Flipped || r.Drifted() > 0 {
				t.Errorf("healed by %+v; want a build without drift", r)
			}
			w.exact()
			w.publish(hits(250, 260, 3, 0))
			w.level()
			w.batch(nil)
			w.exact()
			if damage, err := w.db.Check(t.Context()); err != nil || !damage.None() {
				t.Errorf("afterwards: %q, %v", damage, err)
			}
		})
	}
}

// Without any of ClickHouse, history and log bring everything back. Until then nothing answers.
func TestTheWholeDatabaseIsLost(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 100, 1, 0))
	stop := w.foldUntil()
	w.batch(nil)
	w.publish(hits(100, 150, 2, 0))
	w.level()
	stop()
	w.exec(fmt.Sprintf("DROP DATABASE %s SYNC", w.name))
	w.reopen()
	w.throws("sites")
	w.fold()
	w.throws("sites")
	if r := w.batch(nil); !r.Flipped {
		t.Errorf("%+v; want that it is live", r)
	}
	w.exact()
}
