package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"watershed/internal/crash"
)

// CompactOptions say what a compaction may do.
type CompactOptions struct {
	App  string   // names the log in the tables' txns: watershed/<stream>/<shard>
	Keep []uint64 // the cuts of kept builds

	// Fresh takes events too that not all kept builds have. Audits against such a build cannot tell then
	// which duplicates it may have shown, and skip the type once.
	Fresh bool

	Type     string    // only of this event type; empty: of all
	From, To time.Time // only dates with From <= date < To; a zero bound is none
	MinFiles int       // a date with fewer files that are not compacted yet is left as it is: 2
	Every    bool      // also dates of which little is new
	MaxBytes int64     // of files to read in all; the dates with the most files go first; 0: no limit

	Memory    int64 // bytes in which a date's rows are sorted, and its duplicates found: 256 MiB
	FileBytes int64 // about how large a file becomes: 512 MiB

	DryRun bool
	Done   func(CompactedDate) // is told of each date, if it is set
}

const (
	defaultCompactMemory = 256 << 20
	leastCompactMemory   = 1 << 18
	defaultFileBytes     = 512 << 20
)

// A CompactedDate is what was done with one date, or would be.
type CompactedDate struct {
	Type       string
	Date       string // YYYY-MM-DD
	Files      int    // that were read
	Bytes      int64  // of them
	Rows       int64  // of them
	Into       int    // files written
	IntoBytes  int64  // of them
	Duplicates int64  // rows left out
	Passes     int    // over the date's files to sort them: 1 if they fit into the memory
	Lost       string // why nothing was done after all; empty: it was
}

// A CompactReport says what a compaction did.
type CompactReport struct {
	Dates    []CompactedDate
	Left     int // dates that are due, but beyond MaxBytes
	Unshared int // dates that would be due, but not all kept builds have their events
}

// Compact brings the files of a date together: into one, or several of about FileBytes, sorted by event
// time and place in the log, each column encoded as suits it best. What came through the log and what came
// by each import go into files of their own, and duplicates are removed only within each of them: of equal
// events the first stays, as in every batch. So an import can be taken away and made again, and takes no
// event with it that came by another way too. Such events stay in the files of each; the files of a date
// that has any are not distinct together (File.Distinct), and batches go on looking for duplicates there.
//
// A date goes these steps. It takes those of its files that all kept builds have; others stay beside.
//
//  1. Its duplicates are found, its rows sorted, and the new files written, and read back: each must hold
//     the rows that were read for it. Dying here leaves files that no version names: vacuum removes them.
//  2. One commit removes the old files and adds the new ones, if all old ones are live still. So of two
//     compactions one does it, and neither takes back what an import, an archiver, a repair or another
//     compaction has done. Dying before it, nothing has happened; after it, all has.
//
// The contents of the new files of each origin add up to those of its old ones (Content), so slices of the
// date stay good. The old files stay on disk for vacuum, which keeps what kept builds name.
//
// Of a table that cannot be read, or a date with a damaged file, nothing is changed, and it is part of the
// error; the others are compacted all the same.
func Compact(ctx context.Context, root string, opts CompactOptions) (CompactReport, error) {
	c := &compaction{opts: opts}
	if opts.Memory < 0 || opts.FileBytes < 0 || opts.MinFiles < 0 || opts.MaxBytes < 0 {
		return c.report, fmt.Errorf("compact %s: a negative limit", root)
	}
	c.opts.Memory = max(cmp.Or(opts.Memory, defaultCompactMemory), leastCompactMemory)
	c.opts.FileBytes = cmp.Or(opts.FileBytes, defaultFileBytes)
	c.opts.MinFiles = cmp.Or(opts.MinFiles, 2)
	logs, err := filepath.Glob(filepath.Join(root, cmp.Or(opts.Type, "*"), logDirName))
	if err != nil {
		return c.report, fmt.Errorf("compact %s: %w", root, err)
	}
	if len(logs) == 0 && opts.Type != "" {
		return c.report, fmt.Errorf("compact %s: there is no history of %s", root, opts.Type)
	}
	var errs []error
	var due []*dateFiles
	for _, dir := range logs {
		dates, tableErr := c.due(ctx, readOnly(filepath.Dir(dir)))
		if ctx.Err() != nil {
			return c.report, ctx.Err()
		}
		if tableErr != nil {
			errs = append(errs, fmt.Errorf("compact %s: %w", filepath.Dir(dir), tableErr))
		}
		due = append(due, dates...)
	}
	for _, d := range c.affordable(due) {
		dateErr := c.date(ctx, d)
		if ctx.Err() != nil {
			return c.report, ctx.Err()
		}
		if dateErr != nil {
			errs = append(errs, fmt.Errorf("compact %s of %s: %w", formatDate(d.date), d.table.event.Name, dateErr))
		}
	}
	return c.report, errors.Join(errs...)
}

type compaction struct {
	opts   CompactOptions
	report CompactReport
}

// date compacts one date and books what was done.
func (c *compaction) date(ctx context.Context, d *dateFiles) error {
	out := CompactedDate{Type: d.table.event.Name, Date: formatDate(d.date), Files: len(d.files), Bytes: d.bytes, Rows: d.rows}
	if !c.opts.DryRun {
		w := &rewriting{dateFiles: d, memory: c.opts.Memory, fileBytes: c.opts.FileBytes}
		err := w.run(ctx)
		out.Passes = w.passes
		for _, o := range w.origins {
			out.Duplicates += o.dropped
			out.Into += len(o.adds)
			for _, a := range o.adds {
				out.IntoBytes += a.Size
			}
		}
		var conflict *conflictError
		switch {
		case errors.As(err, &conflict):
			out.Lost = conflict.reason
		case err != nil:
			return err
		}
	}
	c.report.Dates = append(c.report.Dates, out)
	if c.opts.Done != nil {
		c.opts.Done(out)
	}
	return nil
}

// commit replaces the old files by the new ones.
func (w *rewriting) commit(ctx context.Context) error {
	t, change, id := w.table, &change{operation: opCompact}, uuid.NewString()
	for k, o := range w.origins {
		distinct := id
		if w.overlap {
			distinct = fmt.Sprintf("%s/%d", id, k)
		}
		w.name(o, distinct)
		change.adds = append(change.adds, o.adds...)
		for _, i := range o.files {
			r := t.removal(w.files[i])
			r.DataChange = o.dropped > 0
			change.removes = append(change.removes, r)
		}
	}
	crash.At("history.compact-written")
	// If we stop before this commit, files lie there that no version names, and the old ones are live; after
	// it, the new ones are live, and the old ones wait for vacuum.
	_, err := t.commit(ctx, change)
	var conflict *conflictError
	if errors.As(err, &conflict) {
		w.discard()
		return err
	}
	crash.At("history.compacted")
	return err
}

// name says in an origin's new files what is in them.
func (w *rewriting) name(o *origin, distinct string) {
	total, dropped := contentSum{}, o.dropped
	for _, i := range o.files {
		total = total.add(contentOf(w.files[i].Content))
		dropped += w.files[i].Duplicates
	}
	for _, a := range o.adds {
		a.DataChange = o.dropped > 0
		a.Tags[tagDistinct] = distinct
		a.Tags[tagAsOf] = fmt.Sprint(w.asOf)
		total = total.sub(contentOf(a.Tags[tagContent]))
	}
	// The first file stands for the difference. So the contents are different as those of any files, their
	// sum is that of the old ones, and without one of the files it is another. The sum is that of an origin:
	// when an import is given up, and when it is made again, what the date has then is named as ever.
	first := o.adds[0]
	first.Tags[tagContent] = total.add(contentOf(first.Tags[tagContent])).String()
	first.Tags[tagDuplicates] = fmt.Sprint(dropped)
}

// discard removes files that were written and not committed, for certain: nobody else knows their names.
func (w *rewriting) discard() {
	for _, o := range w.origins {
		for _, a := range o.adds {
			if f, err := a.file(); err == nil {
				_ = os.Remove(w.table.onDisk(f)) // what stays is removed by vacuum
			}
		}
	}
}
