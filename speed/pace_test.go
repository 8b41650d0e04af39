package speed_test

import (
	"testing"

	"watershed/schemas"
)

// Flushes become rare while ClickHouse does not merge, and frequent again when it does.
func TestFlushIntervalFollowsTheParts(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	w.cut(w.defs, schemas.Set{})
	cfg := quick()
	r := w.start(db, cfg)
	w.publish(0, 10)
	w.caughtUp(db, plans...)
	table := db.name + "." + plans[1].ID() + "__speed"
	w.statement("SYSTEM STOP MERGES " + table)
	next := 10
	w.until("rarer flushes", func() bool {
		w.publish(next, next+1)
		next++
		return r.Stats().FlushEvery >= 8*cfg.FlushEvery
	})
	if s := r.Stats(); s.Parts < 20 {
		t.Errorf("flushes became rare at %d parts", s.Parts)
	}
	w.statement("SYSTEM START MERGES " + table)
	w.until("frequent flushes", func() bool {
		w.statement("OPTIMIZE TABLE " + table + " FINAL")
		return r.Stats().FlushEvery == cfg.FlushEvery
	})
	w.caughtUp(db, plans...)
	w.shows(db)
	r.stop()
}
