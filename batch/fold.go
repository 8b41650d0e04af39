package batch

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

// A folder is one worker: it computes dates, one after another.
type folder struct {
	c      *computation
	finder *finder
	folds  map[string]*view.Fold // by plan hash: they keep their memory from date to date
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

// do computes a date for all of a job's targets.
func (f *folder) do(ctx context.Context, j *job) error {
	d, err := f.finder.find(ctx, j.snap, j.date)
	if err != nil {
		return err
	}
	f.c.insert.date(j, d)
	var computed []*target
	for _, t := range j.targets {
		if t.reuse == nil {
			computed = append(computed, t)
		}
	}
	if len(computed) > 0 {
		events, err := f.pass(ctx, j, computed, j.date.files, d.rows.without)
		if err != nil {
			return err
		}
		for i, t := range computed {
			s := schemas.Slice{Key: t.key.now, Plan: t.plan.Hash, Date: j.date.day, Events: uint64(events[i]), Duplicates: uint64(d.n) + j.date.compacted}
			if err := f.c.insert.slice(ctx, j, t, s, f.fold(t.plan).Flush()); err != nil {
				return err
			}
		}
	}
	return f.forAudit(ctx, j, d)
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
	if err := f.extra(ctx, j, imports, j.date.fresh, all, func(s *schemas.AuditSpec, slice, _ uint64) {
		s.Imports = append(s.Imports, slice)
	}); err != nil {
		return err
	}
	if d.n == 0 || len(audited) == 0 {
		return nil
	}
	f.c.insert.conflicts(audited, d.shown)
	late, choose := d.late.files(j.date.files)
	if err := f.extra(ctx, j, audited, late, choose, func(s *schemas.AuditSpec, slice, events uint64) {
		s.Late, s.LateEvents = append(s.Late, slice), s.LateEvents+events
	}); err != nil {
		return err
	}
	again, choose := d.again.files(j.date.files)
	return f.extra(ctx, j, audited, again, choose, func(s *schemas.AuditSpec, slice, events uint64) {
		s.Again, s.AgainEvents = append(s.Again, slice), s.AgainEvents+events
	})
}

// extra folds chosen rows of files for targets, and inserts the states as slices that no build
// names.
func (f *folder) extra(ctx context.Context, j *job, targets []*target, files []history.File, choose chooser,
	book func(s *schemas.AuditSpec, slice, events uint64)) error {
	if len(targets) == 0 || len(files) == 0 {
		return nil
	}
	events, err := f.pass(ctx, j, targets, files, choose)
	if err != nil {
		return err
	}
	for i, t := range targets {
		if err := f.c.insert.extra(ctx, t, f.fold(t.plan).Flush(), func(s *schemas.AuditSpec, slice uint64) { book(s, slice, uint64(events[i])) }); err != nil {
			return err
		}
	}
	return nil
}

// A chooser returns which of the n rows of a file that begin at row `from` are folded, ascending
// and counted from there; nil for all.
type chooser func(file, from, n int) []int32

// pass reads files once and folds, for each target, the rows that choose returns. It returns the
// events folded per target.
func (f *folder) pass(ctx context.Context, j *job, targets []*target, files []history.File, choose chooser) ([]int64, error) {
	columns := inputs(targets)
	before := make([]int64, len(targets))
	for i, t := range targets {
		before[i] = f.fold(t.plan).Rows()
	}
	for i, file := range files {
		reader, at := column.NewReader(), 0
		err := j.snap.table.Scan(ctx, file, columns, func(rec arrow.Record) error {
			b := reader.Block(rec)
			rows := choose(i, at, b.Len())
			at += b.Len()
			if rows != nil && len(rows) == 0 {
				return nil
			}
			for _, t := range targets {
				if err := f.fold(t.plan).Add(b, rows); err != nil {
					return fmt.Errorf("view %s: %w", t.plan.Name(), err)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	events := make([]int64, len(targets))
	for i, t := range targets {
		events[i] = f.fold(t.plan).Rows() - before[i]
	}
	return events, nil
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
