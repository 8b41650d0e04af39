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
// time and place in the log, without duplicates, each column encoded as suits it best. The first of equal
// events stays, as in every batch. What came through the log and what came by each import go into files of
// their own, so that an import can be taken away and made again.
//
// A date goes these steps. It takes those of its files that all kept builds have; others stay beside.
//
//  1. Its duplicates are found, its rows sorted, and the new files written. Dying here leaves files that
//     no version names: vacuum removes them.
//  2. One commit removes the old files and adds the new ones, if all old ones are live still. So of two
//     compactions one does it, and neither takes back what an import, an archiver, a repair or another
//     compaction has done. Dying before it, nothing has happened; after it, all has.
//
// The contents of the new files add up to those of the old ones (Content), so slices of the date stay
// good. The old files stay on disk for vacuum, which keeps what kept builds name.
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
		out.Into, out.Duplicates, out.Passes = len(w.adds), w.dropped, w.passes
		for _, a := range w.adds {
			out.IntoBytes += a.Size
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
	t, total := w.table, contentSum{}
	change := &change{operation: "OPTIMIZE", adds: w.adds}
	dropped := w.dropped
	for _, f := range w.files {
		r := t.removal(f)
		r.DataChange = w.dropped > 0
		change.removes = append(change.removes, r)
		total = total.add(contentOf(f.Content))
		dropped += f.Duplicates
	}
	id := uuid.NewString()
	for _, a := range w.adds {
		a.DataChange = w.dropped > 0
		a.Tags[tagDistinct] = id
		a.Tags[tagAsOf] = fmt.Sprint(w.asOf)
		total = total.sub(contentOf(a.Tags[tagContent]))
	}
	// The first file stands for the difference. So the contents are different as those of any files, their
	// sum is that of the old ones, and without one of the files it is another.
	first := w.adds[0]
	first.Tags[tagContent] = total.add(contentOf(first.Tags[tagContent])).String()
	first.Tags[tagDuplicates] = fmt.Sprint(dropped)
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

// discard removes files that were written and not committed, for certain: nobody else knows their names.
func (w *rewriting) discard() {
	for _, a := range w.adds {
		if f, err := a.file(); err == nil {
			_ = os.Remove(w.table.onDisk(f)) // what stays is removed by vacuum
		}
	}
}
