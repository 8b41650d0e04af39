package speed_test

import (
	"sync"
	"testing"
	"time"

	"watershed/schemas"
	"watershed/speed"
)

// Every flush is told once: what is told adds up to what the worker counted, and its times fit those of the test.
func TestFlushesAreTold(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	var mu sync.Mutex // guards told
	var told []speed.Flush
	cfg := quick()
	cfg.Flushed = func(f speed.Flush) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, f)
	}
	w.cut(w.defs, schemas.Set{})
	began := time.Now()
	r := w.start(db, cfg)
	for i := range 5 {
		w.publish(100*i, 100*i+150)
		w.caughtUp(db, plans...)
	}
	r.stop()
	took, stats := time.Since(began), r.Stats()
	rows, views := int64(0), make(map[string]bool)
	for _, f := range told {
		rows += f.Rows
		for _, v := range f.Views {
			views[v] = true
		}
		if f.Took <= 0 || f.Took > took || f.Age < 0 || f.Age > took {
			t.Errorf("a flush took %s at an age of %s; the test took %s", f.Took, f.Age, took)
		}
		if (f.Rows > 0) != (len(f.Views) > 0) || f.Rows > 0 && f.Age < f.Took {
			t.Errorf("a flush of %d rows of %v took %s and has the age %s", f.Rows, f.Views, f.Took, f.Age)
		}
	}
	if uint64(rows) != stats.States || uint64(len(told)) != stats.Flushes || stats.Retries != 0 {
		t.Errorf("told of %d rows in %d flushes; the worker counted %d in %d, and %d retries", rows, len(told), stats.States, stats.Flushes, stats.Retries)
	}
	for _, name := range []string{"sites", "total"} {
		if !views[name] {
			t.Errorf("no flush told of view %s; told were %v", name, views)
		}
	}
}
