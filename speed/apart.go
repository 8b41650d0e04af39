package speed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// liveEvery is how often stranded plans look for a new live build.
const liveEvery = time.Second

// detach moves a plan that ClickHouse refused out of the main lane. It starts again from the
// position that is stored for it, in a lane that retries without holding up the others.
func (s *session) detach(ctx, outer context.Context, refused *refusedError) {
	s.setApart(refused.plan.plan)
	crash.At("speed.detached")
	if outer.Err() != nil {
		return // the next start finds it behind, and goes on apart
	}
	s.g.Go(func() error { return s.catchUp(ctx, outer, refused.plan, refused) })
}

// catchUp carries on a plan from its mark until it is in the main lane: as often as ClickHouse
// refuses its states, with ever longer pauses.
func (s *session) catchUp(ctx, outer context.Context, p *planState, err error) error {
	for wait := time.Second; ; {
		if refused := (*refusedError)(nil); errors.As(err, &refused) {
			p = refused.plan
			s.w.stats.rejected.Add(1)
			s.w.cfg.Logger.Error("speed: ClickHouse refused the states of a view; it goes on apart from the others",
				"view", p.plan.Name(), "position", p.mark.Position.Seq, "again_in", wait, "error", refused.cause)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
			wait = min(2*wait, time.Minute)
		} else if err != nil {
			return err
		}
		select {
		case s.slot <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		err = s.runApart(ctx, outer, p)
		<-s.slot
		if err == nil {
			return nil
		}
	}
}

// runApart is one run of a lane of one plan.
func (s *session) runApart(ctx, outer context.Context, p *planState) error {
	l := s.newLane(p.mark.Epoch)
	l.alone = p.plan
	l.add(p.plan, p.mark)
	if err := l.place(ctx); err != nil {
		return err
	}
	return l.run(ctx, outer)
}

// strand notes that the log was trimmed past a plan's position.
func (s *session) strand(p *view.Plan, m schemas.Mark) {
	s.setApart(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stranded[p.Hash] = p
	s.w.stats.strand(p, true)
	s.w.cfg.Logger.Error("speed: the log was trimmed past a view's position; it waits for a build that covers it",
		"view", p.Name(), "position", m.Position.Seq, "log_begins", s.start.Seq, "do", "watershed batch")
}

// strandedPlans are the plans that wait for a build. What was defined no more at a cut since waits
// for nothing (boundary).
func (s *session) strandedPlans() (plans []*view.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.stranded {
		plans = append(plans, p)
	}
	return plans
}

// rescue waits until the live build covers stranded plans up to a cut that is still in the log, and
// lets them begin there.
func (s *session) rescue(ctx, outer context.Context) error {
	look := time.NewTicker(liveEvery)
	defer look.Stop()
	seen, first := uint64(0), true
	for {
		plans := s.strandedPlans()
		if len(plans) == 0 {
			return nil
		}
		live, err := s.w.sink.Live(ctx)
		if err == nil && (first || live.Flip != seen) {
			seen, first = live.Flip, false
			err = s.rescueBy(ctx, outer, live.Build, plans)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("begin stranded views again: %w", s.failure(err))
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// rescueBy lets plans begin at the cuts up to which a build covers them.
//
//  1. The beginning is stored: it lies behind the plan's position, and behind any beginning
//     stored before. If we stop here, the next start finds the plan stranded still.
//  2. Its position is stored there. If we stop here, the next start goes on from it.
//  3. It catches up apart from the others.
func (s *session) rescueBy(ctx, outer context.Context, number uint64, plans []*view.Plan) error {
	build, err := s.w.sink.Build(ctx, number)
	if err != nil {
		return err
	}
	begins, err := s.w.sink.Begins(ctx, plans)
	if err != nil {
		return err
	}
	start, err := s.w.log.Before(ctx, time.Time{})
	if err != nil {
		return err
	}
	for _, p := range plans {
		covered, ok := build.Plans[p.Hash]
		if !ok || covered.Position.Seq < start.Seq || covered.Cut < begins[p.Hash].Epoch {
			continue
		}
		mark := schemas.Mark{Epoch: covered.Cut, Position: covered.Position}
		if err := s.verify(ctx, mark.Position); err != nil {
			return err
		}
		if !s.unstrand(p) {
			continue
		}
		if err := s.w.sink.Begin(ctx, s.term, map[string]schemas.Mark{p.Hash: mark}); err != nil {
			return err
		}
		crash.At("speed.rescue-begun")
		if err := s.w.sink.SavePositions(ctx, s.term, map[string]schemas.Mark{p.Hash: mark}); err != nil {
			return err
		}
		crash.At("speed.rescued")
		s.w.cfg.Logger.Info("speed: a stranded view begins again", "view", p.Name(), "cut", covered.Cut, "position", mark.Position.Seq)
		s.w.stats.strand(p, false)
		s.g.Go(func() error { return s.catchUp(ctx, outer, &planState{plan: p, mark: mark}, nil) })
	}
	return nil
}

// unstrand takes a plan out of those that wait; false if it is none of them any more.
func (s *session) unstrand(p *view.Plan) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.stranded[p.Hash]
	delete(s.stranded, p.Hash)
	return ok
}

// abandon forgets stranded plans that a cut does not define: should a later one define them again,
// they begin there.
func (s *session) abandon(defined []*view.Plan) {
	for _, p := range s.strandedPlans() {
		if !defines(defined, p) && s.unstrand(p) {
			s.w.stats.strand(p, false)
			s.together(p)
		}
	}
}
