package speed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/schemas"
	"watershed/schemas/view"
)

// apartBehind is how many messages behind the foremost plan one must be to get a lane of its own.
const apartBehind = 100_000

// A session is the worker under one term.
type session struct {
	w    *Worker
	term uint64
	main *lane
	g    *errgroup.Group
	base uint64 // the newest cut whose boundary was stored when the session began
	last uint64 // the log's last cut when the session began

	mu    sync.Mutex      // guards apart
	apart map[string]bool // plans (by hash) in lanes of their own
}

// takeOver begins a term of our own.
//
//  1. A number above every term in the log's counter and in ClickHouse. If we stop here,
//     the number is never used.
//  2. The sink records it and ends older inserts. From here on no older term can commit; if
//     we stop here, nobody writes until the next start takes a newer one.
//  3. Only now are positions read back (resume): nothing can move them but us.
func (s *session) takeOver(ctx context.Context) error {
	floor, err := s.w.sink.Term(ctx, Role)
	if err != nil {
		return fmt.Errorf("read the newest term: %w", err)
	}
	if s.term, err = s.w.log.Next(ctx, "term."+Role, floor); err != nil {
		return fmt.Errorf("take a term: %w", err)
	}
	if err := s.w.sink.TakeOver(ctx, Role, s.term); err != nil {
		return s.failure(err)
	}
	s.w.stats.term.Store(s.term)
	return nil
}

// resume finds the cut that the stored states stand at, the plans that it defines and how far
// each of them is, and makes the lanes that carry them on.
func (s *session) resume(ctx context.Context) ([]*lane, error) {
	last, ok, err := s.w.log.LastCut(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("the log has no cut yet, so nothing says which views there are")
	}
	s.last = last.Number
	for cut := last; ; {
		plans, err := plansOf(&cut)
		if err != nil {
			return nil, fmt.Errorf("cut %d: %w", cut.Number, err)
		}
		if err := s.w.sink.EnsurePlans(ctx, plans, s.fresh(&cut)); err != nil {
			return nil, err
		}
		marks, err := s.w.sink.Positions(ctx, plans)
		if err != nil {
			return nil, err
		}
		// The boundary at a cut stores the positions of all its plans in one insert, so one
		// plan that is past the cut proves that the cut was processed.
		for _, m := range marks {
			if m.Epoch >= cut.Number {
				s.base = cut.Number
				return s.lanes(ctx, cut, plans, marks)
			}
		}
		if cut.Previous.Seq == 0 { // the log's first, whose number is 1 unless the log was recreated
			if err := s.publishFirst(ctx, plans, last); err != nil {
				return nil, err
			}
			return s.lanes(ctx, cut, plans, marks)
		}
		if cut, err = s.w.log.Cut(ctx, cut.Number-1); err != nil {
			return nil, err
		}
	}
}

// fresh reports whether a cut's plans are shown before there is a build: only if the log has no
// later cut. Else there were builds, and if they are lost, what was imported is missing until the
// next one: the views answer with an error, and not with the part that the log still has.
func (s *session) fresh(cut *schemas.Cut) bool { return cut.Number == 1 && s.last == 1 }

// publishFirst makes the merged views of the first plans. Those that a later cut defines anew are
// the batch's to publish, which may have done so.
func (s *session) publishFirst(ctx context.Context, plans []*view.Plan, last schemas.Cut) error {
	now, err := view.CompileSet(&last.Definitions)
	if err != nil {
		return fmt.Errorf("cut %d: %w", last.Number, err)
	}
	var still []*view.Plan
	for _, p := range plans {
		if slices.ContainsFunc(now, func(q *view.Plan) bool { return q.Hash == p.Hash }) {
			still = append(still, p)
		}
	}
	return s.w.sink.PublishViews(ctx, still)
}

// lanes divides the plans of a cut: those near the foremost go together, each of the others
// alone.
func (s *session) lanes(ctx context.Context, cut schemas.Cut, plans []*view.Plan, marks map[string]schemas.Mark) ([]*lane, error) {
	var front uint64
	for _, m := range marks {
		front = max(front, m.Position.Seq)
	}
	main := s.newLane(s.base)
	main.define(&cut)
	s.main = main
	lanes := []*lane{main}
	for _, p := range plans {
		m, begun := marks[p.Hash]
		if !begun {
			var err error
			if m, err = s.beginning(ctx, p, cut); err != nil {
				return nil, err
			}
		}
		to := main
		if m.Position.Seq+apartBehind < front {
			to = s.newLane(m.Epoch)
			to.alone = true
			s.apart[p.Hash] = true
			lanes = append(lanes, to)
		}
		to.add(p, m)
	}
	for _, l := range lanes {
		if err := l.place(ctx); err != nil {
			return nil, err
		}
	}
	return lanes, nil
}

// beginning is where a plan of a cut begins of which nothing is stored: at the first of the cuts
// in a row that define it, or with the log if that is its first.
func (s *session) beginning(ctx context.Context, p *view.Plan, cut schemas.Cut) (schemas.Mark, error) {
	for cut.Previous.Seq > 0 {
		before, err := s.w.log.Cut(ctx, cut.Number-1)
		if err != nil {
			return schemas.Mark{}, err
		}
		plans, err := plansOf(&before)
		if err != nil {
			return schemas.Mark{}, fmt.Errorf("cut %d: %w", before.Number, err)
		}
		if !slices.ContainsFunc(plans, func(q *view.Plan) bool { return q.Hash == p.Hash }) {
			return schemas.Mark{Epoch: cut.Number, Position: cut.Position}, nil
		}
		cut = before
	}
	return schemas.Mark{}, nil
}

func (s *session) run(ctx context.Context, lanes []*lane) error {
	g, inner := errgroup.WithContext(ctx)
	s.g = g
	for _, l := range lanes {
		g.Go(func() error {
			err := l.run(inner, ctx)
			if l.alone {
				return s.retry(inner, ctx, err)
			}
			return err
		})
	}
	return g.Wait()
}

// detach moves a plan that ClickHouse refused out of the main lane. It starts again from the
// position that is stored for it, in a lane that retries without holding up the others.
func (s *session) detach(ctx, outer context.Context, refused *refusedError) {
	s.mu.Lock()
	s.apart[refused.plan.plan.Hash] = true
	s.mu.Unlock()
	if outer.Err() != nil {
		return // the next start finds it behind, and goes on apart
	}
	s.g.Go(func() error { return s.retry(ctx, outer, refused) })
}

// retry goes on after a lane of one plan has ended: as often as ClickHouse refuses the plan's
// states, with ever longer pauses.
func (s *session) retry(ctx, outer context.Context, err error) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		var refused *refusedError
		if !errors.As(err, &refused) {
			return err
		}
		p := refused.plan
		s.w.stats.rejected.Add(1)
		s.w.cfg.Logger.Error("speed: ClickHouse refused the states of a view; it goes on apart from the others",
			"view", p.plan.Name(), "position", p.mark.Position.Seq, "again_in", wait, "error", refused.cause)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		l := s.newLane(p.mark.Epoch)
		l.alone = true
		l.add(p.plan, p.mark)
		if err := l.place(ctx); err != nil {
			return err
		}
		err = l.run(ctx, outer)
	}
}

func (s *session) isApart(hash string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apart[hash]
}

// together notes that a plan has no lane of its own any more.
func (s *session) together(p *view.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.apart, p.Hash)
}

// failure makes the sink's "a newer term is there" an error of ours.
func (s *session) failure(err error) error {
	var f interface{ Fenced() bool }
	if errors.As(err, &f) && f.Fenced() {
		return &FencedError{Term: s.term}
	}
	return err
}

// plansOf compiles what holds from a cut on: its definitions, and the retiring ones that the
// live build still shows.
func plansOf(cut *schemas.Cut) ([]*view.Plan, error) {
	plans, err := view.CompileSet(&cut.Definitions)
	if err != nil {
		return nil, err
	}
	retiring, err := view.CompileSet(&cut.Retiring)
	if err != nil {
		return nil, err
	}
	have := make(map[string]bool, len(plans))
	for _, p := range plans {
		have[p.Hash] = true
	}
	for _, p := range retiring {
		if !have[p.Hash] {
			plans = append(plans, p)
		}
	}
	return plans, nil
}
