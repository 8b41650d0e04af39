package speed_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/speed"
)

// A window remembers its rows and at most a twelfth more, in at most 14.9 bytes each when it is full of as many as
// by default, and never takes more than that comes to. Segments of few events have more to spare.
func TestWindowBytes(t *testing.T) {
	for _, rows := range []int{1000, 100_000, speed.DefaultHorizonRows()} {
		for _, events := range []int{rows / 5, rows + rows/4} {
			held, bytes := speed.WindowSize(rows, events)
			t.Logf("%d of %d rows: %d events in %d bytes, %.1f each", events, rows, held, bytes, float64(bytes)/float64(held))
			if held < min(rows, events) || held > rows+rows/speed.Generations+1 {
				t.Errorf("of %d rows %d are remembered", rows, held)
			}
			const segment, each = 192, 14.9 // bytes: a segment's head, and buckets that are not full; an event
			if limit := 1024*segment + each*float64(rows+rows/speed.Generations); float64(bytes) > limit {
				t.Errorf("%d events take %d bytes; want %.0f at most", held, bytes, limit)
			}
		}
	}
}

// A set of fingerprints knows what was added and not dropped, whatever its segments went through.
func TestPrints(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		most := rapid.SampledFrom([]int{1, 3000, 60_000}).Draw(r, "most")
		steps := rapid.SliceOfN(rapid.IntRange(0, 9000), 1, 20).Draw(r, "events by generation")
		if err := speed.CheckPrints(most, steps, rapid.Uint64().Draw(r, "seed")); err != nil {
			r.Fatal(err)
		}
	})
}

// BenchmarkWindow looks for duplicates among as many events as are remembered by default.
func BenchmarkWindow(b *testing.B) {
	add := speed.FullWindow()
	for b.Loop() {
		add(1 << 14)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N<<14), "ns/event")
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
