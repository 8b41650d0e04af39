package history

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// A regaining writes compacted files of a date again that are damaged, from the log. Their rows are those
// of the date in the log, between the first and the last message that the files had, but for the rows that
// other files have, and but for duplicates of rows of the log that stand before them.
type regaining struct {
	remedies []*Remedy // of files of one compaction and one date
	files    []File
	table    *Table
	lo, hi   uint64
	rows     *gatherer
	missing  string // why it is not possible
}

// compactedFiles restores what remedies of compacted files can be from the log, and returns the others, with
// the reasons.
func (r *repair) compactedFiles(ctx context.Context, remedies []*Remedy) (map[*Remedy]string, error) {
	left := map[*Remedy]string{}
	groups := map[string]*regaining{}
	var names []string
	for _, m := range remedies {
		left[m] = noLog
		f := m.Problem.file
		name := fmt.Sprintf("%s %d %s", m.Problem.Type, f.Date, f.Distinct)
		g := groups[name]
		if g == nil {
			t := readOnly(r.dir(m.Problem.Type))
			if err := t.load(ctx); err != nil {
				return nil, err
			}
			var err error
			if t.event, err = t.definition(); err != nil {
				return nil, err
			}
			g = &regaining{table: t, lo: f.MinSeq, rows: newGatherer(t.event)}
			groups[name] = g
			names = append(names, name)
		}
		g.remedies, g.files = append(g.remedies, m), append(g.files, f)
		g.lo, g.hi = min(g.lo, f.MinSeq), max(g.hi, f.MaxSeq)
	}
	if r.source == nil {
		return left, nil
	}
	for _, name := range names {
		g := groups[name]
		if err := r.regain(ctx, g); err != nil {
			return nil, err
		}
		for _, m := range g.remedies {
			if left[m] = g.missing; g.missing == "" {
				delete(left, m)
			}
		}
	}
	return left, nil
}

func (r *repair) regain(ctx context.Context, g *regaining) error {
	if err := g.read(ctx, r.source); err != nil || g.missing != "" {
		return err
	}
	order, err := g.remaining(ctx)
	if err != nil {
		return err
	}
	want := int64(0)
	for _, f := range g.files {
		want += f.Rows
	}
	if int64(len(order)) != want {
		g.missing = fmt.Sprintf("the log has %d of its %d events", len(order), want)
		return nil
	}
	for _, m := range g.remedies {
		m.Action = "its events are in the log, from which it is written again"
	}
	if r.opts.DryRun {
		return nil
	}
	return g.write(ctx, order)
}

// read gathers the date's rows of the log between the bounds.
func (g *regaining) read(ctx context.Context, open OpenSource) error {
	source, _, err := open(ctx, schemas.Position{}, g.table.event.Name)
	if err != nil {
		return err
	}
	defer source.Close()
	for first, at := true, uint64(0); at < g.hi; first = false {
		chunk, err := source.Next(ctx)
		if err != nil {
			return err
		}
		if first && chunk.Cut != nil && chunk.BeforeCut.Seq <= chunk.After.Seq && g.lo <= chunk.Last.Seq {
			g.missing = noLog // it begins behind the first of them
			return nil
		}
		at = chunk.Last.Seq
		rec := chunk.Records[g.table.event.Name]
		if rec == nil {
			continue
		}
		rec = asDefined(rec, g.table.event)
		keys := keysOf(rec, g.rows.timeAt)
		var rows []int32
		for i, k := range keys {
			if dateOf(k.time) == g.files[0].Date && uint64(k.seq) >= g.lo && uint64(k.seq) <= g.hi {
				rows = append(rows, int32(i))
			}
		}
		if err := g.rows.add(rec, keys, rows); err != nil {
			return err
		}
	}
	return nil
}

// asDefined is a record with the columns of a table's definition: null where it lacks one.
func asDefined(rec arrow.Record, ev *schemas.Event) arrow.Record {
	schema := ev.ArrowSchema()
	columns, fields := make([]arrow.Array, schema.NumFields()), make([]arrow.Field, schema.NumFields())
	for i, f := range schema.Fields() {
		if at := rec.Schema().FieldIndices(f.Name); len(at) == 1 {
			columns[i] = rec.Column(at[0])
		} else {
			columns[i] = nulls(f.Type, int(rec.NumRows()))
		}
		fields[i] = arrow.Field{Name: f.Name, Type: columns[i].DataType(), Nullable: f.Nullable}
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, rec.NumRows())
}

// remaining is the order of the gathered rows that no other file of the date has, and before which no row
// of the log of their identity stands.
func (g *regaining) remaining(ctx context.Context) ([]int32, error) {
	ev := g.table.event
	if len(g.rows.keys) == 0 {
		return nil, nil
	}
	prints, err := identity.Of(nil, ev, column.NewReader().Block(g.rows.record()))
	if err != nil {
		return nil, err
	}
	first, placeOf := map[identity.Fingerprint]place{}, func(i int32) place {
		return place{uint64(g.rows.keys[i].seq), g.rows.keys[i].row}
	}
	note := func(print identity.Fingerprint, p place) {
		if q, ok := first[print]; !ok || p.before(q) {
			first[print] = p
		}
	}
	for i := range prints {
		note(prints[i], placeOf(int32(i)))
	}
	elsewhere := map[place]bool{}
	for _, f := range g.table.state.snapshot().Files {
		if f.Import || f.Date != g.files[0].Date || slices.ContainsFunc(g.files, func(x File) bool { return x.Path == f.Path }) {
			continue
		}
		reader := column.NewReader()
		var others []identity.Fingerprint
		err := g.table.Scan(ctx, f, []string{ev.ID, ev.Time, schemas.SeqColumn, schemas.RowColumn}, func(rec arrow.Record) (err error) {
			if others, err = identity.Of(others[:0], ev, reader.Block(rec)); err != nil {
				return err
			}
			for i, p := range placesOf(rec) {
				if _, ok := first[others[i]]; ok {
					note(others[i], p)
					elsewhere[p] = true
				}
			}
			return nil
		})
		var corrupt *CorruptError
		if err != nil && !errors.As(err, &corrupt) { // of another damaged file: then the numbers will differ
			return nil, err
		}
	}
	return slices.DeleteFunc(sorted(g.rows.keys), func(i int32) bool {
		p := placeOf(i)
		return elsewhere[p] || first[prints[i]] != p
	}), nil
}

// write puts the rows in the place of the damaged files.
func (g *regaining) write(ctx context.Context, order []int32) error {
	rec := g.rows.record()
	schema, err := chooseSchema(g.table.event, rec, order)
	if err != nil {
		return err
	}
	w, err := g.table.newFileAs(g.files[0].Date, newFileName(), schema)
	if err != nil {
		return err
	}
	defer w.abort()
	if err := w.write(rec, order); err != nil {
		return err
	}
	a, err := w.close(true, false)
	if err != nil {
		return err
	}
	// It holds the same events as the damaged ones together, and says so: slices of the date stay good, and it
	// is distinct as they were.
	first, duplicates := g.files[0], int64(0)
	for _, f := range g.files {
		duplicates += f.Duplicates
	}
	if a.Tags[tagContent] = first.Content; len(g.files) > 1 {
		a.Tags[tagContent] = Content(g.files)
	}
	a.Tags[tagDistinct], a.Tags[tagAsOf], a.Tags[tagDuplicates] = first.Distinct, fmt.Sprint(first.AsOf), fmt.Sprint(duplicates)
	action, err := g.table.putBack(ctx, a, g.files)
	for _, m := range g.remedies {
		m.Action, m.Done = action, err == nil
	}
	return err
}
