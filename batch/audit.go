package batch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"watershed/schemas"
	"watershed/schemas/view"
)

// A RebuildError says that slices computed anew differ from those that were there.
type RebuildError struct {
	Views []schemas.Audit // those with differences
}

func (e *RebuildError) Error() string {
	a := e.Views[0]
	msg := fmt.Sprintf("rebuild: %d of %d groups of view %s differ from the slices that were computed before", a.Drifted, a.Groups, a.View)
	if len(a.Worst) > 0 {
		w := a.Worst[0]
		msg += fmt.Sprintf(" (%v: %s was %s, is %s)", w.Group, w.Measure, w.Baseline, w.Batch)
	}
	if len(e.Views) > 1 {
		msg += fmt.Sprintf(", and %d more views", len(e.Views)-1)
	}
	return msg + ": the build was not made live; --rebuild --replace makes it so"
}

// compare holds rebuilt slices against those that were registered before.
//
// Equal: the build keeps the old slices, and what was computed is garbage. Different: the
// run ends, and nothing has changed. With Replace the new slices are registered either way.
func (r *run) compare(ctx context.Context, w *work, results []result, old map[string]map[string]schemas.Slice) error {
	specs := make(map[string]*schemas.AuditSpec)
	var fresh []schemas.Slice
	for _, res := range results {
		before, known := old[res.plan.Hash][res.slice.Key]
		if !known || r.cfg.Replace {
			fresh = append(fresh, res.slice)
		}
		if !known {
			continue
		}
		if specs[res.plan.Hash] == nil {
			specs[res.plan.Hash] = &schemas.AuditSpec{Build: r.cut.Number, Baseline: r.base.Number}
		}
		sides(specs[res.plan.Hash], &before, &res.slice)
		if !r.cfg.Replace {
			r.keepOld(w, res, before)
		}
	}
	var differ []schemas.Audit
	for _, p := range r.plans {
		if specs[p.Hash] == nil {
			continue
		}
		a, err := r.store.Audit(ctx, p, *specs[p.Hash])
		if err != nil {
			return fmt.Errorf("compare view %s: %w", p.Name(), err)
		}
		r.report.Rebuilt = append(r.report.Rebuilt, a)
		if a.Drifted > 0 {
			differ = append(differ, a)
		}
	}
	if len(differ) > 0 && !r.cfg.Replace {
		return &RebuildError{Views: differ}
	}
	if len(fresh) == 0 {
		return nil
	}
	return r.store.RegisterSlices(ctx, r.term, fresh)
}

// keepOld puts the slice that was there before in place of the equal one just computed.
func (r *run) keepOld(w *work, res result, before schemas.Slice) {
	list := w.build.Plans[res.plan.Hash].Slices
	for i := range list {
		if list[i].ID == res.slice.ID {
			list[i] = before
		}
	}
}

// audit compares, for each plan that the live build covers, what the views showed until now
// with the new build. It changes nothing: drift is for the report, and for the gate.
func (r *run) audit(ctx context.Context, w *work) error {
	late, err := r.speedPassed(ctx, w)
	if err != nil {
		return err
	}
	r.speedPast = true
	for _, why := range late {
		r.speedPast = r.speedPast && why == ""
	}
	audits := make([]schemas.Audit, len(r.plans))
	var mu sync.Mutex // guards done, and keeps Progress to one call at a time
	done := int64(0)
	if err := r.forEachPlan(ctx, func(ctx context.Context, i int, p *view.Plan) (err error) {
		spec := w.specs[p.Hash]
		a := schemas.Audit{View: p.Name(), Plan: p.Hash, Build: r.cut.Number, Baseline: r.base.Number}
		switch {
		case spec == nil:
			a.Skipped = r.unaudited(p, w.snaps[p.Event.Name])
		case late[p.Hash] != "":
			a.Skipped = late[p.Hash]
		default:
			if a, err = r.store.Audit(ctx, p, *spec); err != nil {
				return fmt.Errorf("view %s: %w", p.Name(), err)
			}
		}
		a.Gated = r.cfg.Gate.Shut(a)
		audits[i] = a
		mu.Lock()
		defer mu.Unlock()
		done++
		r.cfg.Progress(Progress{Step: "audit", Done: done, Total: int64(len(r.plans)), Unit: "views", Detail: p.Name()})
		return nil
	}); err != nil {
		return err
	}
	for _, a := range audits {
		r.report.Gated = r.report.Gated || a.Gated
	}
	r.report.Audit = audits
	return r.store.SaveAudits(ctx, r.term, r.report.Audit)
}

// imported counts, for the audits, the events that the live build's snapshots lacked and that were
// imported.
func (w *work) imported(plans []*view.Plan, snaps snapshots) {
	for _, p := range plans {
		spec := w.specs[p.Hash]
		if spec == nil {
			continue
		}
		for _, d := range snaps[p.Event.Name].dates {
			for _, f := range d.fresh {
				spec.Imported += uint64(f.Rows)
			}
		}
	}
}

// speedPassed waits until the speed layer has passed the cut: only then are its epochs before it
// complete. It returns, for each plan to be audited, why it cannot be; empty if it can.
func (r *run) speedPassed(ctx context.Context, w *work) (map[string]string, error) {
	var waiting []*view.Plan
	for _, p := range r.plans {
		if w.specs[p.Hash] != nil {
			waiting = append(waiting, p)
		}
	}
	deadline := time.NewTimer(r.cfg.Wait)
	defer deadline.Stop()
	pause := 10 * time.Millisecond // longer and longer: each look is a query over all plans
	s := newStanding(r.cut.Number, waiting)
	for late := false; ; {
		marks, err := r.store.Positions(ctx, waiting)
		if err != nil {
			return nil, err
		}
		if why, waits := s.look(marks, time.Now()); late || !waits {
			return why, nil
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		case <-deadline.C:
			late = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
