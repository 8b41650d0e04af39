package speed_test

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"watershed/internal/faultproxy"
	"watershed/schemas"
	"watershed/speed"
)

// While ClickHouse is away the log grows, and not the worker: it folds nothing that it cannot store.
// Back again, it folds all of the backlog, in bounded memory though every event is a group of its own.
func TestBacklogTakesBoundedMemory(t *testing.T) {
	w := newWorld(t)
	w.defs = parse(t, hitEvent+sitesView+otherViews+"---\nview: each\nfrom: hit\ndimensions: {id: id}\nmeasures: {hits: count()}\n")
	db, plans := w.database(""), compile(t, w.defs)
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	proxy := w.proxy()
	r := w.start(w.through(proxy, db), speed.Config{FlushRows: 20_000})
	w.caughtUp(db, plans...)
	proxy.Set(faultproxy.Refuse)
	const events = 300_000
	for id := 100; id < events; id += 1000 {
		w.publish(id, min(id+1000, events))
	}
	w.until("a restart, and a lag", func() bool {
		s := r.Stats()
		return s.Restarts > 0 && s.End > s.Flushed && s.Lag > 0
	})
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // so that it is known often what is in use
	runtime.GC()
	before, peak := heap(), uint64(0)
	began := time.Now()
	proxy.Set(faultproxy.Pass)
	info, err := w.log.Info(t.Context())
	w.check(err)
	w.until("states up to the log's end", func() bool {
		peak = max(peak, heap())
		return w.behind(db, info.Last, plans...) == ""
	})
	took := time.Since(began)
	w.shows(db)
	// Two flushes of 20,000 groups and the chunk that filled one, three chunks of 65,536 events on their
	// way, and 300,000 events of 64 bytes in the window; 70 MB were measured.
	const limit = 160 << 20
	t.Logf("%d events in %s, %.0f a second; %d MB before, %d MB at most", events, took.Round(time.Millisecond), events/took.Seconds(), before>>20, peak>>20)
	if peak > before+limit {
		t.Errorf("%d bytes were in use, after %d before; want %d more at most", peak, before, limit)
	}
	r.stop()
}

// heap is what was in use after the latest collection.
func heap() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}
