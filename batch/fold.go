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
	c     *computation
	folds map[string]*view.Fold // by plan hash: they keep their memory from date to date
}

func newFolder(c *computation) *folder {
	return &folder{c: c, folds: make(map[string]*view.Fold)}
}

func (f *folder) fold(p *view.Plan) *view.Fold {
	if f.folds[p.Hash] == nil {
		f.folds[p.Hash] = p.NewFold()
	}
	return f.folds[p.Hash]
}

// do computes a date for all of a job's targets.
func (f *folder) do(ctx context.Context, j *job) error {
	d, err := findDuplicates(ctx, j.snap.table, j.date.files)
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
		keep := func(file int, _ []int64, from, n int) []int32 { return without(d.rows[file], from, n) }
		events, err := f.pass(ctx, j, computed, j.date.files, nil, keep)
		if err != nil {
			return err
		}
		for i, t := range computed {
			s := schemas.Slice{Key: t.key, Plan: t.plan.Hash, Date: j.date.day, Events: uint64(events[i]), Duplicates: uint64(d.n)}
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
	var imports, removed []*target
	for _, t := range j.targets {
		if !t.audited {
			continue
		}
		if len(j.date.fresh) > 0 && (d.n > 0 || !j.plain(t)) {
			imports = append(imports, t)
		}
		if d.n > 0 {
			removed = append(removed, t)
		}
	}
	if len(imports) > 0 {
		all := func(int, []int64, int, int) []int32 { return nil }
		if _, err := f.pass(ctx, j, imports, j.date.fresh, nil, all); err != nil {
			return err
		}
		if err := f.extra(ctx, imports, func(s *schemas.AuditSpec) *[]uint64 { return &s.Imports }); err != nil {
			return err
		}
	}
	if len(removed) > 0 {
		dropped := func(file int, seqs []int64, from, n int) []int32 {
			return f.counted(j, seqs, within(d.rows[file], from, n))
		}
		if _, err := f.pass(ctx, j, removed, j.date.files, []string{schemas.SeqColumn}, dropped); err != nil {
			return err
		}
		return f.extra(ctx, removed, func(s *schemas.AuditSpec) *[]uint64 { return &s.Removed })
	}
	return nil
}

// counted keeps the dropped rows that the audit's old side may have counted: those that came
// through the log since the live build's cut, and all of a date to which an import was added
// since, which counts itself and may have displaced what was counted before. (Older imports
// that are dropped were dropped by the live build too.)
func (f *folder) counted(j *job, seqs []int64, rows []int32) []int32 {
	out := rows[:0]
	for _, row := range rows {
		if uint64(seqs[row]) > j.snap.baseAt || len(j.date.fresh) > 0 {
			out = append(out, row)
		}
	}
	return out
}

// extra inserts what the folds of targets hold as slices that no build names.
func (f *folder) extra(ctx context.Context, targets []*target, to func(*schemas.AuditSpec) *[]uint64) error {
	for _, t := range targets {
		if err := f.c.insert.extra(ctx, t, f.fold(t.plan).Flush(), to); err != nil {
			return err
		}
	}
	return nil
}

// pass reads files once and folds, for each target, the rows that choose returns (nil: all)
// for a block of n rows beginning at row `from` of a file. It returns the events folded per target.
func (f *folder) pass(ctx context.Context, j *job, targets []*target, files []history.File, more []string,
	choose func(file int, seqs []int64, from, n int) []int32) ([]int64, error) {
	columns := inputs(targets, more)
	before := make([]int64, len(targets))
	for i, t := range targets {
		before[i] = f.fold(t.plan).Rows()
	}
	for i, file := range files {
		reader, at := column.NewReader(), 0
		err := j.snap.table.Scan(ctx, file, columns, func(rec arrow.Record) error {
			b := reader.Block(rec)
			var seqs []int64
			if len(more) > 0 {
				v, err := b.Field(schemas.SeqColumn)
				if err != nil {
					return err
				}
				seqs = v.Ints
			}
			rows := choose(i, seqs, at, b.Len())
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
func inputs(targets []*target, more []string) []string {
	have := make(map[string]bool)
	for _, name := range more {
		have[name] = true
	}
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

// within returns those of the ascending rows that lie in [from, from+n), counted from `from`.
func within(rows []int32, from, n int) []int32 {
	lo := sort.Search(len(rows), func(i int) bool { return int(rows[i]) >= from })
	hi := sort.Search(len(rows), func(i int) bool { return int(rows[i]) >= from+n })
	out := make([]int32, 0, hi-lo)
	for _, row := range rows[lo:hi] {
		out = append(out, row-int32(from))
	}
	return out
}

// without returns the rows 0..n-1 that are not among the dropped ones of [from, from+n); nil
// if none is dropped.
func without(dropped []int32, from, n int) []int32 {
	drop := within(dropped, from, n)
	if len(drop) == 0 {
		return nil
	}
	kept := make([]int32, 0, n-len(drop))
	for row := int32(0); row < int32(n); row++ {
		if len(drop) > 0 && drop[0] == row {
			drop = drop[1:]
			continue
		}
		kept = append(kept, row)
	}
	return kept
}

// dateText is a day number as YYYY-MM-DD.
func dateText(day int32) string {
	return time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly)
}
