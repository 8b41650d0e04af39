package batch

import (
	"context"
	"fmt"

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
	// A newer build may show newer definitions. If we stop between this and the flip, views whose
	// definition the live build does not cover answer with an error until it is done again.
	if err := r.publishViewsOf(ctx, to); err != nil {
		return schemas.Live{}, err
	}
	return flip(ctx, log, store, r.term, r.live, schemas.Live{Build: to.Number, Cut: to.Cut, Pinned: pinned})
}

// publishViewsOf points the views at the definitions that a build covers: those of its cut.
func (r *run) publishViewsOf(ctx context.Context, to schemas.Build) error {
	if to.Cut == 0 {
		return nil // the empty build, whose views are those of cut 1, and these are the live one's too
	}
	cut, err := r.log.Cut(ctx, to.Cut)
	if err != nil {
		return fmt.Errorf("definitions of build %d: %w", to.Number, err)
	}
	plans, err := view.CompileSet(&cut.Definitions)
	if err != nil {
		return fmt.Errorf("definitions of build %d: %w", to.Number, err)
	}
	if err := r.store.PublishViews(ctx, plans); err != nil {
		return fmt.Errorf("publish views: %w", err)
	}
	return nil
}
