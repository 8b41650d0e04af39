package history

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go"
)

// A rewriting writes the files of one date anew.
type rewriting struct {
	*dateFiles
	memory    int64
	fileBytes int64

	origins []*origin
	overlap bool      // an identity stands in two origins
	losers  []rowBits // by file: rows that are left out
	passes  int

	check  *rowHasher
	schema *parquet.Schema // of the new files of an origin; nil: not chosen yet
	file   *fileWriter
}

// An origin is a date's files whose rows came by one way: through the log, or by one import. It is rewritten
// for itself, and only a row of its own can take the place of another. So an import can be given up, and
// what is left is what would be there without it.
type origin struct {
	files   []int
	dropped int64  // rows left out
	kept    rowSum // of the rows that stay
	adds    []*add
}

func (w *rewriting) run(ctx context.Context) error {
	if err := w.write(ctx); err != nil {
		w.discard()
		return err
	}
	return w.commit(ctx)
}

// write writes the new files and reads them back.
func (w *rewriting) write(ctx context.Context) (err error) {
	w.divide()
	w.losers, w.check = make([]rowBits, len(w.files)), newRowHasher()
	for _, o := range w.origins {
		if err := w.search(ctx, o); err != nil {
			return err
		}
	}
	if len(w.origins) > 1 {
		if w.overlap, err = w.table.overlap(ctx, w.files, w.memory); err != nil {
			return err
		}
	}
	for _, o := range w.origins {
		if err := w.rewrite(ctx, o); err != nil {
			return err
		}
		if err := w.readBack(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// divide groups the files by where their rows came from: the log first, then each import.
func (w *rewriting) divide() {
	by := map[string]*origin{}
	for i, f := range w.files {
		if by[f.Origin()] == nil {
			by[f.Origin()] = &origin{}
		}
		by[f.Origin()].files = append(by[f.Origin()].files, i)
	}
	w.origins = nil
	for _, name := range slices.Sorted(maps.Keys(by)) {
		w.origins = append(w.origins, by[name])
	}
}

// search finds the duplicates of an origin.
func (w *rewriting) search(ctx context.Context, o *origin) error {
	var files []File
	for _, i := range o.files {
		files = append(files, w.files[i])
	}
	losers, err := w.table.losers(ctx, files, w.memory)
	if err != nil {
		return err
	}
	for k, i := range o.files {
		w.losers[i] = losers[k]
		o.dropped += losers[k].n()
	}
	return nil
}

// readBack holds the rows of an origin's new files against those that were read.
func (w *rewriting) readBack(ctx context.Context, o *origin) error {
	var got rowSum
	for _, a := range o.adds {
		f, err := a.file()
		if err != nil {
			return err
		}
		err = w.table.Scan(ctx, f, fieldNames(w.table.event), func(rec arrow.Record) error {
			got.addAll(w.check.rows(rec))
			return nil
		})
		if err != nil {
			return fmt.Errorf("read back what was written: %w", err)
		}
	}
	if got != o.kept {
		return fmt.Errorf("the files written have other rows than those read, %d of %d: nothing was changed", got.rows, o.kept.rows)
	}
	return nil
}
