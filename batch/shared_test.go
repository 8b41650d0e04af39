package batch_test

import (
	"testing"

	"watershed/batch"
)

// A date that several workers share gives what one gives, and while the memory holds its groups it comes in
// one record: nothing of it is left to ClickHouse to merge.
func TestSharedDate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.archive()
	for i := range 6 { // files, which are what workers share
		w.importFile(hits(1000*i, 1000*i+300, 1, i))
	}
	w.publish(hits(100, 900, 1, 0)) // some came before
	w.fold()
	db := &mortal{DB: w.db, of: []string{"CondenseSlice"}}
	cfg := w.config().Shared(1)
	cfg.Workers = 4
	r, err := batch.Run(t.Context(), w.log, db, cfg)
	w.check(err)
	if r.Slices.Computed == 0 || db.calls > 0 {
		t.Errorf("computed %d slices, and had ClickHouse merge %d", r.Slices.Computed, db.calls)
	}
	w.exact()
	w.compacted()
	// One worker counts the same, value by value.
	if r := w.batch(func(c *batch.Config) { c.Rebuild, c.Workers = true, 1 }); r.Slices.Computed == 0 || len(r.Rebuilt) != len(w.plans()) {
		t.Errorf("rebuilt %+v", r.Rebuilt)
	}
}
