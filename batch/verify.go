package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/view"
)

// A Scratch is a store to compute in that no view shows.
type Scratch interface {
	Store
	// Borrow copies slices of a plan from the store that views show.
	Borrow(ctx context.Context, p *view.Plan, ids []uint64) error
}

// A VerifyReport is what a verification of the live build found.
type VerifyReport struct {
	Build  uint64         `json:"build"`
	Damage string         `json:"damage,omitempty"` // what ClickHouse has lost, in words
	Views  []ViewVerified `json:"views"`
}

// ViewVerified is a view whose slices were computed again.
type ViewVerified struct {
	View     string        `json:"view"`
	Plan     string        `json:"plan"`
	Cut      uint64        `json:"cut"`                // up to which the live build has it
	Slices   int           `json:"slices"`             // that were computed again
	Problems []string      `json:"problems,omitempty"` // in words
	Values   schemas.Audit `json:"values"`             // finished values: the live build's against those computed again
	Skipped  string        `json:"skipped,omitempty"`  // why nothing was computed
}

// Sound reports whether nothing differs and nothing is missing.
func (r *VerifyReport) Sound() bool {
	return r.Damage == "" && !slices.ContainsFunc(r.Views, func(v ViewVerified) bool { return len(v.Problems) > 0 })
}

// Verify computes the slices of the live build again, from the versions of history that the build was
// made from, and holds the finished values against what views show. It writes into scratch alone, so
// that a batch may run beside it.
func Verify(ctx context.Context, store Store, scratch Scratch, cfg Config) (*VerifyReport, error) {
	cfg.Rebuild = true
	r := &run{cfg: cfg, store: scratch, tables: make(map[string]*history.Table)}
	if err := r.cfg.defaults(); err != nil {
		return nil, err
	}
	live, err := store.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the live build: %w", err)
	}
	build, err := store.Build(ctx, live.Build)
	if err != nil {
		return nil, fmt.Errorf("read build %d, which is live: %w", live.Build, err)
	}
	out := &VerifyReport{Build: build.Number}
	damage, err := store.Check(ctx)
	if err != nil {
		return nil, err
	}
	out.Damage = damage.String()
	all, err := view.CompileSet(&build.Definitions)
	if err != nil {
		return nil, fmt.Errorf("definitions of build %d: %w", build.Number, err)
	}
	for _, p := range all {
		if _, covered := build.Plans[p.Hash]; covered {
			r.plans = append(r.plans, p)
		}
	}
	// Above every id of the store, so that slices of both can lie side by side.
	floor, err := store.Term(ctx, Role)
	if err != nil {
		return nil, err
	}
	r.term = floor + 1
	if err := scratch.TakeOver(ctx, Role, r.term); err != nil {
		return nil, err
	}
	if err := scratch.EnsurePlans(ctx, r.plans, false); err != nil {
		return nil, err
	}
	r.cut = schemas.Cut{Number: build.Number, Position: build.Position, Definitions: build.Definitions}
	snaps, skipped, err := r.snapshotsOf(ctx, build)
	if err != nil {
		return nil, err
	}
	w, err := r.slices(ctx, snaps)
	if err != nil {
		return nil, err
	}
	for _, p := range r.plans {
		v := ViewVerified{View: p.Name(), Plan: p.Hash, Cut: build.Plans[p.Hash].Cut, Skipped: skipped[p.Event.Name]}
		if v.Skipped == "" {
			if err := v.compare(ctx, scratch, p, build, w.build.Plans[p.Hash].Slices); err != nil {
				return nil, err
			}
		}
		out.Views = append(out.Views, v)
	}
	return out, nil
}

// snapshotsOf returns what history held when a build was made, and for types of which it is not known
// any more the reason.
func (r *run) snapshotsOf(ctx context.Context, build schemas.Build) (snapshots, map[string]string, error) {
	out, skipped := make(snapshots), make(map[string]string)
	for _, ev := range build.Definitions.Events {
		var of *schemas.Covered
		for _, p := range r.plans {
			if p.Event.Name == ev.Name {
				covered := build.Plans[p.Hash]
				of = &covered
			}
		}
		if of == nil {
			continue
		}
		if of.Cut == 0 {
			skipped[ev.Name] = "no build has had it yet: it is shown by the speed layer alone"
			continue
		}
		table, err := r.table(ctx, ev)
		if err != nil {
			return nil, nil, err
		}
		at, err := table.SnapshotAt(ctx, r.cfg.App, of.Position.Seq)
		if errors.Is(err, history.ErrNoSnapshot) {
			skipped[ev.Name] = fmt.Sprintf("history of %s has no version at cut %d any more", ev.Name, of.Cut)
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("history of %s at cut %d: %w", ev.Name, of.Cut, err)
		}
		out[ev.Name] = &snapshot{table: table, version: at.Version, dates: divide(at.Files, at)}
	}
	return out, skipped, nil
}

// compare holds a view's slices of the build against those computed again.
func (v *ViewVerified) compare(ctx context.Context, scratch Scratch, p *view.Plan, build schemas.Build, again []schemas.Slice) (err error) {
	shown := build.Plans[p.Hash].Slices
	v.Slices = len(again)
	spec := schemas.AuditSpec{Build: build.Number, Baseline: build.Number}
	for _, s := range shown {
		spec.Old = append(spec.Old, s.ID)
		switch now := sliceOn(again, s.Date); {
		case now == nil:
			v.Problems = append(v.Problems, fmt.Sprintf("%s: the build has a slice, and history has nothing", dateText(s.Date)))
		case now.Key != s.Key:
			v.Problems = append(v.Problems, fmt.Sprintf("%s: history is not what the slice was computed from", dateText(s.Date)))
		case now.Groups != s.Groups || now.Events != s.Events || now.Duplicates != s.Duplicates:
			v.Problems = append(v.Problems, fmt.Sprintf("%s: %d groups of %d events without %d duplicates are registered, and there are %d of %d without %d",
				dateText(s.Date), s.Groups, s.Events, s.Duplicates, now.Groups, now.Events, now.Duplicates))
		}
	}
	for _, s := range again {
		spec.New = append(spec.New, s.ID)
		if sliceOn(shown, s.Date) == nil {
			v.Problems = append(v.Problems, fmt.Sprintf("%s: history has events, and the build has no slice", dateText(s.Date)))
		}
	}
	if err := scratch.Borrow(ctx, p, spec.Old); err != nil {
		return err
	}
	if v.Values, err = scratch.Audit(ctx, p, spec); err != nil {
		return fmt.Errorf("compare view %s: %w", p.Name(), err)
	}
	if v.Values.Drifted > 0 {
		w := v.Values.Worst[0]
		v.Problems = append(v.Problems, fmt.Sprintf("%d of %d groups differ, such as %v: %s is shown as %s, and is %s", v.Values.Drifted, v.Values.Groups, w.Group, w.Measure, w.Baseline, w.Batch))
	}
	return nil
}
