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
func (f *folder) forAudit(ctx context.Context, j *job, d *drops) error {
	var imports, audited []*target
	for _, t := range j.targets {
		if !t.audited {
			continue
		}
		audited = append(audited, t)
		if len(j.date.fresh) > 0 && (d.n > 0 || !j.plain(t)) {
			imports = append(imports, t)
		}
	}
	all := func(int, int, int) []int32 { return nil }
	if err := f.extra(ctx, j, imports, j.date.fresh, all, func(s *schemas.AuditSpec) (*[]uint64, *uint64) { return &s.Imports, nil }); err != nil {
		return err
	}
	if d.n == 0 || len(audited) == 0 {
		return nil
	}
	f.c.insert.conflicts(audited, d.shown)
	late, choose := d.late.files(j.date.files)
	if err := f.extra(ctx, j, audited, late, choose, func(s *schemas.AuditSpec) (*[]uint64, *uint64) { return &s.Late, &s.LateEvents }); err != nil {
		return err
	}
	again, choose := d.again.files(j.date.files)
	return f.extra(ctx, j, audited, again, choose, func(s *schemas.AuditSpec) (*[]uint64, *uint64) { return &s.Again, &s.AgainEvents })
}

// extra folds chosen rows of files for targets, and inserts each record of states as a slice that no
// build names: it is added to the list of them in the target's audit, and the events to their number.
func (f *folder) extra(ctx context.Context, j *job, targets []*target, files []history.File, choose chooser,
	of func(s *schemas.AuditSpec) (ids *[]uint64, events *uint64)) error {
	if len(targets) == 0 || len(files) == 0 {
		return nil
	}
	insert := func(ctx context.Context, i int, states arrow.Record) error {
		return f.c.insert.extra(ctx, targets[i], states, func(s *schemas.AuditSpec) *[]uint64 { ids, _ := of(s); return ids })
	}
	rest := func(ctx context.Context, i int, states arrow.Record, n int64) error {
		f.c.insert.audited(targets[i], func(s *schemas.AuditSpec) {
			if _, events := of(s); events != nil {
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
