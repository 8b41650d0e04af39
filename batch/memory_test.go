package batch_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"watershed/batch"
)

// A batch whose memory holds no more than a block's groups gives what one with enough memory gives: in its
// views, in its slices, and in its audit.
func TestMoreGroupsThanMemory(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprintf("workers_%d", workers), func(t *testing.T) {
			w := newWorld(t)
			w.archive()
			little := func(c *batch.Config) {
				*c = c.Shared(1)
				c.Memory, c.Workers = 1, workers
			}
			w.importFile(hits(0, 500, 1, 0) + hits(500, 600, 2, 0))
			w.publish(hits(300, 900, 1, 0)) // some came before
			w.fold()
			w.batch(little)
			w.exact()
			w.importFile(hits(800, 1100, 1, 1)) // some came before, with other payload
			w.publish(hits(1000, 1400, 1, 2) + hits(2000, 2100, 3, 0))
			w.level()
			if r := w.batch(little); r.Drifted() > 0 || r.Slices.Computed == 0 {
				t.Errorf("computed %d slices, audit %+v", r.Slices.Computed, r.Audit)
			}
			w.exact()
			// What was registered is what a rebuild with enough memory counts, and the other way round.
			w.compacted()
			if r := w.batch(func(c *batch.Config) { c.Rebuild = true }); r.Slices.Computed == 0 || len(r.Rebuilt) != len(w.plans()) {
				t.Errorf("rebuilt %+v", r.Rebuilt)
			}
			w.batch(func(c *batch.Config) { little(c); c.Rebuild, c.Replace = true, true })
			w.compacted()
			w.exact()
			if r := w.batch(nil); r.Slices.Computed > 0 {
				t.Errorf("%d slices of little memory were not used again", r.Slices.Computed)
			}
			scratch, err := w.db.Scratch(t.Context())
			w.check(err)
			cfg := w.config()
			little(&cfg)
			sound, err := batch.Verify(t.Context(), w.db, scratch, cfg)
			w.check(err)
			w.check(scratch.Drop(t.Context()))
			if !sound.Sound() {
				t.Errorf("verify found %+v", sound)
			}
		})
	}
}

// compacted fails the test unless each registered slice has a row for each of its groups, and as many as
// were registered.
func (w *world) compacted() {
	w.t.Helper()
	for _, p := range w.plans() {
		dims := make([]string, 0, len(p.Dimensions))
		for _, d := range p.Dimensions {
			dims = append(dims, d.Name)
		}
		group := strings.Join(append(dims, "_slice"), ", ")
		wrong := w.rows(fmt.Sprintf(`SELECT slice, max(groups), count(), uniqExact(%[3]s) FROM %[1]s.slices LEFT JOIN %[1]s.%[2]s__batch ON slice = _slice
			WHERE plan = '%[4]s' AND slice NOT IN (SELECT slice FROM %[1]s.condemned) GROUP BY slice HAVING max(groups) != count() OR count() != uniqExact(%[3]s)`, w.name, p.ID(), group, p.Hash))
		if len(wrong) > 0 {
			w.t.Errorf("view %s: slice, registered groups, rows, groups: %v", p.Name(), wrong)
		}
	}
}

// A batch that dies at the first or second write of a kind, before or after it took effect, leaves nothing
// of a slice that comes in parts that counts.
func TestKilledWithLittleMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	little := w.config().Shared(1)
	little.Memory = 1
	day := 1
	for _, write := range []string{"InsertSlices", "CondenseSlice", "RegisterSlices"} {
		for n := range 4 {
			at, done := 1+n/2, n%2 == 1
			day++
			w.publish(hits(1000*day, 1000*day+10, day, 0) + hits(1000*day, 1000*day+5, day, 0))
			w.archived() // so that the date has two files
			w.publish(hits(1000*day+5, 1000*day+20, day, 0))
			w.level()
			db := &mortal{DB: w.db, at: at, done: done, of: []string{write}}
			if _, err := batch.Run(t.Context(), w.log, db, little); !errors.Is(err, errLost) || db.died != write {
				t.Fatalf("killed at %s %d: died at %q with %v", write, at, db.died, err)
			}
			w.exact() // of the build before, and the speed layer
			if r := w.batch(func(c *batch.Config) { *c = little }); r.Drifted() > 0 || r.Slices.Computed > len(w.plans()) {
				t.Errorf("killed at %s %d, done: %t: computed %d slices, audit %+v", write, at, done, r.Slices.Computed, r.Audit)
			}
			w.exact()
			w.compacted()
		}
	}
}
