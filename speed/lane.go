package speed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

// A lane reads the log once for a set of plans and keeps them at one position.
type lane struct {
	s     *session
	alone bool // one plan, on its way to the main lane

	mu       sync.Mutex // held while a chunk is folded or flushed, and by a lane that joins this one
	plans    []*planState
	src      Source
	start    schemas.Position // where src begins
	read     schemas.Position // everything up to here is folded
	epoch    uint64           // of what is folded
	rows     int              // events folded since the last flush
	savedAt  time.Time        // when positions were saved last
	inflight *flush           // the flush that is being inserted
	took     time.Duration    // how long the last flush took

	types   map[string]*schemas.Event // that the cuts met so far define
	readers map[string]*column.Reader // by event type
	window  *window
}

// A planState is a plan in a lane.
type planState struct {
	plan *view.Plan
	fold *view.Fold
	mark schemas.Mark // stored: what stands at or below it is in ClickHouse already
}

func (s *session) newLane(epoch uint64) *lane {
	return &lane{s: s, epoch: epoch, types: make(map[string]*schemas.Event), readers: make(map[string]*column.Reader),
		window: newWindow(s.w.cfg.Horizon, s.w.cfg.HorizonRows)}
}

// define notes the event types of a cut. Those of one name are the same, but for fields added.
func (l *lane) define(cut *schemas.Cut) {
	for _, set := range []*schemas.Set{&cut.Retiring, &cut.Definitions} {
		for _, ev := range set.Events {
			l.types[ev.Name] = ev
		}
	}
}

func (l *lane) add(p *view.Plan, m schemas.Mark) {
	l.types[p.Event.Name] = p.Event
	l.plans = append(l.plans, &planState{plan: p, fold: p.NewFold(), mark: m})
}

// place chooses where to read from: a horizon before the plan that is furthest behind, so
// that a restart knows the same duplicates as before it. Events at or below a plan's mark are
// remembered, not folded.
func (l *lane) place(ctx context.Context) error {
	if len(l.plans) == 0 {
		return nil
	}
	first := l.plans[0].mark.Position
	for _, p := range l.plans {
		if p.mark.Position.Seq < first.Seq {
			first = p.mark.Position
		}
		if p.mark.Position.Seq > 0 { // refuse a log that does not hold what we have stored
			if err := l.verify(ctx, p.mark.Position); err != nil {
				return err
			}
		}
	}
	if first.Seq == 0 {
		return nil
	}
	_, at, err := l.s.w.log.At(ctx, first.Seq)
	if err != nil {
		return err
	}
	l.start, err = l.s.w.log.Before(ctx, at.Add(-l.s.w.cfg.Horizon))
	return err
}

// verify opens the log at a stored position, which fails unless the log is the one that the
// position belongs to.
func (l *lane) verify(ctx context.Context, at schemas.Position) error {
	src, err := l.s.w.log.Chunks(ctx, at)
	if err != nil {
		return fmt.Errorf("the log at the stored position: %w", err)
	}
	src.Close()
	return nil
}

// run folds until ctx ends. When that is because outer ended (a stop, not a failure of
// another lane), it flushes what it has.
func (l *lane) run(ctx, outer context.Context) (err error) {
	defer func() {
		if errors.Is(err, errRemoved) {
			l.s.together(l.plans[0].plan)
			err = nil
		}
	}()
	if l.src, err = l.s.w.log.Chunks(ctx, l.start); err != nil {
		return err
	}
	pump := startPump(ctx, l.src)
	defer func() {
		pump.stop()
		l.src.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		if outer.Err() != nil && err == nil {
			// If we are killed before the flush is in, the next start folds it again.
			stop, cancel := context.WithTimeout(context.WithoutCancel(outer), stopWithin)
			defer cancel()
			err = l.flushAll(stop, outer)
		}
		if l.inflight != nil { // nothing outlives its lane
			<-l.inflight.done
		}
	}()
	tick := time.NewTimer(l.s.w.cfg.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-pump.chunks:
			if r.err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("read the log: %w", r.err)
			}
			if err := l.take(ctx, outer, r.chunk); err != nil {
				return err
			}
			if l.alone && r.chunk.Caught {
				joined, err := l.join(ctx, outer, pump)
				if joined || err != nil {
					return err
				}
			}
		case <-tick.C:
			l.mu.Lock()
			err := l.flush(ctx, outer)
			next := max(l.s.w.cfg.FlushEvery, 2*l.took) // many views, slow parts: larger flushes
			l.mu.Unlock()
			if err != nil {
				return err
			}
			tick.Reset(next)
		}
	}
}

// take folds a chunk, and flushes when it ends at a cut or the states have grown large.
func (l *lane) take(ctx, outer context.Context, c *schemas.Chunk) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takeLocked(ctx, outer, c)
}

func (l *lane) takeLocked(ctx, outer context.Context, c *schemas.Chunk) error {
	if err := l.fold(c); err != nil {
		return err
	}
	l.epoch, l.read = c.Epoch, c.Last
	l.s.w.stats.chunk(c)
	if c.Cut != nil {
		// What is flushed now must not claim the cut: a restart has to meet it again until its
		// boundary is stored.
		l.read = c.BeforeCut
		err := l.boundary(ctx, outer, c.Cut)
		l.read = c.Last
		return err
	}
	groups := 0
	for _, p := range l.plans {
		groups += p.fold.Groups()
	}
	if groups >= l.s.w.cfg.FlushRows {
		return l.flush(ctx, outer)
	}
	return nil
}

func (l *lane) fold(c *schemas.Chunk) error {
	for _, name := range sortedTypes(c) {
		rec := c.Records[name]
		reader := l.readers[name]
		if reader == nil {
			reader = column.NewReader()
			l.readers[name] = reader
		}
		block := reader.Block(rec)
		seqs, err := block.Field(schemas.SeqColumn)
		if err != nil {
			return err
		}
		// The main lane remembers events of every type: a view that the next cut defines must
		// know which of its events came before.
		ev := l.types[name]
		if ev == nil || l.alone && l.plans[0].plan.Event.Name != name {
			continue
		}
		kept, err := l.window.filter(ev, block, c.LastTime)
		if err != nil {
			return fmt.Errorf("find duplicates of %s: %w", name, err)
		}
		l.s.w.stats.duplicates.Add(uint64(dropped(block, kept)))
		for _, p := range l.plans {
			if p.plan.Event.Name != name {
				continue
			}
			rows, err := fitting(p.plan.Event, ev, block, after(seqs.Ints, p.mark.Position.Seq, kept))
			if err != nil {
				return err
			}
			if rows != nil && len(rows) == 0 {
				continue
			}
			if err := p.fold.Add(block, rows); err != nil {
				return fmt.Errorf("view %s: %w", p.plan.Name(), err)
			}
		}
	}
	return nil
}

// after returns the rows (nil: all) of kept (nil: all) whose sequence is above seq. Sequences ascend.
func after(seqs []int64, seq uint64, kept []int32) []int32 {
	from := sort.Search(len(seqs), func(i int) bool { return uint64(seqs[i]) > seq })
	switch {
	case from == 0:
		return kept
	case kept == nil:
		rows := make([]int32, 0, len(seqs)-from)
		for i := from; i < len(seqs); i++ {
			rows = append(rows, int32(i))
		}
		return rows
	default:
		at, _ := slices.BinarySearch(kept, int32(from))
		return kept[at:]
	}
}

// fitting leaves out rows that do not fit a retiring plan's own schema: they have no value in a
// field that was required when the plan was defined, and are decoded as the field is declared now.
func fitting(own, now *schemas.Event, b *column.Block, rows []int32) ([]int32, error) {
	if own == now {
		return rows, nil
	}
	for _, f := range own.Fields {
		if is := now.Field(f.Name); f.Optional || is == nil || !is.Optional {
			continue
		}
		v, err := b.Field(f.Name)
		if err != nil || v.Valid == nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		if rows == nil {
			rows = make([]int32, b.Len())
			for i := range rows {
				rows[i] = int32(i)
			}
		}
		fit := make([]int32, 0, len(rows))
		for _, row := range rows {
			if v.Valid[row] {
				fit = append(fit, row)
			}
		}
		rows = fit
	}
	return rows, nil
}

func dropped(b *column.Block, kept []int32) int {
	if kept == nil {
		return 0
	}
	return b.Len() - len(kept)
}

func sortedTypes(c *schemas.Chunk) []string {
	names := make([]string, 0, len(c.Records))
	for name := range c.Records {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// boundary ends an epoch.
//
//  1. Everything before the cut is flushed under the old epoch. If we stop here, the cut is
//     read again and 2 follows.
//  2. The tables of the plans that the cut defines are made (idempotent).
//  3. One insert stores, for all of them, the cut's position in the new epoch. If we stop
//     before it, the cut is processed again; after it, the epoch has begun for every plan.
func (l *lane) boundary(ctx, outer context.Context, cut *schemas.Cut) error {
	passed := true // a re-read of the horizon goes over cuts that are behind every plan
	for _, p := range l.plans {
		passed = passed && p.mark.Position.Seq >= cut.Position.Seq
	}
	if passed && len(l.plans) > 0 {
		return nil
	}
	if err := l.flushAll(ctx, outer); err != nil {
		return err
	}
	plans, err := plansOf(cut)
	if err != nil {
		return fmt.Errorf("cut %d: %w", cut.Number, err)
	}
	l.define(cut)
	if !l.alone {
		if err := l.s.w.sink.EnsurePlans(ctx, plans, l.s.fresh(cut)); err != nil {
			return err
		}
	}
	if l.alone && cut.Number > l.s.base && !defines(plans, l.plans[0].plan) {
		return errRemoved
	}
	mark := schemas.Mark{Epoch: cut.Number, Position: cut.Position}
	marks := make(map[string]schemas.Mark)
	next := l.plansBehind(cut, plans)
	for _, p := range next {
		if p.mark.Position.Seq < cut.Position.Seq {
			marks[p.plan.Hash] = mark
		}
	}
	if err := l.s.w.sink.SavePositions(ctx, l.s.term, marks); err != nil {
		return l.s.failure(err)
	}
	for _, p := range next {
		if p.mark.Position.Seq < cut.Position.Seq {
			p.mark = mark
		}
	}
	l.plans, l.epoch, l.savedAt = next, cut.Number, time.Now()
	l.s.w.stats.epoch.Store(cut.Number)
	return nil
}

// errRemoved ends a lane of one plan at the cut that no longer defines it.
var errRemoved = errors.New("the plan is no longer defined")

func defines(plans []*view.Plan, p *view.Plan) bool {
	return slices.ContainsFunc(plans, func(q *view.Plan) bool { return q.Hash == p.Hash })
}

// plansBehind are the lane's plans from a cut on. A lane of one plan keeps it, and so does the
// main lane when it reads a cut again whose boundary was stored: its plans are those of a later
// one then.
func (l *lane) plansBehind(cut *schemas.Cut, defined []*view.Plan) (next []*planState) {
	if l.alone || cut.Number <= l.s.base {
		return l.plans
	}
	for _, p := range l.plans { // it joined from a lane that is past the cut
		if p.mark.Position.Seq >= cut.Position.Seq && !defines(defined, p.plan) {
			next = append(next, p)
		}
	}
	for _, plan := range defined {
		at := slices.IndexFunc(l.plans, func(p *planState) bool { return p.plan.Hash == plan.Hash })
		switch {
		case at >= 0:
			next = append(next, l.plans[at])
		case !l.s.isApart(plan.Hash): // defined by this cut: it begins here
			next = append(next, &planState{plan: plan, fold: plan.NewFold()})
		}
	}
	return next
}

// join moves the plan of a lane of its own, which has caught up, to the main lane: it stops
// the main lane for the moment that it takes to get level with it.
func (l *lane) join(ctx, outer context.Context, pump *pump) (bool, error) {
	m := l.s.main
	m.mu.Lock()
	defer m.mu.Unlock()
	for l.read.Seq < m.read.Seq {
		r := pump.next(ctx)
		if r.err != nil {
			return false, r.err
		}
		if err := l.take(ctx, outer, r.chunk); err != nil {
			return false, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.flushAll(ctx, outer); err != nil {
		return false, err
	}
	for _, p := range l.plans {
		p.mark = schemas.Mark{Epoch: l.epoch, Position: l.read}
		m.plans = append(m.plans, p)
		l.s.together(p.plan)
	}
	l.plans = nil
	return true, nil
}
