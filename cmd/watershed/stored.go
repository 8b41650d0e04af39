package main

import (
	"context"
	"errors"
	"maps"
	"math"

	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// A stored is a position in the log that something stands at.
type stored struct {
	what string // such as "history of departure"
	at   schemas.Position
	plan bool // of a view: it may be behind a trimmed log, and then waits for a batch
}

// whereabouts are all positions of the log that are stored outside of it.
type whereabouts struct {
	positions   []stored
	above       uint64      // the highest sequence of any of them, and of any event in history
	cutAbove    uint64      // the highest number of a cut that is known
	archived    uint64      // up to where history holds every type; 0: some type has nothing
	definitions schemas.Set // of the log's last cut, or else of the newest build
	retiring    schemas.Set
	unreadable  map[string]error // tables, by event type: what they hold is not known
}

// whereabouts reads what is stored in history and ClickHouse about the log.
func (a *app) whereabouts(ctx context.Context, e *engines) (*whereabouts, error) {
	w := &whereabouts{}
	info, err := e.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	w.above = info.Last
	builds, err := w.builds(ctx, e)
	if err != nil {
		return nil, err
	}
	cut, ok, err := e.log.LastCut(ctx)
	switch {
	case err != nil:
		return nil, err
	case ok:
		w.cutAbove = max(w.cutAbove, cut.Number)
		w.definitions, w.retiring = cut.Definitions, cut.Retiring
	case len(builds) > 0:
		w.definitions = builds[0].Definitions
	default:
		set, _, err := loadDefinitions(a.cfg.Definitions)
		if err != nil {
			return nil, err
		}
		w.definitions = *set
	}
	if err := w.plans(ctx, e, builds); err != nil {
		return nil, err
	}
	return w, w.history(ctx, a)
}

// builds notes where the kept builds stand, and returns them, newest first.
func (w *whereabouts) builds(ctx context.Context, e *engines) ([]schemas.Build, error) {
	infos, err := e.db.Builds(ctx)
	if err != nil {
		return nil, err
	}
	var out []schemas.Build
	for _, info := range infos {
		b, err := e.db.Build(ctx, info.Number)
		if err != nil {
			return nil, err
		}
		w.above, w.cutAbove = max(w.above, b.Position.Seq), max(w.cutAbove, b.Cut)
		if b.Number > 0 {
			out = append(out, b)
		}
	}
	return out, nil
}

// plans notes how far the speed states of all plans reach that something still defines.
func (w *whereabouts) plans(ctx context.Context, e *engines, builds []schemas.Build) error {
	sets := []*schemas.Set{&w.definitions, &w.retiring}
	for i := range builds {
		sets = append(sets, &builds[i].Definitions)
	}
	plans := make(map[string]*view.Plan)
	var all []*view.Plan
	for _, set := range sets {
		compiled, err := view.CompileSet(set)
		if err != nil {
			return err
		}
		for _, p := range compiled {
			if plans[p.Hash] == nil {
				plans[p.Hash] = p
				all = append(all, p)
			}
		}
	}
	marks, err := positions(ctx, e.db, all)
	if err != nil {
		return err
	}
	begins, err := e.db.Begins(ctx, all)
	if err != nil {
		return err
	}
	for _, p := range all {
		m, ok := marks[p.Hash]
		w.above = max(w.above, m.Position.Seq, begins[p.Hash].Position.Seq)
		w.cutAbove = max(w.cutAbove, m.Epoch, begins[p.Hash].Epoch)
		if ok && m.Position.Seq > 0 {
			w.positions = append(w.positions, stored{what: "view " + p.Name(), at: m.Position, plan: true})
		}
	}
	return nil
}

// unknownTable is ClickHouse's error of a table that is not there.
const unknownTable = 60

// positions are how far the stored states of plans reach. A plan whose tables are not there, yet or
// any more, has none.
func positions(ctx context.Context, db *store.DB, plans []*view.Plan) (map[string]schemas.Mark, error) {
	marks, err := db.Positions(ctx, plans)
	var answer *store.Error
	if err == nil || !errors.As(err, &answer) || answer.Code() != unknownTable {
		return marks, err
	}
	marks = make(map[string]schemas.Mark)
	for _, p := range plans {
		one, err := db.Positions(ctx, []*view.Plan{p})
		if err != nil && !(errors.As(err, &answer) && answer.Code() == unknownTable) {
			return nil, err
		}
		maps.Copy(marks, one)
	}
	return marks, nil
}

// history notes how far all tables are, of types that are not defined any more too: their last events
// may be in the log alone.
func (w *whereabouts) history(ctx context.Context, a *app) (err error) {
	var tables map[string]history.Standing
	if tables, w.unreadable, err = history.Standings(ctx, a.cfg.History, a.appID()); err != nil {
		return err
	}
	w.archived = math.MaxUint64
	for _, name := range sortedKeys(tables) {
		at := tables[name]
		w.above = max(w.above, at.Position.Seq, at.Last)
		if at.Ended {
			continue
		}
		w.archived = min(w.archived, at.Position.Seq)
		if at.Position.Seq > 0 {
			w.positions = append(w.positions, stored{what: "history of " + name, at: at.Position})
		}
	}
	for _, set := range []*schemas.Set{&w.definitions, &w.retiring} {
		for _, ev := range set.Events {
			if at, there := tables[ev.Name]; !there || at.Ended {
				w.archived = 0
			}
		}
	}
	if w.archived == math.MaxUint64 || len(w.unreadable) > 0 {
		w.archived = 0
	}
	return nil
}

// A misfit is a stored position that the log does not have.
type misfit struct {
	stored
	err error
}

// misfits holds the stored positions against the log. Views that the log was trimmed past are
// none: they wait for a batch.
func (w *whereabouts) misfits(ctx context.Context, log *eventlog.Log) ([]misfit, error) {
	var out []misfit
	for _, s := range w.positions {
		err := log.Holds(ctx, s.at)
		var trimmed *eventlog.TrimmedError
		switch {
		case err == nil, s.plan && errors.As(err, &trimmed):
		case isLogChanged(err):
			out = append(out, misfit{s, err})
		default:
			return nil, err
		}
	}
	return out, nil
}
