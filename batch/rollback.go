package batch

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// Rollback makes a build live, pinned or not, under a term of its own. Choose names the build; it is
// called when no other batch can change what is live any more. The build must cover every plan that
// the live one covers, and what the speed layer has must reach back to it.
func Rollback(ctx context.Context, log Log, store Store, choose func(context.Context, schemas.Live) (uint64, error), pinned bool) (schemas.Live, error) {
	r := &run{cfg: Config{Logger: slog.Default()}, log: log, store: store}
	live, err := r.rollback(ctx, choose, pinned)
	return live, r.overtaken(err)
}

func (r *run) rollback(ctx context.Context, choose func(context.Context, schemas.Live) (uint64, error), pinned bool) (schemas.Live, error) {
	if err := r.lease(ctx); err != nil {
		return schemas.Live{}, err
	}
	number, err := choose(ctx, r.live)
	if err != nil {
		return schemas.Live{}, err
	}
	to, err := r.store.Build(ctx, number)
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
	shown, err := r.folded(to)
	if err != nil {
		return schemas.Live{}, err
	}
	for plan := range r.base.Plans {
		if _, covered := to.Plans[plan]; covered && !slices.ContainsFunc(shown, func(p *view.Plan) bool { return p.Hash == plan }) {
			return schemas.Live{}, fmt.Errorf("build %d cannot be shown: since its cut %d the speed layer has not folded plan %.8s throughout, and events would be missing", number, to.Cut, plan)
		}
	}
	if err := r.speedReachesBack(ctx, shown, to); err != nil {
		return schemas.Live{}, err
	}
	if err := r.speedIsPast(ctx, shown, number); err != nil {
		return schemas.Live{}, err
	}
	if err := r.complete(ctx, number, pinned); err != nil {
		return schemas.Live{}, err
	}
	// A newer build may show newer definitions. If we stop between this and the flip, views whose
	// definition the live build does not cover answer with an error until it is done again.
	if err := r.store.PublishViews(ctx, shown); err != nil {
		return schemas.Live{}, fmt.Errorf("publish views: %w", err)
	}
	crash.At("batch.rollback-published")
	return flip(ctx, r.log, r.store, r.term, r.live, schemas.Live{Build: to.Number, Cut: to.Cut, Pinned: pinned})
}

// complete refuses to pin a build of which ClickHouse has lost something. One that is released to may lack
// it: its views answer with an error until the next batch has computed it, since no pin holds that up.
func (r *run) complete(ctx context.Context, number uint64, pinned bool) error {
	damage, err := r.store.CheckBuild(ctx, number)
	if err != nil || damage.None() {
		return err
	}
	if pinned {
		return fmt.Errorf("build %d cannot be shown: ClickHouse has lost what it shows, and only a new build by `watershed batch` has it again: %s", number, damage)
	}
	r.cfg.Logger.Warn("rollback: ClickHouse has lost some of the build; the next batch computes it again", "build", number, "missing", damage.String())
	// If we stop here, views throw that would have thrown behind the flip.
	return r.store.Seal(ctx, damage)
}

// speedReachesBack refuses a build if the speed states of a plan begin behind the cut up to which the
// build has it: what lies between would be missing.
func (r *run) speedReachesBack(ctx context.Context, shown []*view.Plan, to schemas.Build) error {
	begins, err := r.store.Begins(ctx, shown)
	if err != nil {
		return err
	}
	for _, p := range shown {
		if at, from := to.Plans[p.Hash].Cut, begins[p.Hash].Epoch; from > at {
			return fmt.Errorf("build %d cannot be shown: it has view %s up to cut %d, the speed layer has not folded it between that and cut %d, and events would be missing",
				to.Number, p.Name(), at, from)
		}
	}
	return nil
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

// folded returns the plans of a build that the speed layer folds today: what is not is not shown
// again, as its states end somewhere.
func (r *run) folded(to schemas.Build) (shown []*view.Plan, err error) {
	if r.last == nil {
		return nil, nil
	}
	for _, set := range []*schemas.Set{&r.last.Definitions, &r.last.Retiring} {
		plans, err := view.CompileSet(set)
		if err != nil {
			return nil, fmt.Errorf("definitions of cut %d: %w", r.last.Number, err)
		}
		for _, p := range plans {
			_, covered := to.Plans[p.Hash]
			if covered && !slices.ContainsFunc(shown, func(q *view.Plan) bool { return q.Hash == p.Hash }) {
				shown = append(shown, p)
			}
		}
	}
	return shown, nil
}
