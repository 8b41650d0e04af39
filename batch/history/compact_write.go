package history

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/internal/crash"
)

// rewrite writes the rows of one origin. If they do not fit into the memory, they are read several times,
// each time for a range of their keys.
func (w *rewriting) rewrite(ctx context.Context, o *origin) error {
	rows := -o.dropped
	for _, i := range o.files {
		rows += w.files[i].Rows
	}
	width, err := w.width(ctx, o.files)
	if err != nil {
		return err
	}
	ranges, err := w.ranges(ctx, o.files, rows, int((rows*width+w.memory-1)/w.memory))
	if err != nil {
		return err
	}
	w.passes = max(w.passes, len(ranges))
	defer func() {
		if w.file != nil {
			w.file.abort()
			w.file = nil
		}
	}()
	w.schema = nil
	for _, r := range ranges {
		g, err := w.gather(ctx, o, r)
		if err != nil {
			return err
		}
		if err := w.append(ctx, o, g); err != nil {
			return err
		}
	}
	if o.kept.rows != rows {
		return fmt.Errorf("%d rows were read, of %d", o.kept.rows, rows)
	}
	return w.end(o)
}

// width is about how many bytes a row takes while it is sorted, with its key and its place in the order,
// and twice what it is read with, since slices that grow are copied.
func (w *rewriting) width(ctx context.Context, group []int) (int64, error) {
	const keyBytes = 24 + 4
	rows, bytes := int64(1), int64(0)
	err := w.table.Scan(ctx, w.files[group[0]], fieldNames(w.table.event), func(rec arrow.Record) error {
		rows, bytes = rec.NumRows(), recordBytes(rec)
		return errFull // one record is enough
	})
	if err != nil && err != errFull {
		return 0, err
	}
	return 2*bytes/max(rows, 1) + keyBytes, nil
}

// gather reads the rows of a range that stay.
func (w *rewriting) gather(ctx context.Context, o *origin, r keyRange) (*gatherer, error) {
	g := newGatherer(w.table.event)
	var rows []int32
	for _, i := range o.files {
		at := int64(0)
		err := w.table.Scan(ctx, w.files[i], fieldNames(w.table.event), func(rec arrow.Record) error {
			keys := keysOf(rec, g.timeAt)
			rows = rows[:0]
			for k := range keys {
				if !w.losers[i].has(at+int64(k)) && r.has(keys[k]) {
					rows = append(rows, int32(k))
				}
			}
			at += rec.NumRows()
			if len(rows) == 0 {
				return nil
			}
			o.kept.add(w.check.rows(rec), rows)
			return g.add(rec, keys, rows)
		})
		if err != nil {
			return nil, err
		}
	}
	return g, nil
}

// append writes gathered rows in their order. Those of the next range come behind them.
func (w *rewriting) append(ctx context.Context, o *origin, g *gatherer) (err error) {
	if len(g.keys) == 0 {
		return nil
	}
	order, rec := sorted(g.keys), g.record()
	if w.schema == nil {
		if w.schema, err = chooseSchema(w.table.event, rec, order); err != nil {
			return err
		}
	}
	for from := 0; from < len(order); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.file == nil {
			if w.file, err = w.table.newFileAs(w.date, newFileName(), w.schema); err != nil {
				return err
			}
		}
		to := min(len(order), from+rowGroupRows-w.file.inGroup)
		if err := w.file.write(rec, order[from:to]); err != nil {
			return err
		}
		from = to
		if w.file.size >= w.fileBytes {
			if err := w.end(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// end completes the file at hand.
func (w *rewriting) end(o *origin) error {
	if w.file == nil {
		return nil
	}
	like := w.files[o.files[0]]
	a, err := w.file.close(true, like.Import)
	w.file = nil
	if err != nil {
		return err
	}
	if like.source != "" {
		a.Tags[tagSource] = like.source
	}
	o.adds = append(o.adds, a)
	crash.At("history.compact-file")
	// If we stop here, the file lies there, and no version names it.
	return nil
}
