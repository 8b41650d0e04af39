package batch

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

const (
	splitRows = 768 << 10 // a file of more rows is read by row groups, which workers can share
	shareRows = 512 << 10
)

// A pass is one reading of files, in which chosen rows are folded for some targets. One worker owns it;
// others that have nothing else to do may join it, each with folds of its own. When all is read, the folds of
// a target are merged, by one worker or another, while the others do the same for other targets.
type pass struct {
	j       *job
	targets []*target
	files   []history.File
	choose  chooser
	columns []string
	sink    sink

	// Guarded by the crew's mutex.
	pieces  []piece
	rows    int64          // of the pieces that are left
	reading int            // workers that may still fold a piece
	helpers int            // who are not the owner
	err     error          // of a helper
	folds   [][]*view.Fold // by target: what the workers had when all was read
	last    int            // targets whose folds are not merged yet, or not taken for it: those below

	mu     sync.Mutex // guards what follows
	events []int64    // folded, by target
	early  []bool     // targets of which states were sent off early
}

// A sink takes the states of a pass. Several workers call it at once.
type sink struct {
	// early takes states of a target that cannot wait for the end.
	early func(ctx context.Context, target int, states arrow.Record) error
	// rest takes what else there is, once for each target: nil if it is nothing, and how many events the
	// target has folded in all.
	rest func(ctx context.Context, target int, states arrow.Record, events int64) error
}

// A piece is row groups of a file that one worker reads in one go.
type piece struct {
	file, from, to int // the row groups from..to-1
	at, rows       int64
}

// A chooser returns which of the n rows of a file that begin at row `from` are folded, ascending
// and counted from there; nil for all.
type chooser func(file, from, n int) []int32

func newPass(j *job, targets []*target, files []history.File, choose chooser, to sink) (*pass, error) {
	p := &pass{j: j, targets: targets, files: files, choose: choose, columns: inputs(targets), sink: to,
		reading: 1, folds: make([][]*view.Fold, len(targets)), last: len(targets), events: make([]int64, len(targets)), early: make([]bool, len(targets))}
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

// work takes pieces of a pass until none is left, and then targets, whose folds it merges.
func (f *folder) work(ctx context.Context, p *pass) error {
	for x, ok := f.c.crew.take(p); ok; x, ok = f.c.crew.take(p) {
		if err := f.read(ctx, p, x); err != nil {
			return err
		}
	}
	folds := make([]*view.Fold, len(p.targets))
	for i, t := range p.targets {
		folds[i] = f.fold(t.plan)
		delete(f.folds, t.plan.Hash)
	}
	if err := f.c.crew.meet(ctx, p, folds); err != nil {
		return err
	}
	for i, folds := f.c.crew.target(p); folds != nil; i, folds = f.c.crew.target(p) {
		if err := f.finish(ctx, p, i, folds); err != nil {
			return err
		}
	}
	f.c.budget.set(&f.held, f.bytes())
	return nil
}

// finish sends off what there is of a target when all is read. Of the folds one is kept.
func (f *folder) finish(ctx context.Context, p *pass, target int, folds []*view.Fold) error {
	watch, fold := startWatch(), folds[0]
	for _, other := range folds[1:] {
		fold.Merge(other)
	}
	watch.lap(&f.phases.Merge)
	f.folds[p.targets[target].plan.Hash] = fold
	states := f.flush(p, target)
	p.mu.Lock()
	events := p.events[target]
	p.mu.Unlock()
	return p.sink.rest(ctx, target, states, events)
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
		big := f.victim(p)
		if big == "" {
			return nil
		}
		at := slices.IndexFunc(p.targets, func(t *target) bool { return t.plan.Hash == big })
		var states arrow.Record
		if at >= 0 {
			states = f.flush(p, at)
			p.mu.Lock()
			p.early[at] = true
			p.mu.Unlock()
		}
		delete(f.folds, big) // a flushed fold keeps its memory
		f.c.budget.set(&f.held, f.bytes())
		if states != nil {
			if err := p.sink.early(ctx, at, states); err != nil {
				return err
			}
		}
	}
	return nil
}

// victim is the plan whose fold gives its memory back: the biggest one, but half as big a one is preferred
// that is of no use here, or whose states come in several records anyhow. Empty: there is none.
func (f *folder) victim(p *pass) (hash string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := int64(0)
	for of, fold := range f.folds {
		size := fold.Bytes()
		if at := slices.IndexFunc(p.targets, func(t *target) bool { return t.plan.Hash == of }); at < 0 || p.early[at] {
			size *= 2
		}
		if hash == "" || size > most {
			hash, most = of, size
		}
	}
	return hash
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
