package batch

import (
	"context"
	"sort"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/view"
)

// A folder is one worker: it computes dates, one after another, and then helps others.
type folder struct {
	c      *computation
	finder *finder
	folds  map[string]*view.Fold // by plan hash: they keep their memory from date to date
	held   int64                 // bytes of the folds, as the budget knows them
	phases Phases
}

func newFolder(c *computation) *folder {
	cfg := &c.r.cfg
	return &folder{c: c, finder: newFinder(cfg.DuplicateMemory / int64(cfg.Workers)), folds: make(map[string]*view.Fold)}
}

func (f *folder) fold(p *view.Plan) *view.Fold {
	if f.folds[p.Hash] == nil {
		f.folds[p.Hash] = p.NewFold()
	}
	return f.folds[p.Hash]
}

func (f *folder) bytes() (n int64) {
	for _, fold := range f.folds {
		n += fold.Bytes()
	}
	return n
}

// do computes a date for all of a job's targets.
func (f *folder) do(ctx context.Context, j *job) error {
	watch := startWatch()
	d, err := f.finder.find(ctx, j.snap, j.date)
	if err != nil {
		return err
	}
	watch.lap(&f.phases.Duplicates)
	f.c.insert.date(j, d)
	var computed []*target
	for _, t := range j.targets {
		if t.reuse == nil {
			computed = append(computed, t)
		}
	}
	if len(computed) > 0 {
		if err := f.compute(ctx, j, computed, d); err != nil {
			return err
		}
	}
	return f.forAudit(ctx, j, d)
}

// compute computes slices of a date. The states of a slice usually come in one record, and it shares a
// parcel with others. If they come in several, since the memory does not hold them all, the slice is a
// large one, which ClickHouse merges.
func (f *folder) compute(ctx context.Context, j *job, targets []*target, d *drops) error {
	if f.c.push != nil {
		return f.c.push.slices(ctx, j, targets, d)
	}
	in, larges := f.c.insert, newLarges(f.c.insert, j, targets)
	rest := func(ctx context.Context, i int, states arrow.Record, events int64) error {
		t := targets[i]
		s := schemas.Slice{Key: t.key.now, Plan: t.plan.Hash, Date: j.date.day, Events: uint64(events), Duplicates: uint64(d.n) + j.date.compacted}
		if !larges.has(i) {
			return in.slice(ctx, j, t, s, states)
		}
		if states != nil {
			if err := larges.add(ctx, i, states); err != nil {
				return err
			}
		}
		return larges.end(ctx, i, s)
	}
	p, err := newPass(j, targets, j.date.files, d.rows.without, sink{larges.add, rest})
	if err != nil {
		return err
	}
	return f.run(ctx, p)
}

// forAudit computes what an audit needs besides the slices: imports that the old side lacks,
// and the duplicates that it may have counted.
//
// Where all of a date was imported since, the old side lacks all of it: the slice and the duplicates that were
// dropped. The slice would be on both sides, so the duplicates alone are put there.
func (f *folder) forAudit(ctx context.Context, j *job, d *drops) error {
	var imports, plain, others []*target
	for _, t := range j.targets {
		switch {
		case !t.audited:
		case j.plain(t):
			plain = append(plain, t)
		default:
			others = append(others, t)
			if len(j.date.fresh) > 0 {
				imports = append(imports, t)
			}
		}
	}
	all := func(int, int, int) []int32 { return nil }
	if err := f.extra(ctx, j, imports, j.date.fresh, all, func(s *schemas.AuditSpec) extra { return extra{lists: []*[]uint64{&s.Imports}} }); err != nil {
		return err
	}
	if d.n == 0 {
		return nil
	}
	f.c.insert.conflicts(append(others, plain...), d.shown)
	late, choose := d.late.files(j.date.files)
	if err := f.extra(ctx, j, others, late, choose, func(s *schemas.AuditSpec) extra { return extra{[]*[]uint64{&s.Late}, &s.LateEvents} }); err != nil {
		return err
	}
	again, choose := d.again.files(j.date.files)
	if err := f.extra(ctx, j, others, again, choose, func(s *schemas.AuditSpec) extra { return extra{[]*[]uint64{&s.Again}, &s.AgainEvents} }); err != nil {
		return err
	}
	return f.extra(ctx, j, plain, again, choose, func(s *schemas.AuditSpec) extra { return extra{[]*[]uint64{&s.Imports, &s.Again}, &s.AgainEvents} })
}

// An extra is where an audit's spec lists slices that no build names.
type extra struct {
	lists  []*[]uint64
	events *uint64 // in all of them; nil: they are not counted
}

// extra folds chosen rows of files for targets, and inserts each record of states as a slice that no
// build names: it is added to lists of them in the target's audit, and the events to their number.
func (f *folder) extra(ctx context.Context, j *job, targets []*target, files []history.File, choose chooser, of func(s *schemas.AuditSpec) extra) error {
	if len(targets) == 0 || len(files) == 0 {
		return nil
	}
	if f.c.push != nil {
		return f.c.push.extra(ctx, j, targets, files, choose, func(t *target, id uint64, got schemas.Pushed) {
			to := of(f.c.w.specs[t.plan.Hash])
			if to.events != nil {
				*to.events += got.Events
			}
			for _, ids := range to.lists {
				if got.Groups > 0 {
					*ids = append(*ids, id)
				}
			}
		})
	}
	insert := func(ctx context.Context, i int, states arrow.Record) error {
		return f.c.insert.extra(ctx, targets[i], states, func(s *schemas.AuditSpec) []*[]uint64 { return of(s).lists })
	}
	rest := func(ctx context.Context, i int, states arrow.Record, n int64) error {
		f.c.insert.audited(targets[i], func(s *schemas.AuditSpec) {
			if events := of(s).events; events != nil {
				*events += uint64(n)
			}
		})
		return insert(ctx, i, states)
	}
	p, err := newPass(j, targets, files, choose, sink{insert, rest})
	if err != nil {
		return err
	}
	return f.run(ctx, p)
}

// inputs is the union of the fields that targets read; never empty, since a scan of no column
// has no rows.
func inputs(targets []*target) []string {
	have := make(map[string]bool)
	for _, t := range targets {
		for _, name := range t.plan.Inputs() {
			have[name] = true
		}
	}
	if len(have) == 0 {
		have[schemas.SeqColumn] = true
	}
	names := make([]string, 0, len(have))
	for name := range have {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// dateText is a day number as YYYY-MM-DD.
func dateText(day int32) string {
	return time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly)
}
