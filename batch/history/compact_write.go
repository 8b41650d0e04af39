package history

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go"

	"watershed/internal/crash"
)

// A rewriting writes the files of one date anew.
type rewriting struct {
	*dateFiles
	memory    int64
	fileBytes int64

	losers  []rowBits // by file: rows that are left out
	dropped int64
	passes  int
	adds    []*add

	schema *parquet.Schema // of the new files of a group; nil: not chosen yet
	file   *fileWriter
}

func (w *rewriting) run(ctx context.Context) (err error) {
	if w.losers, err = w.table.losers(ctx, w.files, w.memory); err != nil {
		return err
	}
	for _, l := range w.losers {
		w.dropped += l.n()
	}
	for _, group := range w.groups() {
		if err := w.group(ctx, group); err != nil {
			w.discard()
			return err
		}
	}
	return w.commit(ctx)
}

// groups are the files by where their rows came from: the log first, then each import.
func (w *rewriting) groups() [][]int {
	by := map[string][]int{}
	var names []string
	for i, f := range w.files {
		if by[f.Origin()] == nil {
			names = append(names, f.Origin())
		}
		by[f.Origin()] = append(by[f.Origin()], i)
	}
	slices.Sort(names)
	var out [][]int
	for _, name := range names {
		out = append(out, by[name])
	}
	return out
}

// group writes the rows of one origin. If they do not fit into the memory, they are read several times,
// each time for a range of their keys.
func (w *rewriting) group(ctx context.Context, group []int) error {
	rows := int64(0)
	for _, i := range group {
		rows += w.files[i].Rows - w.losers[i].n()
	}
	if rows == 0 {
		return nil
	}
	width, err := w.width(ctx, group)
	if err != nil {
		return err
	}
	ranges, err := w.ranges(ctx, group, rows, int((rows*width+w.memory-1)/w.memory))
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
	written := int64(0)
	for _, r := range ranges {
		g, err := w.gather(ctx, group, r)
		if err != nil {
			return err
		}
		written += int64(len(g.keys))
		if err := w.append(ctx, group[0], g); err != nil {
			return err
		}
	}
	if written != rows {
		return fmt.Errorf("%d rows were written, of %d", written, rows)
	}
	return w.end(group[0])
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
func (w *rewriting) gather(ctx context.Context, group []int, r keyRange) (*gatherer, error) {
	g := newGatherer(w.table.event)
	var rows []int32
	for _, i := range group {
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
			return g.add(rec, keys, rows)
		})
		if err != nil {
			return nil, err
		}
	}
	return g, nil
}

// append writes gathered rows in their order. Those of the next range come behind them.
func (w *rewriting) append(ctx context.Context, like int, g *gatherer) (err error) {
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
			if err := w.end(like); err != nil {
				return err
			}
		}
	}
	return nil
}

// end completes the file at hand.
func (w *rewriting) end(like int) error {
	if w.file == nil {
		return nil
	}
	a, err := w.file.close(true, w.files[like].Import)
	w.file = nil
	if err != nil {
		return err
	}
	if source := w.files[like].source; source != "" {
		a.Tags[tagSource] = source
	}
	w.adds = append(w.adds, a)
	crash.At("history.compact-file")
	// If we stop here, the file lies there, and no version names it.
	return nil
}
