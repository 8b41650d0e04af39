package batch

import (
	"context"
	"fmt"

	"watershed/schemas"
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
	return flip(ctx, log, store, r.term, r.live, schemas.Live{Build: to.Number, Cut: to.Cut, Pinned: pinned})
}
