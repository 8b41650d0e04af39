package speed_test

import (
	"fmt"
	"strings"
	"testing"

	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/speed"
)

// begins is where a plan begins.
func (w *world) begins(db *sink, p *view.Plan) schemas.Mark {
	w.t.Helper()
	got, err := db.Begins(w.t.Context(), []*view.Plan{p})
	w.check(err)
	m, ok := got[p.Hash]
	if !ok {
		w.t.Fatalf("plan %s has no beginning", p.Name())
	}
	return m
}

// invariant fails the test unless plan `sites` begins at a mark, and what is stored from that epoch
// on is exactly what was published.
func (w *world) invariant(db *sink, p *view.Plan, want schemas.Mark) {
	w.t.Helper()
	if got := w.begins(db, p); got != want {
		w.t.Errorf("plan %s begins at %v; want %v", p.Name(), got, want)
	}
	all := w.each
	defer func() { w.each = all }()
	w.each = make(map[uint64]map[string][2]int64)
	for epoch, books := range all {
		if epoch >= want.Epoch {
			w.each[epoch] = books
		}
	}
	w.epochsFrom(db, p, want.Epoch)
}

// trim trims the log up to a cut.
func (w *world) trim(to schemas.Cut) {
	w.t.Helper()
	trimmed, err := w.log.Trim(w.t.Context(), to.Position)
	w.check(err)
	if trimmed == 0 {
		w.t.Fatal("nothing was trimmed")
	}
}

// build makes an empty build live that covers plans up to a cut.
func (w *world) build(db *sink, cut schemas.Cut, plans ...*view.Plan) {
	w.t.Helper()
	ctx := w.t.Context()
	term, err := db.DB.Term(ctx, "batch")
	w.check(err)
	live, err := db.DB.Live(ctx)
	w.check(err)
	w.check(db.DB.TakeOver(ctx, "batch", term+1))
	b := schemas.Build{Number: cut.Number, Cut: cut.Number, Position: cut.Position, Definitions: cut.Definitions, Plans: make(map[string]schemas.Covered)}
	for _, p := range plans {
		b.Plans[p.Hash] = schemas.Covered{Cut: cut.Number, Position: cut.Position}
	}
	w.check(db.SaveBuild(ctx, term+1, b))
	w.check(db.Flip(ctx, term+1, schemas.Live{Flip: live.Flip + 1, Build: b.Number, Cut: b.Cut}))
}

func at(cut schemas.Cut) schemas.Mark { return schemas.Mark{Epoch: cut.Number, Position: cut.Position} }

// sitesPlan is plan `sites` of definitions.
func sitesPlan(t *testing.T, set schemas.Set) *view.Plan {
	t.Helper()
	for _, p := range compile(t, set) {
		if p.Name() == "sites" {
			return p
		}
	}
	t.Fatal("there is no view sites")
	return nil
}

// A log that is whole is folded from its beginning, by a database that has nothing too.
func TestBeginsWithTheLog(t *testing.T) {
	w := newWorld(t)
	p := sitesPlan(t, w.defs)
	w.publish(0, 50)
	w.cut(w.defs, schemas.Set{})
	w.publish(25, 75)
	w.cut(w.defs, schemas.Set{})
	for _, suffix := range []string{"", "_lost"} {
		db := w.database(suffix)
		r := w.start(db, quick())
		w.publish(50, 100)
		w.caughtUp(db, p)
		r.stop()
		w.invariant(db, p, schemas.Mark{})
	}
}

// A plan that was away begins again, whether a worker ran then or not, and what is stored of its
// earlier time is not shown with what comes: not even by the build that covered that.
func TestBeginsAgainAfterHavingBeenAway(t *testing.T) {
	for _, watched := range []bool{true, false} {
		t.Run(fmt.Sprintf("watched=%t", watched), func(t *testing.T) {
			w := newWorld(t)
			db, p := w.database(""), sitesPlan(t, w.defs)
			without := parse(t, hitEvent+otherViews)
			w.cut(w.defs, schemas.Set{})
			w.publish(0, 50)
			r := w.start(db, quick())
			w.caughtUp(db, p)
			w.invariant(db, p, schemas.Mark{})
			w.shows(db)
			if !watched {
				r.stop()
			}
			gone := w.cut(without, schemas.Set{})
			w.publish(25, 75)
			if watched {
				w.caughtUp(db, compile(t, without)...)
				if w.behind(db, gone.Position.Seq, p) == "" {
					t.Error("a plan that is away is folded")
				}
			}
			again := w.cut(w.defs, schemas.Set{})
			w.publish(50, 100)
			if !watched {
				r = w.start(db, quick())
			}
			w.caughtUp(db, p)
			r.stop()
			w.invariant(db, p, at(again))
			if err := w.fails(db, "SELECT * FROM "+db.name+".sites"); err == nil || !strings.Contains(err.Error(), "do not reach back") {
				t.Errorf("the view over a gap answers with %v", err)
			}
			r = w.start(db, quick()) // nothing begins by a restart
			w.publish(90, 120)
			w.caughtUp(db, p)
			r.stop()
			w.invariant(db, p, at(again))
		})
	}
}

// What a database without states can have of a trimmed log begins at the cut that the log begins with.
func TestBeginsWithATrimmedLog(t *testing.T) {
	w := newWorld(t)
	p := sitesPlan(t, w.defs)
	w.publish(0, 50)
	w.cut(w.defs, schemas.Set{})
	w.publish(50, 75)
	oldest := w.cut(w.defs, schemas.Set{})
	w.publish(75, 100)
	w.trim(oldest)
	db := w.database("")
	r := w.start(db, quick())
	w.publish(75, 150)
	w.caughtUp(db, p)
	w.invariant(db, p, at(oldest))
	if err := w.fails(db, "SELECT * FROM "+db.name+".sites"); err == nil {
		t.Error("a view without what was trimmed answers")
	}
	w.publish(140, 160)
	last := w.cut(w.defs, schemas.Set{})
	w.publish(150, 170)
	w.caughtUp(db, p)
	w.build(db, last, compile(t, w.defs)...)
	w.sites = w.each[last.Number]
	w.shows(db)
	r.stop()
	w.invariant(db, p, at(oldest))
}

// A log that is trimmed before its worker has begun is that of cut 1, but not whole.
func TestBeginsWithCut1OfATrimmedLog(t *testing.T) {
	w := newWorld(t)
	p := sitesPlan(t, w.defs)
	w.publish(0, 50)
	first := w.cut(w.defs, schemas.Set{})
	w.trim(first)
	w.publish(50, 75)
	db := w.database("")
	r := w.start(db, quick())
	w.caughtUp(db, p)
	r.stop()
	w.invariant(db, p, at(first))
	if err := w.fails(db, "SELECT * FROM "+db.name+".sites"); err == nil {
		t.Error("a view without what was trimmed answers")
	}
}

// In a log that was begun anew all plans begin at its first cut, and what was published again behind
// it is no duplicate of itself: not if the worker runs all the while either.
func TestBeginsAnew(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			w := newWorld(t)
			db, p := w.database(""), sitesPlan(t, w.defs)
			w.cut(w.defs, schemas.Set{})
			w.publish(0, 50)
			w.cut(w.defs, schemas.Set{})
			w.publish(50, 100)
			r := w.start(db, quick())
			w.caughtUp(db, p)
			if !running {
				r.stop()
			}
			end, _, err := w.log.End(t.Context())
			w.check(err)
			anew, err := w.log.Anew(t.Context(), eventlog.AnewRequest{Above: end + 1000, CutAbove: 2, Definitions: w.defs})
			w.check(err)
			w.epoch = anew.Cut.Number
			w.each = map[uint64]map[string][2]int64{w.epoch: w.sites} // all of it was published again
			w.sites = make(map[string][2]int64)
			for site, n := range w.each[w.epoch] {
				w.sites[site] = n
			}
			if !running {
				r = w.start(db, quick())
			}
			w.publish(90, 150)
			w.caughtUp(db, p)
			w.invariant(db, p, at(anew.Cut))
			r.stop()
			r = w.start(db, quick())
			w.publish(140, 160)
			w.caughtUp(db, p)
			r.stop()
			w.invariant(db, p, at(anew.Cut))
		})
	}
}

// A plan that the log was trimmed past waits, while others go on, until the live build covers it up
// to a cut that the log has; a build that does not is no help.
func TestStranded(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	none, sites, total := compile(t, w.defs)[0], compile(t, w.defs)[1], compile(t, w.defs)[2]
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 50)
	refuse := func(op string, p *view.Plan) (error, error) {
		if op == "InsertSpeed" && p.Name() == "sites" {
			return refusal{}, nil
		}
		return nil, nil
	}
	db.on(refuse)
	r := w.start(db, quick())
	w.publish(50, 60)
	early := w.cut(w.defs, schemas.Set{})
	w.publish(25, 75)
	oldest := w.cut(w.defs, schemas.Set{})
	w.publish(70, 90)
	w.caughtUp(db, none, total)
	r.stop()
	w.trim(oldest)
	db.on(nil)
	stranded := func() bool {
		s := r.Stats()
		return s.Stranded == 1
	}
	for range 2 { // a restart changes nothing
		r = w.start(db, quick())
		w.until("a stranded plan", stranded)
		w.publish(80, 100)
		w.caughtUp(db, none, total)
		if !stranded() {
			t.Error("the plan is stranded no more")
		}
		r.stop()
	}
	if w.behind(db, early.Position.Seq, sites) == "" {
		t.Error("a stranded plan goes on")
	}
	w.invariantBehind(db, sites, early)
	r = w.start(db, quick())
	w.build(db, early, none, sites, total)
	w.until("a stranded plan", stranded)
	w.publish(95, 120)
	w.build(db, oldest, none, total) // not this plan
	w.publish(110, 130)
	last := w.cut(w.defs, schemas.Set{})
	w.publish(120, 140)
	w.caughtUp(db, none, total)
	if !stranded() {
		t.Error("the plan is stranded no more")
	}
	w.build(db, last, none, sites, total)
	w.caughtUp(db, sites)
	w.until("the plan together with the others", func() bool { s := r.Stats(); return s.Stranded == 0 && apart(s) == 0 })
	w.publish(130, 150)
	w.caughtUp(db, sites)
	r.stop()
	w.invariant(db, sites, at(last))
	all := w.sites
	w.sites = w.each[last.Number]
	w.shows(db)
	w.sites = all
}

// A stranded plan that a cut defines no more is forgotten, and begins at the next that does.
func TestStrandedPlanGoesAndComes(t *testing.T) {
	w := newWorld(t)
	db, sites := w.database(""), sitesPlan(t, w.defs)
	without := parse(t, hitEvent+otherViews)
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 50)
	r := w.start(db, quick())
	w.caughtUp(db, sites)
	r.stop()
	oldest := w.cut(w.defs, schemas.Set{})
	w.trim(oldest)
	r = w.start(db, quick())
	w.until("stranded plans", func() bool { return r.Stats().Stranded == 3 })
	w.publish(25, 75)
	w.cut(without, schemas.Set{})
	w.publish(75, 80)
	w.until("two stranded plans", func() bool { return r.Stats().Stranded == 2 })
	again := w.cut(w.defs, schemas.Set{})
	w.publish(77, 100)
	w.caughtUp(db, sites)
	r.stop()
	w.invariant(db, sites, at(again))
}

func apart(s speed.Stats) (n int) {
	for _, p := range s.Plans {
		if p.Apart {
			n++
		}
	}
	return n
}

// invariantBehind fails the test if anything is stored of a plan in a cut's epoch or later.
func (w *world) invariantBehind(db *sink, p *view.Plan, cut schemas.Cut) {
	w.t.Helper()
	all := w.each
	defer func() { w.each = all }()
	w.each = make(map[uint64]map[string][2]int64)
	w.epochsFrom(db, p, cut.Number)
}

func (w *world) fails(db *sink, sql string) error {
	w.t.Helper()
	got, err := db.Query(w.t.Context(), query(sql))
	if err != nil {
		return err
	}
	for got.Next() {
	}
	err = got.Err()
	w.check(got.Close())
	return err
}
