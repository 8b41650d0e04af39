package speed

import (
	"context"
	"slices"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// boundary ends an epoch.
//
//  1. Everything before the cut is flushed under the old epoch. If we stop here, the cut is
//     read again and 2 follows.
//  2. The tables of the plans that the cut defines are made (idempotent).
//  3. One insert stores that the plans begin here of which the cut before had none, or all if
//     the log begins anew. If we stop here, they have no position in the new epoch, and no state.
//  4. One insert stores, for all of them, the cut's position in the new epoch. If we stop
//     before it, the cut is processed again; after it, the epoch has begun for every plan.
func (l *lane) boundary(ctx, outer context.Context, cut *schemas.Cut) error {
	passed := len(l.plans) > 0 // a re-read of the horizon goes over cuts that are behind every plan
	for _, p := range l.plans {
		passed = passed && p.mark.Position.Seq >= cut.Position.Seq
	}
	if passed {
		return nil
	}
	if err := l.flushAll(ctx, outer); err != nil {
		return err
	}
	crash.At("speed.epoch-flushed")
	defined, err := plansOf(cut)
	if err != nil {
		return err
	}
	l.define(cut)
	if cut.Anew > 0 {
		// What stands behind the cut may be what we have read before it. That is in an epoch which
		// is not added to the new ones, so that its copies are no duplicates.
		l.window = newWindow(l.s.w.cfg.Horizon, l.s.w.cfg.HorizonRows)
	}
	if l.alone == nil {
		if err := l.s.w.sink.EnsurePlans(ctx, defined, l.s.fresh(cut)); err != nil {
			return err
		}
		crash.At("speed.tables-made")
		if cut.Number > l.s.base {
			l.s.abandon(defined)
			l.s.w.stats.retain(defined)
		}
	}
	next := l.plansFrom(cut, defined)
	if err := l.store(ctx, cut, next); err != nil {
		return l.s.failure(err)
	}
	l.plans, l.epoch, l.savedAt = next, cut.Number, time.Now()
	l.s.w.stats.epoch.Store(cut.Number)
	return nil
}

// store takes plans over a cut: steps 3 and 4 of boundary.
func (l *lane) store(ctx context.Context, cut *schemas.Cut, plans []*planState) error {
	mark := schemas.Mark{Epoch: cut.Number, Position: cut.Position}
	begin, marks := make(map[string]schemas.Mark), make(map[string]schemas.Mark)
	for _, p := range plans {
		if p.mark.Position.Seq >= cut.Position.Seq {
			continue
		}
		marks[p.plan.Hash] = mark
		if p.begins || cut.Anew > 0 {
			begin[p.plan.Hash] = mark
		}
	}
	if len(begin) > 0 {
		if err := l.s.w.sink.Begin(ctx, l.s.term, begin); err != nil {
			return err
		}
		crash.At("speed.epoch-begun")
	}
	if len(marks) > 0 {
		if err := l.s.w.sink.SavePositions(ctx, l.s.term, marks); err != nil {
			return err
		}
		crash.At("speed.epoch-saved")
	}
	for _, p := range plans {
		p.begins = false
		if p.mark.Position.Seq < cut.Position.Seq {
			p.mark = mark
			l.s.w.stats.stored(p.plan, mark, cut.At)
		}
	}
	return nil
}

// plansFrom are the lane's plans from a cut on. The main lane keeps all when it reads a cut again
// whose boundary was stored: its plans are those of a later one then. A lane of one plan has none
// from a cut that does not define it to the next that does; it begins again there.
func (l *lane) plansFrom(cut *schemas.Cut, defined []*view.Plan) (next []*planState) {
	if l.alone == nil && cut.Number <= l.s.base {
		return l.plans
	}
	for _, p := range l.plans { // it joined from a lane that is past the cut
		if p.mark.Position.Seq >= cut.Position.Seq && !defines(defined, p.plan) {
			next = append(next, p)
		}
	}
	for _, plan := range defined {
		if l.alone != nil && plan.Hash != l.alone.Hash || l.alone == nil && l.s.isApart(plan) {
			continue
		}
		at := slices.IndexFunc(l.plans, func(p *planState) bool { return p.plan.Hash == plan.Hash })
		if at >= 0 {
			next = append(next, l.plans[at])
		} else {
			next = append(next, &planState{plan: plan, fold: plan.NewFold(), begins: true})
		}
	}
	return next
}

// leave ends a lane of one plan when it is level with the main lane: the plan moves there. If no
// cut defines it any more, it ends when the main lane knows that too, so that one of the two
// meets the next cut that does.
func (l *lane) leave(ctx, outer context.Context, pump *pump, caught bool) (bool, error) {
	m := l.s.main
	switch {
	case len(l.plans) == 0:
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.epoch != l.epoch {
			return false, nil
		}
		l.s.together(l.alone)
		return true, nil
	case caught:
		return l.join(ctx, outer, pump)
	}
	return false, nil
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
	crash.At("speed.joined")
	for _, p := range l.plans {
		p.mark = schemas.Mark{Epoch: l.epoch, Position: l.read}
		m.plans = append(m.plans, p)
	}
	l.plans = nil
	l.s.together(l.alone)
	return true, nil
}
