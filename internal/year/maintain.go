package main

import (
	"context"
	"time"

	"watershed/batch/history"
	"watershed/schemas"
)

// trim forgets what is archived, folded, and out of the horizon in which duplicates are found: the
// smallest of these positions is the limit.
func (w *world) trim(ctx context.Context) error {
	limit, err := w.log.Before(ctx, time.Now().Add(-w.cfg.Horizon))
	if err != nil {
		return err
	}
	lower := func(p schemas.Position) {
		if p.Seq < limit.Seq {
			limit = p
		}
	}
	archived := w.archiver.Positions()
	for _, ev := range w.defs.Events {
		lower(archived[ev.Name])
	}
	marks, err := w.db.Positions(ctx, w.plans)
	if err != nil {
		return err
	}
	for _, p := range w.plans {
		lower(marks[p.Hash].Position)
	}
	_, err = w.log.Trim(ctx, limit)
	return err
}

// vacuum removes what no kept build needs of history.
func (w *world) vacuum(ctx context.Context) error {
	builds, err := w.db.Builds(ctx)
	if err != nil {
		return err
	}
	var keep []uint64
	for _, info := range builds {
		build, err := w.db.Build(ctx, info.Number)
		if err != nil {
			return err
		}
		keep = append(keep, build.Position.Seq)
		for _, covered := range build.Plans {
			keep = append(keep, covered.Position.Seq)
		}
	}
	_, err = history.Vacuum(ctx, w.history(), history.VacuumOptions{App: app, Keep: keep, Retention: w.cfg.Retention})
	return err
}
