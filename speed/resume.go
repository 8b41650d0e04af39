package speed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// apartBehind is how many messages behind the foremost plan one must be to get a lane of its own.
const apartBehind = 100_000

// resume finds the cut that the stored states stand at, the plans that it defines and how far
// each of them is. It makes the main lane, and returns the plans that are to catch up apart.
func (s *session) resume(ctx context.Context) ([]*planState, error) {
	var err error
	if s.start, err = s.w.log.Before(ctx, time.Time{}); err != nil {
		return nil, fmt.Errorf("the log's beginning: %w", err)
	}
	cut, ok, err := s.w.log.LastCut(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("the log has no cut yet, so nothing says which views there are")
	}
	last := cut
	s.last = last.Number
	for {
		plans, err := plansOf(&cut)
		if err != nil {
			return nil, err
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
		before, ok, err := s.before(ctx, &cut)
		if err != nil {
			return nil, err
		}
		if !ok { // the log's oldest: none is past it
			if len(marks) == 0 {
				if err := s.publishFirst(ctx, plans, last); err != nil {
					return nil, err
				}
			}
			return s.lanes(ctx, cut, plans, marks)
		}
		cut = before
	}
}

// before returns the cut before another; false if that is the oldest in the log.
func (s *session) before(ctx context.Context, cut *schemas.Cut) (schemas.Cut, bool, error) {
	if cut.Previous.Seq == 0 || cut.Previous.Seq < s.start.Seq {
		return schemas.Cut{}, false, nil
	}
	before, err := s.w.log.Cut(ctx, cut.Number-1)
	return before, true, err
}

// fresh reports whether a cut's plans are shown before there is a build: only if the log is whole
// and has no later cut. Else there were builds, and if they are lost, what the log does not have is
// missing until the next one: the views answer with an error, and not with a part.
func (s *session) fresh(cut *schemas.Cut) bool {
	return cut.Number == 1 && s.last == 1 && s.start.Seq == 0
}

// publishFirst makes the merged views of the first plans. Those that a later cut defines anew are
// the batch's to publish, which may have done so. If we stop here, nothing is stored of any plan,
// and the next start does it again.
func (s *session) publishFirst(ctx context.Context, plans []*view.Plan, last schemas.Cut) error {
	now, err := view.CompileSet(&last.Definitions)
	if err != nil {
		return fmt.Errorf("cut %d: %w", last.Number, err)
	}
	var still []*view.Plan
	for _, p := range plans {
		if defines(now, p) {
			still = append(still, p)
		}
	}
	if err := s.w.sink.PublishViews(ctx, still); err != nil {
		return err
	}
	crash.At("speed.views-published")
	return nil
}

// lanes divides the plans of a cut: those near the foremost go together, each of the others
// alone; those that the log was trimmed past wait.
func (s *session) lanes(ctx context.Context, cut schemas.Cut, plans []*view.Plan, marks map[string]schemas.Mark) ([]*planState, error) {
	begin, stranded, err := s.origins(ctx, cut, plans, marks)
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx, begin); err != nil {
		return nil, err
	}
	maps.Copy(marks, begin)
	if err := s.report(ctx, plans, marks); err != nil {
		return nil, err
	}
	var front uint64
	for _, p := range plans {
		if !defines(stranded, p) {
			front = max(front, marks[p.Hash].Position.Seq)
		}
	}
	s.main = s.newLane(s.base)
	s.main.define(&cut)
	var behind []*planState
	for _, p := range plans {
		m := marks[p.Hash]
		switch {
		case defines(stranded, p):
			s.strand(p, m)
		case m.Position.Seq+apartBehind < front:
			s.setApart(p)
			behind = append(behind, &planState{plan: p, mark: m})
		default:
			s.main.add(p, m)
		}
	}
	for _, p := range behind { // a log that does not hold what is stored is refused before anything is written
		if err := s.verify(ctx, p.mark.Position); err != nil {
			return nil, err
		}
	}
	crash.At("speed.resumed")
	return behind, s.main.place(ctx)
}

// report tells the statistics where plans stand. What the log does not have any more is counted from
// where it begins.
func (s *session) report(ctx context.Context, plans []*view.Plan, marks map[string]schemas.Mark) error {
	times := make(map[uint64]time.Time)
	for _, m := range marks {
		seq := max(m.Position.Seq, s.start.Seq, 1)
		if _, ok := times[seq]; ok {
			continue
		}
		_, at, err := s.w.log.At(ctx, seq)
		if err != nil {
			return err
		}
		times[seq] = at
	}
	s.w.stats.plans(plans, marks, func(m schemas.Mark) time.Time { return times[max(m.Position.Seq, s.start.Seq, 1)] })
	return nil
}

// begin stores where plans begin, and then those positions. If we stop before the second, nothing is
// stored of them behind their beginning, so the next start finds them here again, or at a later
// cut.
func (s *session) begin(ctx context.Context, marks map[string]schemas.Mark) error {
	if len(marks) == 0 {
		return nil
	}
	if err := s.w.sink.Begin(ctx, s.term, marks); err != nil {
		return err
	}
	crash.At("speed.begun")
	atCuts := maps.Clone(marks)
	maps.DeleteFunc(atCuts, func(_ string, m schemas.Mark) bool { return m.Position.Seq == 0 })
	return s.w.sink.SavePositions(ctx, s.term, atCuts)
}

// verify opens the log at a stored position, which fails unless the log is the one that the
// position belongs to.
func (s *session) verify(ctx context.Context, at schemas.Position) error {
	if at.Seq == 0 {
		return nil
	}
	src, err := s.w.log.Chunks(ctx, at)
	if err != nil {
		return fmt.Errorf("the log at the stored position: %w", err)
	}
	src.Close()
	return nil
}

// origins finds the plans of a cut that cannot go on from their mark, or have none: those that
// begin, and where, and those that are stranded. It walks back over the cuts that define them in
// a row.
func (s *session) origins(ctx context.Context, cut schemas.Cut, plans []*view.Plan, marks map[string]schemas.Mark) (begin map[string]schemas.Mark, stranded []*view.Plan, err error) {
	begin = make(map[string]schemas.Mark)
	for left := plans; ; {
		var older []*view.Plan // not stored up to this cut
		for _, p := range left {
			if m, ok := marks[p.Hash]; !ok || m.Position.Seq < cut.Position.Seq {
				older = append(older, p)
			}
		}
		if left = older; len(left) == 0 {
			return begin, stranded, nil
		}
		before, ok, err := s.before(ctx, &cut)
		if err != nil {
			return nil, nil, err
		}
		here := schemas.Mark{Epoch: cut.Number, Position: cut.Position}
		if !ok { // the log's oldest cut
			for _, p := range left {
				_, stored := marks[p.Hash]
				switch {
				case s.start.Seq == 0 && stored: // it stands before the first cut
				case s.start.Seq == 0:
					begin[p.Hash] = schemas.Mark{Epoch: cut.Number - 1}
				case stored && cut.Anew == 0:
					stranded = append(stranded, p)
				default:
					begin[p.Hash] = here
				}
			}
			return begin, stranded, nil
		}
		defined, err := plansOf(&before)
		if err != nil {
			return nil, nil, err
		}
		left = slices.DeleteFunc(left, func(p *view.Plan) bool {
			if defines(defined, p) {
				return false
			}
			begin[p.Hash] = here
			return true
		})
		cut = before
	}
}

func defines(plans []*view.Plan, p *view.Plan) bool {
	return slices.ContainsFunc(plans, func(q *view.Plan) bool { return q.Hash == p.Hash })
}
