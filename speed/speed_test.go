package speed_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/speed"
)

func TestRestartGoesOnFromThePositionsReadBack(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	w.publish(0, 50)
	w.cut(w.defs, schemas.Set{})
	for i := range 4 {
		w.publish(100*i, 100*i+150) // the first 50 came before
		r := w.start(db, quick())
		w.publish(100*i+20, 100*i+170)
		w.caughtUp(db, plans...)
		w.shows(db)
		if got, want := r.Stats().Term, uint64(i+1); got != want {
			t.Errorf("start %d has term %d; want %d", i, got, want)
		}
		r.stop()
	}
	w.epochs(db, plans[1])
}

// A stop is a flush: what was read is there, however long the interval is.
func TestStopFlushes(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 500)
	r := w.start(db, speed.Config{FlushEvery: time.Hour})
	w.until("the log read", func() bool { return r.Stats().Events == 500 })
	r.stop()
	w.shows(db)
}

// No state spans a cut, and what the sizes and intervals of flushes are changes nothing.
func TestFlushEndsAtCut(t *testing.T) {
	for _, cfg := range []speed.Config{{FlushEvery: time.Hour}, {FlushEvery: time.Hour, FlushRows: 1}, quick()} {
		t.Run(fmt.Sprintf("%s/%d", cfg.FlushEvery, cfg.FlushRows), func(t *testing.T) {
			w := newWorld(t)
			db, plans := w.database(""), compile(t, w.defs)
			w.publish(0, 30)
			for i := range 4 {
				w.cut(w.defs, schemas.Set{})
				w.publish(30*i, 30*i+60)
				w.publish(30*i+10, 30*i+70)
			}
			last := w.cut(w.defs, schemas.Set{})
			r := w.start(db, cfg)
			w.until("the last cut passed", func() bool { return r.Stats().Epoch == last.Number })
			r.stop()
			w.caughtUp(db, plans...)
			w.epochs(db, plans[1])
		})
	}
}

func TestOlderOfTwoWorkersStops(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	older := w.start(db, quick())
	w.caughtUp(db, plans...)
	newer := w.start(db, quick())
	w.until("the newer has begun", func() bool { return newer.Stats().Read > 0 })
	w.publish(50, 300)
	var fenced *speed.FencedError
	if err := older.wait(); !errors.As(err, &fenced) || fenced.Term != older.Stats().Term {
		t.Errorf("the older worker ended with %v; want that term %d is fenced", err, older.Stats().Term)
	}
	w.publish(200, 400)
	w.caughtUp(db, plans...)
	w.shows(db)
	newer.stop()
}

// An insert that nobody knows the outcome of counts once, if it was done and if it was not.
func TestUnknownOutcomeCountsOnce(t *testing.T) {
	for _, done := range []bool{false, true} {
		for _, op := range []string{"InsertSpeed", "SavePositions"} {
			t.Run(fmt.Sprintf("%s,done=%t", op, done), func(t *testing.T) {
				w := newWorld(t)
				db, plans := w.database(""), compile(t, w.defs)
				w.cut(w.defs, schemas.Set{})
				w.publish(0, 100)
				n := 0
				db.on(func(name string, _ *view.Plan) (error, error) {
					if name == op {
						n++
					}
					switch {
					case name != op || n != 2:
						return nil, nil
					case done:
						return nil, errLost
					}
					return errLost, nil
				})
				r := w.start(db, quick())
				w.publish(50, 150)
				w.until("the fault", func() bool { return r.Stats().Restarts == 1 })
				w.publish(100, 200)
				w.caughtUp(db, plans...)
				w.shows(db)
				if s := r.Stats(); s.Term != 2 || s.Restarts != 1 {
					t.Errorf("got term %d after %d restarts; want term 2 after 1", s.Term, s.Restarts)
				}
				r.stop()
			})
		}
	}
}

// A plan that ClickHouse refuses holds up nobody, and is level with the others when it no
// longer does.
func TestRefusedPlanGoesApartAndRejoins(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	none, sites, total := plans[0], plans[1], plans[2]
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	var refuse atomic.Bool
	refuse.Store(true)
	db.on(func(op string, p *view.Plan) (error, error) {
		if op == "InsertSpeed" && p.Name() == "sites" && refuse.Load() {
			return refusal{}, nil
		}
		return nil, nil
	})
	r := w.start(db, quick())
	w.until("a refusal", func() bool { return r.Stats().Refused > 0 })
	w.publish(100, 200)
	w.cut(w.defs, schemas.Set{})
	w.publish(150, 250)
	w.caughtUp(db, none, total)
	if w.behind(db, 2, sites) == "" { // 1 is the cut
		t.Error("states that were refused have a position")
	}
	refuse.Store(false)
	w.caughtUp(db, sites)
	w.publish(200, 300)
	w.cut(w.defs, schemas.Set{})
	w.publish(250, 350)
	w.caughtUp(db, plans...)
	w.shows(db)
	w.epochs(db, sites)
	if s := r.Stats(); s.Restarts != 0 {
		t.Errorf("got %s; want no restart", asJSON(s))
	}
	r.stop()
}

// The same, if it is refused from the start and the others are far ahead.
func TestRefusedPlanFarBehind(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	none, sites, total := plans[0], plans[1], plans[2]
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	var refuse atomic.Bool
	refuse.Store(true)
	db.on(func(op string, p *view.Plan) (error, error) {
		if op == "InsertSpeed" && p.Name() == "sites" && refuse.Load() {
			return refusal{}, nil
		}
		return nil, nil
	})
	cfg := speed.Config{FlushEvery: 100 * time.Millisecond} // or there would be hundreds of flushes
	r := w.start(db, cfg)
	w.publishMany(speed.ApartBehind + 10)
	w.caughtUp(db, none, total)
	r.stop()
	r = w.start(db, cfg)
	w.until("a refusal", func() bool { return r.Stats().Refused > 0 })
	w.publish(50, 200)
	w.caughtUp(db, none, total)
	refuse.Store(false)
	w.caughtUp(db, sites)
	w.publish(150, 300)
	w.caughtUp(db, plans...)
	w.shows(db)
	if s := r.Stats(); s.Restarts != 0 {
		t.Errorf("got %s; want no restart", asJSON(s))
	}
	r.stop()
}

// A plan begins at the cut that defines it, and knows the duplicates of what came before: also
// if no plan read the type before, and after restarts.
func TestNewPlanBeginsAtItsCut(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	first := parse(t, hitEvent+strings.ReplaceAll(otherViews, "hit\n", "other\n")+
		"---\nevent: other\nid: id\ntime: time\nfields: {id: int64, time: timestamp, n: int64}\n")
	w.cut(first, schemas.Set{})
	w.publish(0, 100)
	w.each, w.sites = map[uint64]map[string][2]int64{}, map[string][2]int64{} // before its cut
	r := w.start(db, quick())
	w.caughtUp(db, compile(t, first)...)
	w.cut(w.defs, schemas.Set{})
	w.publish(50, 150)
	w.caughtUp(db, compile(t, w.defs)...)
	r.stop()
	w.publish(90, 200)
	r = w.start(db, quick())
	w.caughtUp(db, compile(t, w.defs)...)
	r.stop()
	w.epochs(db, compile(t, w.defs)[1])
}

// What the live build still shows goes on until a flip, beside what takes its place.
func TestRetiringPlanGoesOn(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	next := parse(t, hitEvent+strings.Replace(sitesView, "count()", "count(n > 3)", 1))
	r := w.start(db, quick())
	w.caughtUp(db, compile(t, w.defs)...)
	w.cut(next, w.defs)
	w.publish(50, 150)
	w.caughtUp(db, append(compile(t, w.defs), compile(t, next)...)...)
	w.shows(db)
	w.epochs(db, compile(t, w.defs)[1])
	w.cut(next, schemas.Set{}) // flipped: nobody shows it any more
	w.publish(100, 200)
	w.caughtUp(db, compile(t, next)...)
	r.stop()
	info, err := w.log.Info(t.Context())
	w.check(err)
	if w.behind(db, info.Last, compile(t, w.defs)[1]) == "" {
		t.Error("a plan that is retired is still folded")
	}
}

// A log that is not the one that was folded ends the worker, with what is to be done.
func TestLogRecreated(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	r := w.start(db, quick())
	w.caughtUp(db, plans...)
	r.stop()
	conn, err := nats.Connect(w.url)
	w.check(err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	w.check(err)
	w.check(js.DeleteStream(t.Context(), "WATERSHED"))
	w.log.Close()
	w.log = w.openLog()
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 200)
	w.publish(0, 200)
	err = w.start(db, quick()).wait()
	var changed interface{ LogChanged() bool }
	if !errors.As(err, &changed) || !strings.Contains(err.Error(), "the log has changed") {
		t.Errorf("the worker ended with %v; want that the log has changed", err)
	}
}
