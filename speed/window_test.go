package speed_test

import (
	"testing"
	"time"

	"watershed/schemas"
	"watershed/speed"
)

// A window remembers its rows and at most an eighth more, in at most 64 bytes each; in 32 if it is
// as large as by default.
func TestWindowBytes(t *testing.T) {
	for _, rows := range []int{1000, 100_000, speed.DefaultHorizonRows()} {
		held, bytes := speed.WindowSize(rows, rows+rows/4)
		t.Logf("%d rows: %d events in %d bytes, %.1f each", rows, held, bytes, float64(bytes)/float64(held))
		if held < rows || held > rows+rows/speed.Generations+1 {
			t.Errorf("of %d rows %d are remembered", rows, held)
		}
		// The youngest table is larger than what it holds until it is full.
		limit := 64 * int64(rows) * (speed.Generations + 1) / speed.Generations
		if rows == speed.DefaultHorizonRows() {
			limit /= 2
		}
		if bytes > max(limit, 1024*24*(speed.Generations+1)) {
			t.Errorf("%d rows take %d bytes; want %d or fewer", rows, bytes, limit)
		}
	}
}

// A worker that was restarted finds the same duplicates as one that was not, and misses the same:
// those whose first occurrence is further back than the window reaches.
func TestRestartDoesNotReopenTheWindow(t *testing.T) {
	w := newWorld(t)
	w.cut(w.defs, schemas.Set{})
	total := compile(t, w.defs)[2]
	const rows = 800
	cfg := quick()
	cfg.HorizonRows = rows
	steady, restarted := w.database("_steady"), w.database("_restarted")
	s, r := w.start(steady, cfg), w.start(restarted, cfg)
	again := func() {
		w.caughtUp(steady, total)
		w.caughtUp(restarted, total)
		r.stop()
		r = w.start(restarted, cfg)
	}
	counts := func(db *sink) int64 {
		w.caughtUp(db, total)
		return w.number(w.rows(db, "SELECT hits FROM "+db.name+".total")[0][0])
	}
	same := func(want int) {
		t.Helper()
		if a, b := counts(steady), counts(restarted); a != int64(want) || b != int64(want) {
			t.Errorf("%d events counted, and %d after restarts; want %d", a, b, want)
		}
	}
	w.publish(0, 100)
	again()
	w.publish(50, 150)
	again()
	w.publish(0, 150)
	same(150)
	again()
	for id := 1000; id < 1000+2*rows; id += 100 { // pushes all others out of the window
		w.publish(id, id+100)
	}
	again()
	w.publish(0, 150)
	same(150 + 2*rows + 150) // until the next batch
	again()
	w.publish(0, 150)
	same(150 + 2*rows + 150)
	s.stop()
	r.stop()
}

// A new horizon is no reason to forget the old ones: what lies within it in log time is found,
// though tables change all the time.
func TestHorizonOfLogTime(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	w.cut(w.defs, schemas.Set{})
	cfg := quick()
	cfg.Horizon = 10 * time.Minute
	cfg.HorizonRows = 1 << 20
	r := w.start(db, cfg)
	for i := range 10 {
		w.publish(0, 100*(i+1))
		w.caughtUp(db, plans...)
	}
	w.shows(db)
	if s := r.Stats(); s.Events != s.Duplicates+uint64(len(w.ids)) {
		t.Errorf("of %d events %d were duplicates; %d are different", s.Events, s.Duplicates, len(w.ids))
	}
	r.stop()
}
