package batch

import (
	"context"
	"fmt"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// keepBuilds is how many builds older than the live one are kept to roll back to.
const keepBuilds = 3

// flip makes the build live.
//
//  1. The build's rows. If we stop here, it is a complete build that nothing shows.
//  2. All views are pointed at their newest definitions. From here to 3 those whose definition
//     the live build does not cover, and only those, answer with an error, never with half.
//  3. One row in `live`. Every view shows the new build from this insert on; if its outcome
//     is unknown to us, the next run reads what is live and goes on from that.
func (r *run) flip(ctx context.Context, w *work) error {
	crash.At("batch.audited")
	if err := r.store.SaveBuild(ctx, r.term, w.build); err != nil {
		return fmt.Errorf("save build %d: %w", w.build.Number, err)
	}
	crash.At("batch.build-saved")
	if r.live.Pinned {
		r.report.Pinned = true
		r.cfg.Logger.Warn("batch: the live build is pinned by a rollback; the new build is kept and not made live",
			"live", r.live.Build, "build", w.build.Number, "release", "watershed rollback --release")
		return nil
	}
	if r.report.Gated { // the build is kept like one behind a pin, and the next run compares again
		r.cfg.Logger.Warn("batch: the audit found more drift than the gate lets through; the new build is kept and not made live",
			"live", r.live.Build, "build", w.build.Number, "gate", r.cfg.Gate.String(), "let through", "watershed batch --gate off")
		return nil
	}
	if err := r.store.PublishViews(ctx, r.plans); err != nil {
		return fmt.Errorf("publish views: %w", err)
	}
	crash.At("batch.views-published")
	if _, err := flip(ctx, r.log, r.store, r.term, r.live, schemas.Live{Build: w.build.Number, Cut: w.build.Cut}); err != nil {
		return err
	}
	crash.At("batch.flipped")
	r.report.Flipped = true
	return nil
}

// flip makes `to` live, by one row numbered above the flip that was read as live.
func flip(ctx context.Context, log Log, store Store, term uint64, from, to schemas.Live) (_ schemas.Live, err error) {
	if to.Flip, err = log.Next(ctx, "flip", from.Flip); err != nil {
		return from, fmt.Errorf("number the flip: %w", err)
	}
	to.At = time.Now().UTC()
	if err := store.Flip(ctx, term, to); err != nil {
		return from, fmt.Errorf("flip to build %d: %w", to.Build, err)
	}
	return to, nil
}

// garbage condemns and drops what no kept build names. That it fails does not undo the build:
// the next run does it again.
func (r *run) garbage(ctx context.Context) error {
	dropped, err := r.store.Garbage(ctx, r.term, keepBuilds)
	if err != nil {
		return fmt.Errorf("build %d is live, but what older ones left was not dropped: %w", r.cut.Number, err)
	}
	crash.At("batch.garbage-dropped")
	r.report.Dropped = dropped
	// What is live may show older definitions, and a speed layer behind the cut still folds them.
	if !r.report.Flipped || !r.speedPast {
		return nil
	}
	retiring, err := view.CompileSet(&r.cut.Retiring)
	if err != nil {
		return err
	}
	if dropped, err = r.store.Forget(ctx, r.term, r.plans, retiring); err != nil {
		return fmt.Errorf("build %d is live, but what is no longer defined was not dropped: %w", r.cut.Number, err)
	}
	r.report.Dropped += dropped
	return nil
}
