package speed_test

import (
	"sync/atomic"
	"testing"

	"watershed/schemas"
	"watershed/schemas/view"
)

// refuseSites makes ClickHouse refuse the states of `sites` as long as the switch is on.
func refuseSites(db *sink) *atomic.Bool {
	var on atomic.Bool
	on.Store(true)
	db.on(func(op string, p *view.Plan) (error, error) {
		if op == "InsertSpeed" && p.Name() == "sites" && on.Load() {
			return refusal{}, nil
		}
		return nil, nil
	})
	return &on
}

// A plan that catches up apart meets a cut that does not define it, and later ones that do, which
// the others have passed long ago: it begins again at the first of those, and joins.
func TestApartOverARemovalAndBack(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	sites, others := sitesPlan(t, w.defs), compile(t, parse(t, hitEvent+otherViews))
	refuse := refuseSites(db)
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	r := w.start(db, quick())
	w.until("a refusal", func() bool { return r.Stats().Refused > 0 })
	w.publish(50, 150)
	w.cut(parse(t, hitEvent+otherViews), schemas.Set{})
	w.publish(100, 200)
	again := w.cut(w.defs, schemas.Set{})
	w.publish(150, 250)
	w.cut(w.defs, schemas.Set{})
	w.publish(200, 300)
	w.caughtUp(db, others...)
	refuse.Store(false)
	w.caughtUp(db, sites)
	w.until("the plan together with the others", func() bool { return apart(r.Stats()) == 0 })
	w.publish(250, 350)
	w.caughtUp(db, append(others, sites)...)
	if s := r.Stats(); s.Restarts != 0 {
		t.Errorf("got %s; want no restart", asJSON(s))
	}
	r.stop()
	w.invariant(db, sites, at(again))
}

// A plan that catches up apart meets a cut that does not define it, as the last there is. Its lane
// ends; the main lane takes the plan over when a later cut defines it.
func TestApartEndsAtARemoval(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	sites, others := sitesPlan(t, w.defs), compile(t, parse(t, hitEvent+otherViews))
	refuse := refuseSites(db)
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	r := w.start(db, quick())
	w.until("a refusal", func() bool { return r.Stats().Refused > 0 })
	gone := w.cut(parse(t, hitEvent+otherViews), schemas.Set{})
	w.publish(100, 200)
	w.caughtUp(db, others...)
	refuse.Store(false)
	w.until("no lane apart", func() bool { return apart(r.Stats()) == 0 })
	if w.behind(db, gone.Position.Seq, sites) == "" {
		t.Error("a plan that is removed goes on")
	}
	again := w.cut(w.defs, schemas.Set{})
	w.publish(150, 250)
	w.caughtUp(db, append(others, sites)...)
	if s := r.Stats(); s.Restarts != 0 {
		t.Errorf("got %s; want no restart", asJSON(s))
	}
	r.stop()
	w.invariant(db, sites, at(again))
}

// That ClickHouse refuses all views at once is no matter of one of them: the worker starts over,
// all together, until it does not.
func TestAllRefused(t *testing.T) {
	w := newWorld(t)
	db, plans := w.database(""), compile(t, w.defs)
	var refuse atomic.Bool
	refuse.Store(true)
	db.on(func(op string, _ *view.Plan) (error, error) {
		if op == "InsertSpeed" && refuse.Load() {
			return refusal{}, nil
		}
		return nil, nil
	})
	w.cut(w.defs, schemas.Set{})
	w.publish(0, 100)
	r := w.start(db, quick())
	w.until("two restarts", func() bool { return r.Stats().Restarts >= 2 })
	if s := r.Stats(); apart(s) != 0 || s.Lag == 0 {
		t.Errorf("got %s; want no plan apart, and a lag", asJSON(s))
	}
	refuse.Store(false)
	w.publish(50, 150)
	w.caughtUp(db, plans...)
	w.shows(db)
	r.stop()
}
