package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
)

// dateFiles are the files of one date that are to become fewer.
type dateFiles struct {
	table *Table
	date  int32
	asOf  int64 // the table's version whose files they are
	files []File
	loose int // files that no compaction has written, or the rest of one
	rows  int64
	bytes int64
}

// A date is compacted again when as much is new as a share of it, or when many files are: else a few late
// events would have all of a large date written again each night.
const (
	newShare  = 32
	manyFiles = 16
)

// due are the dates of a table that are worth it.
func (c *compaction) due(ctx context.Context, t *Table) ([]*dateFiles, error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	var err error
	if t.event, err = t.definition(); err != nil {
		return nil, err
	}
	base, err := c.shared(ctx, t)
	if err != nil {
		return nil, err
	}
	inBase := map[string]bool{}
	for _, f := range base.Files {
		inBase[f.Path] = true
	}
	byDate := map[int32][]File{}
	for _, f := range t.state.snapshot().Files {
		if c.wanted(f.Date) {
			byDate[f.Date] = append(byDate[f.Date], f)
		}
	}
	var out []*dateFiles
	for date, live := range byDate {
		files := slices.DeleteFunc(slices.Clone(live), func(f File) bool { return !inBase[f.Path] && !f.within(base.Version) })
		d := newDateFiles(t, date, base.Version, files)
		switch {
		case c.worth(d):
			out = append(out, d)
		case c.worth(newDateFiles(t, date, t.state.version, live)):
			c.report.Unshared++
		}
	}
	return out, nil
}

func (c *compaction) wanted(date int32) bool {
	from, to := c.opts.From, c.opts.To
	return (from.IsZero() || date >= dateOf(from.UnixMicro())) && (to.IsZero() || date < dateOf(to.UnixMicro()))
}

// shared is the newest version whose events all kept builds have that can have any of the type. What
// came later stays as it is until they have it. For an audit compares the new build with one of them, and
// where they differ it must still be able to tell what came when, and which duplicates came with it.
func (c *compaction) shared(ctx context.Context, t *Table) (*Snapshot, error) {
	version := t.state.version
	for _, position := range c.opts.Keep {
		v, err := t.find(ctx, c.opts.App, int64(position))
		switch {
		case c.opts.Fresh || errors.Is(err, ErrNoSnapshot): // the type was not defined there
		case err != nil:
			return nil, err
		default:
			version = min(version, v)
		}
	}
	if version == t.state.version {
		return t.state.snapshot(), nil
	}
	s, err := t.replay(ctx, version)
	if err != nil {
		return nil, err
	}
	return s.snapshot(), nil
}

// within tells whether a compaction wrote the file from what a version of the table had.
func (f File) within(version int64) bool { return f.AsOf > 0 && f.AsOf <= version }

func newDateFiles(t *Table, date int32, asOf int64, files []File) *dateFiles {
	files = slices.DeleteFunc(files, func(f File) bool { return f.Rows == 0 }) // there is nothing to write of them
	d := &dateFiles{table: t, date: date, asOf: asOf, files: files}
	ids := map[string]int{}
	for _, f := range d.files {
		d.rows += f.Rows
		d.bytes += f.Size
		if f.Distinct != "" {
			id, _, _ := strings.Cut(f.Distinct, "/") // what follows tells its origins apart
			ids[id]++
		}
	}
	most := 0 // files of one compaction
	for _, n := range ids {
		most = max(most, n)
	}
	d.loose = len(d.files) - most
	return d
}

// worth tells whether a date is to be compacted.
func (c *compaction) worth(d *dateFiles) bool {
	if d.loose < c.opts.MinFiles || d.loose == 0 {
		return false
	}
	fresh := int64(0)
	for _, f := range d.files {
		if f.Distinct == "" {
			fresh += f.Rows
		}
	}
	return c.opts.Every || d.loose >= manyFiles || fresh >= d.rows/newShare
}

// affordable are the dates to do now: those with the most files to be rid of first, as many as the limit
// of bytes allows, and one in any case.
func (c *compaction) affordable(due []*dateFiles) []*dateFiles {
	slices.SortFunc(due, func(a, b *dateFiles) int {
		return cmp.Or(cmp.Compare(b.loose, a.loose), strings.Compare(a.table.event.Name, b.table.event.Name), cmp.Compare(a.date, b.date))
	})
	var out []*dateFiles
	read := int64(0)
	for _, d := range due {
		if c.opts.MaxBytes > 0 && len(out) > 0 && read+d.bytes > c.opts.MaxBytes {
			c.report.Left++
			continue
		}
		read += d.bytes
		out = append(out, d)
	}
	return out
}
