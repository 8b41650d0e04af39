package batch

import (
	"context"
	"fmt"
	"slices"

	"watershed/schemas"
	"watershed/schemas/view"
)

// Rollback makes build `number` live, pinned or not, under a term of its own. The build must
// cover every plan that the live one covers.
func Rollback(ctx context.Context, log Log, store Store, number uint64, pinned bool) (schemas.Live, error) {
	r := &run{log: log, store: store}
	if err := r.lease(ctx); err != nil {
		return schemas.Live{}, err
	}
	to, err := store.Build(ctx, number)
	if err != nil {
		return schemas.Live{}, err
	}
	if number < r.live.Build {
		for plan := range r.base.Plans {
			if _, covered := to.Plans[plan]; !covered {
				return schemas.Live{}, fmt.Errorf("build %d does not cover plan %.8s, which build %d shows: a definition has changed since", number, plan, r.live.Build)
			}
		}
	}
	shown, err := r.folded(ctx, to)
	if err != nil {
		return schemas.Live{}, err
	}
	for plan := range r.base.Plans {
		if _, covered := to.Plans[plan]; covered && !slices.ContainsFunc(shown, func(p *view.Plan) bool { return p.Hash == plan }) {
			return schemas.Live{}, fmt.Errorf("build %d cannot be shown: since its cut %d the speed layer has not folded plan %.8s throughout, and events would be missing", number, to.Cut, plan)
		}
	}
	if err := r.speedIsPast(ctx, shown, number); err != nil {
		return schemas.Live{}, err
	}
	// A newer build may show newer definitions. If we stop between this and the flip, views whose
	// definition the live build does not cover answer with an error until it is done again.
	if err := r.store.PublishViews(ctx, shown); err != nil {
		return schemas.Live{}, fmt.Errorf("publish views: %w", err)
	}
	return flip(ctx, log, store, r.term, r.live, schemas.Live{Build: to.Number, Cut: to.Cut, Pinned: pinned})
}

// speedIsPast refuses an older build while the speed layer has not reached what the live one holds:
// events that are shown would vanish until it has. Positions only grow, so one look is enough.
func (r *run) speedIsPast(ctx context.Context, shown []*view.Plan, number uint64) error {
	if number >= r.live.Build {
		return nil
	}
	marks, err := r.store.Positions(ctx, shown)
	if err != nil {
		return err
	}
	for _, p := range shown {
		if at, want := marks[p.Hash].Position.Seq, r.base.Plans[p.Hash].Position.Seq; at < want {
			return fmt.Errorf("build %d cannot be shown yet: build %d holds everything up to position %d, and the speed layer has view %s up to %d; is `watershed speed` running?",
				number, r.live.Build, want, p.Name(), at)
		}
	}
	return nil
}

// folded returns the plans of a build that every cut since the build's own defines, or keeps as
// retiring: only their epochs are complete.
func (r *run) folded(ctx context.Context, to schemas.Build) ([]*view.Plan, error) {
	if r.last == nil {
		return nil, nil
	}
	var shown []*view.Plan
	for n := max(to.Cut, 1); n <= r.last.Number; n++ {
		cut, err := r.log.Cut(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("definitions since build %d: %w", to.Number, err)
		}
		defined, err := view.CompileSet(&cut.Definitions)
		if err != nil {
			return nil, fmt.Errorf("definitions of cut %d: %w", n, err)
		}
		if n == max(to.Cut, 1) {
			shown = defined
			continue
		}
		retiring, err := view.CompileSet(&cut.Retiring)
		if err != nil {
			return nil, fmt.Errorf("definitions of cut %d: %w", n, err)
		}
		still := slices.Concat(defined, retiring)
		shown = slices.DeleteFunc(shown, func(p *view.Plan) bool {
			return !slices.ContainsFunc(still, func(q *view.Plan) bool { return q.Hash == p.Hash })
		})
	}
	return shown, nil
}
