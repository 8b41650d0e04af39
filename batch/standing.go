package batch

import (
	"fmt"
	"time"

	"watershed/schemas"
	"watershed/schemas/view"
)

// stalledAfter is how long a plan's stored position stands still, while other plans are past the cut, until
// the audit does without it: one that gets on has its position stored once a second at least.
const stalledAfter = 10 * time.Second

// A standing follows the speed layer's way to a cut, plan by plan. A plan that ClickHouse refuses, or whose
// turn to catch up does not come, stands still while the others get on: it is not waited for.
type standing struct {
	cut   uint64
	plans []*view.Plan
	began time.Time
	last  map[string]schemas.Mark
	moved map[string]time.Time // when a plan was seen where it is first
}

func newStanding(cut uint64, plans []*view.Plan) *standing {
	return &standing{cut: cut, plans: plans, last: make(map[string]schemas.Mark), moved: make(map[string]time.Time)}
}

// look takes the positions that are stored now. It returns for each plan why it is not past the cut, or
// nothing, and whether any of them is worth waiting for.
func (s *standing) look(marks map[string]schemas.Mark, now time.Time) (late map[string]string, waits bool) {
	if s.began.IsZero() {
		s.began = now
	}
	others := false // are past the cut
	for _, p := range s.plans {
		others = others || s.past(marks[p.Hash])
	}
	late = make(map[string]string)
	for _, p := range s.plans {
		m := marks[p.Hash]
		if s.last[p.Hash] != m || s.moved[p.Hash].IsZero() {
			s.last[p.Hash], s.moved[p.Hash] = m, now
		}
		switch {
		case s.past(m):
			late[p.Hash] = ""
		case len(marks) == 0:
			late[p.Hash] = "no speed layer has ever run"
		case others && now.Sub(s.moved[p.Hash]) >= stalledAfter:
			late[p.Hash] = fmt.Sprintf("the speed layer has stood still with it at position %d for %s, while other views are past cut %d: ClickHouse refuses its states, or it waits to catch up (`watershed status`)",
				m.Position.Seq, stalledAfter, s.cut)
		default:
			late[p.Hash] = fmt.Sprintf("the speed layer has not passed cut %d within %s", s.cut, now.Sub(s.began).Round(time.Second))
			waits = true
		}
	}
	return late, waits
}

func (s *standing) past(m schemas.Mark) bool { return m.Epoch >= s.cut }
