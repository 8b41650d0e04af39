package history

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"golang.org/x/sync/errgroup"
)

// A LoadFile is what becomes one data file: rows of records whose columns are those of
// Event.ArrowSchema, in that order, and whose event times all lie on the file's date.
type LoadFile struct {
	Record   arrow.Record
	Rows     []int32 // the rows to take, in that order; nil: all
	Distinct string  // see File.Distinct; a file that has it is taken to hold no identity twice
}

// Load writes events that a program makes straight into files of its choosing, all in one commit or
// not at all. It is an import whose source is the program: its name stands for what it makes, and
// loading the same name again changes nothing. It is for data that a program makes up, such as a
// benchmark's; rows are taken as they are, and _row must differ from row to row of a date.
//
// fill is called once for each date, for as many dates at a time as there are cores, and calls write
// once for each file. Nothing of a LoadFile is kept after write.
func Load(ctx context.Context, t *Table, name string, dates []int32, fill func(ctx context.Context, date int32, write func(LoadFile) error) error) error {
	app := "import/load/" + name
	var mu sync.Mutex // guards adds
	var adds []*add
	group, fillCtx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, date := range dates {
		group.Go(func() error {
			return fill(fillCtx, date, func(f LoadFile) error {
				a, err := t.writeLoaded(date, f)
				if err != nil {
					return err
				}
				a.Tags[tagSource] = app
				mu.Lock()
				defer mu.Unlock()
				adds = append(adds, a)
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	// If we stop before this commit, files lie there that no version names, and vacuum removes them.
	_, err := t.commit(ctx, &change{operation: "IMPORT", adds: adds, txns: []txn{{AppID: app, Version: 1}}, absent: app})
	var conflict *conflictError
	if errors.As(err, &conflict) && conflict.done {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	return nil
}

func (t *Table) writeLoaded(date int32, f LoadFile) (*add, error) {
	w, err := t.newFile(date)
	if err != nil {
		return nil, err
	}
	defer w.abort()
	if err := w.write(f.Record, f.Rows); err != nil {
		return nil, err
	}
	a, err := w.close(f.Distinct != "", true)
	if err == nil && f.Distinct != "" {
		a.Tags[tagDistinct] = f.Distinct
	}
	return a, err
}
