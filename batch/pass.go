package batch

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/schemas/column"
)

const (
	splitRows = 768 << 10 // a file of more rows is read by row groups, which workers can share
	shareRows = 512 << 10
)

// A pass is one reading of files, in which chosen rows are folded for some targets. One worker owns it;
// others that have nothing else to do may join it, each with folds of its own.
type pass struct {
	j       *job
	targets []*target
	files   []history.File
	choose  chooser
	columns []string
	early   func(ctx context.Context, target int, states arrow.Record) error // takes states that cannot wait for the end

	// Guarded by the crew's mutex.
	pieces  []piece
	rows    int64 // of the pieces that are left
	helpers int
	err     error // of a helper

	mu     sync.Mutex       // guards what follows
	events []int64          // folded, by target
	states [][]arrow.Record // by target: what each worker had at its end
}

// A piece is row groups of a file that one worker reads in one go.
type piece struct {
	file, from, to int // the row groups from..to-1
	at, rows       int64
}

// A chooser returns which of the n rows of a file that begin at row `from` are folded, ascending
// and counted from there; nil for all.
type chooser func(file, from, n int) []int32

func newPass(j *job, targets []*target, files []history.File, choose chooser, early func(context.Context, int, arrow.Record) error) (*pass, error) {
	p := &pass{j: j, targets: targets, files: files, choose: choose, columns: inputs(targets), early: early,
		events: make([]int64, len(targets)), states: make([][]arrow.Record, len(targets))}
	for i, file := range files {
		p.rows += file.Rows
		if file.Rows <= splitRows {
			p.pieces = append(p.pieces, piece{file: i, to: allGroups, rows: file.Rows})
			continue
		}
		groups, err := j.snap.table.RowGroups(file)
		if err != nil {
			return nil, err
		}
		at := int64(0)
		for g, rows := range groups {
			p.pieces = append(p.pieces, piece{i, g, g + 1, at, rows})
			at += rows
		}
	}
	return p, nil
}

// allGroups is behind the last row group of any file.
const allGroups = 1 << 30

// run reads all of a pass, with the help of idle workers.
func (f *folder) run(ctx context.Context, p *pass) error {
	f.c.crew.offer(p)
	if err := f.work(ctx, p); err != nil {
		return err
	}
	return f.c.crew.wait(ctx, p)
}

// work takes pieces of a pass until none is left, and leaves its states there.
func (f *folder) work(ctx context.Context, p *pass) error {
	for x, ok := f.c.crew.take(p); ok; x, ok = f.c.crew.take(p) {
		if err := f.read(ctx, p, x); err != nil {
			return err
		}
	}
	for i := range p.targets {
		if states := f.flush(p, i); states != nil {
			p.mu.Lock()
			p.states[i] = append(p.states[i], states)
			p.mu.Unlock()
		}
	}
	f.c.budget.set(&f.held, f.bytes())
	return nil
}

// read folds a piece.
func (f *folder) read(ctx context.Context, p *pass, x piece) error {
	reader, at := column.NewReader(), int(x.at)
	watch := startWatch()
	err := p.j.snap.table.ScanGroups(ctx, p.files[x.file], p.columns, x.from, x.to, func(rec arrow.Record) error {
		watch.lap(&f.phases.Read)
		b := reader.Block(rec)
		rows := p.choose(x.file, at, b.Len())
		at += b.Len()
		if rows != nil && len(rows) == 0 {
			return nil
		}
		for _, t := range p.targets {
			if err := f.fold(t.plan).Add(b, rows); err != nil {
				return fmt.Errorf("view %s: %w", t.plan.Name(), err)
			}
		}
		watch.lap(&f.phases.Fold)
		err := f.shrink(ctx, p)
		watch = startWatch()
		return err
	})
	watch.lap(&f.phases.Read)
	return err
}

// shrink sends states off early while the folds of all workers take more memory than they may, and
// those of this one their share of it or more.
func (f *folder) shrink(ctx context.Context, p *pass) error {
	for f.c.budget.set(&f.held, f.bytes()) {
		big := ""
		for hash, fold := range f.folds {
			if big == "" || fold.Bytes() > f.folds[big].Bytes() {
				big = hash
			}
		}
		if big == "" {
			return nil
		}
		at := slices.IndexFunc(p.targets, func(t *target) bool { return t.plan.Hash == big })
		var states arrow.Record
		if at >= 0 {
			states = f.flush(p, at)
		}
		delete(f.folds, big) // a flushed fold keeps its memory
		f.c.budget.set(&f.held, f.bytes())
		if states != nil {
			if err := p.early(ctx, at, states); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush returns the states that the worker has of a target; nil if there are none.
func (f *folder) flush(p *pass, target int) arrow.Record {
	fold := f.fold(p.targets[target].plan)
	p.mu.Lock()
	p.events[target] += fold.Rows()
	p.mu.Unlock()
	if fold.Rows() == 0 {
		return nil
	}
	watch := startWatch()
	states := fold.Flush()
	watch.lap(&f.phases.Encode)
	return states
}
