package batch

import (
	"context"
	"fmt"
	"path"
	"sync"

	"golang.org/x/sync/errgroup"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/view"
)

// An Engine computes slices in the place of the fold of this package, where they are kept. All else of a run is
// the same: which slices are computed and from which files, which rows are duplicates, how slices are named,
// registered, audited and shown. So it makes no difference for a slice who computed it.
type Engine interface {
	// Push computes slices of a plan from a version of history and inserts them, and returns what there is of
	// each. It need not be atomic: when it fails, the slices' ids are never used again.
	Push(ctx context.Context, p *view.Plan, term uint64, push schemas.Push) (map[uint64]schemas.Pushed, error)
}

// What one statement computes at most: it names its dates, and the rows that it leaves out are sent with it.
const (
	pushRows   = 64 << 20
	pushChosen = 1 << 20
)

// A pusher gathers slices for an engine, several dates of a plan to one statement. Those of a statement are a
// parcel, as slices that are inserted together are.
//
//  1. The engine inserts the slices under ids that were never used. If we stop here, they are garbage that
//     nothing names; what is still running is ended by the next run's takeover.
//  2. It has counted what there is of them. They are registered under their keys. If we stop here, the next run
//     uses them, whichever engine it has.
type pusher struct {
	in *inserter

	mu     sync.Mutex // guards what follows
	orders map[orderOf]*order
}

// orderOf identifies an order that is being filled.
type orderOf struct {
	plan string // hash
	kind orderKind
	nth  int // of orders that differ in nothing else: a date is in each but once
}

type orderKind int

const (
	orderSlices  orderKind = iota // of all files of a date, without their duplicates
	orderImports                  // of some files, for the audit alone
	orderChosen                   // of chosen rows, for the audit alone
)

// An order is slices of one plan to be computed by one statement.
type order struct {
	plan *view.Plan
	push schemas.Push
	rows uint64
	days map[int32]bool
	done []func(schemas.Pushed) (register *schemas.Slice) // by slice; the inserter's mutex is held
}

func newPusher(in *inserter) *pusher { return &pusher{in: in, orders: make(map[orderOf]*order)} }

// slices orders slices of a date without its duplicates.
func (p *pusher) slices(ctx context.Context, j *job, targets []*target, d *drops) error {
	var except []schemas.FileRow
	rows := -int64(d.n)
	for i, f := range j.date.files {
		rows += f.Rows
		except = appendRows(except, f, d.rows.only(i, 0, int(f.Rows)))
	}
	for _, t := range targets {
		s := schemas.Slice{Key: t.key.now, Plan: t.plan.Hash, Date: j.date.day, Duplicates: uint64(d.n) + j.date.compacted}
		err := p.add(ctx, j, t, orderSlices, uint64(rows), nil, except, func(id uint64, got schemas.Pushed) *schemas.Slice {
			s.ID, s.Groups, s.Events = id, got.Groups, got.Events
			p.in.book(j, t, s)
			return &s
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// extra orders slices that only the audit reads, of all rows of some files or of chosen ones. What there is of
// each is booked by the function.
func (p *pusher) extra(ctx context.Context, j *job, targets []*target, files []history.File, choose chooser, book func(t *target, id uint64, got schemas.Pushed)) error {
	kind, names, rows := orderImports, make([]string, len(files)), uint64(0)
	var only []schemas.FileRow
	for i, f := range files {
		names[i] = path.Base(f.Path)
		if chosen := choose(i, 0, int(f.Rows)); chosen != nil {
			kind, only, rows = orderChosen, appendRows(only, f, chosen), rows+uint64(len(chosen))
			continue
		}
		rows += uint64(f.Rows)
	}
	for _, t := range targets {
		err := p.add(ctx, j, t, kind, rows, names, only, func(id uint64, got schemas.Pushed) *schemas.Slice {
			book(t, id, got)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func appendRows(to []schemas.FileRow, f history.File, rows []int32) []schemas.FileRow {
	name := path.Base(f.Path)
	for _, row := range rows {
		to = append(to, schemas.FileRow{File: name, Row: uint64(row)})
	}
	return to
}

// add puts a slice into its plan's order, and carries the order out when it is full.
func (p *pusher) add(ctx context.Context, j *job, t *target, kind orderKind, rows uint64, files []string, chosen []schemas.FileRow,
	done func(id uint64, got schemas.Pushed) *schemas.Slice) error {
	p.mu.Lock()
	of := orderOf{plan: t.plan.Hash, kind: kind}
	o := p.orders[of]
	for ; o != nil && o.days[j.date.day]; o = p.orders[of] {
		of.nth++
	}
	if o == nil {
		o = &order{plan: t.plan, days: make(map[int32]bool), push: schemas.Push{Version: j.snap.version, Only: kind == orderChosen}}
		p.orders[of] = o
	}
	o.days[j.date.day] = true
	o.push.Slices = append(o.push.Slices, schemas.PushedSlice{Date: j.date.day, Rows: rows}) // the id comes later
	o.push.Files, o.push.Rows, o.rows = append(o.push.Files, files...), append(o.push.Rows, chosen...), o.rows+rows
	at := len(o.done)
	o.done = append(o.done, func(got schemas.Pushed) *schemas.Slice { return done(o.push.Slices[at].ID, got) })
	full := len(o.done) >= insertSlices || o.rows >= pushRows || len(o.push.Rows) >= pushChosen
	if full {
		delete(p.orders, of)
	}
	p.mu.Unlock()
	if !full {
		return nil
	}
	return p.carryOut(ctx, o)
}

// rest carries out what is left.
func (p *pusher) rest(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(insertsAtOnce)
	for _, o := range p.orders {
		g.Go(func() error { return p.carryOut(ctx, o) })
	}
	clear(p.orders)
	return g.Wait()
}

// carryOut has the engine compute an order, and makes known what came of it.
func (p *pusher) carryOut(ctx context.Context, o *order) error {
	in, watch, phases := p.in, startWatch(), Phases{}
	in.mu.Lock()
	first := in.fresh()
	in.mu.Unlock()
	for i := range o.push.Slices {
		o.push.Slices[i].ID = first + uint64(i)
	}
	got, err := in.r.cfg.Engine.Push(ctx, o.plan, in.r.term, o.push)
	watch.lap(&phases.Insert)
	in.spent(phases)
	if err != nil {
		return fmt.Errorf("view %s: %w", o.plan.Name(), err)
	}
	var register []schemas.Slice
	in.mu.Lock()
	for i, done := range o.done {
		if s := done(got[first+uint64(i)]); s != nil {
			register = append(register, *s)
		}
	}
	in.mu.Unlock()
	if in.r.cfg.Rebuild {
		return nil // a rebuild registers when it has compared
	}
	return in.r.store.RegisterSlices(ctx, in.r.term, register)
}
