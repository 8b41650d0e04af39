package speed_test

import (
	"errors"
	"testing"

	"watershed/internal/devserver/devtest"
	"watershed/internal/faultproxy"
	"watershed/schemas"
	"watershed/serving/store"
	"watershed/speed"
)

// through is the world's database, reached through a proxy.
func (w *world) through(p *faultproxy.Proxy, db *sink) *sink {
	w.t.Helper()
	user, password := devtest.SharedClickHouse(w.t).Admin()
	far, err := store.Open(w.t.Context(), store.Config{Addr: p.Addr(), Database: db.name, User: user, Password: password, NoFsync: true})
	w.check(err)
	w.t.Cleanup(func() {
		if err := far.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return &sink{DB: far, name: db.name}
}

func (w *world) proxy() *faultproxy.Proxy {
	w.t.Helper()
	p, err := faultproxy.New(devtest.SharedClickHouse(w.t).Addr())
	w.check(err)
	w.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return p
}

// A worker is paused inside an insert: the block that it has sent, or only its statement, or
// ClickHouse's answer, is on its way when another takes over, and folds on. What is let go then
// counts not once more, and the worker learns that its time is over.
func TestPausedInsideAnInsert(t *testing.T) {
	for _, c := range []struct {
		name  string
		match string
		turns int
		fault faultproxy.Fault
	}{
		{"statement held", "__speed_in", 0, faultproxy.HoldRequests},
		{"block held", "__speed_in", 1, faultproxy.HoldRequests},
		{"answer held", "__speed_in", 1, faultproxy.HoldAnswers},
		{"position statement held", "positions_in", 0, faultproxy.HoldRequests},
		{"position block held", "positions_in", 1, faultproxy.HoldRequests},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			db, plans := w.database(""), compile(t, w.defs)
			w.cut(w.defs, schemas.Set{})
			w.publish(0, 100)
			proxy := w.proxy()
			far := w.through(proxy, db)
			older := w.start(far, quick())
			t.Cleanup(func() { proxy.Set(faultproxy.Pass) }) // else a failure would wait for what is held
			w.caughtUp(db, plans...)
			hit := proxy.Once(c.match, c.turns, c.fault)
			w.publish(50, 150)
			<-hit
			newer := w.start(db, quick())
			w.publish(100, 200)
			w.caughtUp(db, plans...)
			w.shows(db)
			proxy.Set(faultproxy.Pass)
			w.publish(150, 250)
			var fenced *speed.FencedError
			if err := older.wait(); !errors.As(err, &fenced) || fenced.Term != older.Stats().Term {
				t.Errorf("the paused worker ended with %v; want that term %d is fenced", err, older.Stats().Term)
			}
			w.caughtUp(db, plans...)
			w.shows(db)
			w.epochs(db, plans[1])
			newer.stop()
		})
	}
}

// A connection breaks after ClickHouse has acted, or before: the worker cannot know which, takes a
// new term and reads back.
func TestConnectionBreaksInsideAnInsert(t *testing.T) {
	for _, c := range []struct {
		name  string
		match string
		turns int
		fault faultproxy.Fault
		acted bool
	}{
		{"acted", "__speed_in", 1, faultproxy.DropAnswers, true},
		{"not acted", "__speed_in", 1, faultproxy.HoldRequests, false},
		{"statement lost", "__speed_in", 0, faultproxy.HoldRequests, false},
		{"position stored", "positions_in", 1, faultproxy.DropAnswers, true},
		{"position lost", "positions_in", 1, faultproxy.HoldRequests, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			db, plans := w.database(""), compile(t, w.defs)
			w.cut(w.defs, schemas.Set{})
			w.publish(0, 100)
			proxy := w.proxy()
			r := w.start(w.through(proxy, db), quick())
			t.Cleanup(func() { proxy.Set(faultproxy.Pass) })
			w.caughtUp(db, plans...)
			term := r.Stats().Term
			hit := proxy.Once(c.match, c.turns, c.fault)
			w.publish(50, 150)
			<-hit
			if c.acted {
				plan := plans[1]
				if c.match == "positions_in" {
					plan = plans[0] // which has no states
				}
				w.caughtUp(db, plan)
			}
			proxy.Set(faultproxy.Pass)
			proxy.Reset()
			w.publish(100, 200)
			w.caughtUp(db, plans...)
			w.shows(db)
			w.epochs(db, plans[1])
			if s := r.Stats(); s.Term != term+1 || s.Restarts != 1 {
				t.Errorf("got term %d after %d restarts; want term %d after 1", s.Term, s.Restarts, term+1)
			}
			r.stop()
		})
	}
}
