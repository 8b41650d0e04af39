package main

import (
	"context"
	"errors"
	"time"

	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
)

const (
	trimFirst = 5 * time.Second // after a start, when the archiver has said how far history is
	trimEvery = time.Minute

	// A plan that is behind holds the log as long as the log is at most this full. Beyond it the
	// plan is left behind: it waits until a batch covers it, but events go on being taken.
	trimPressure = 0.75
)

// A trimmer lets the log forget what nobody needs from it any more.
type trimmer struct {
	a       *app
	e       *engines
	horizon time.Duration
	// archived are the positions up to which history holds the log, by event type.
	archived func() map[string]schemas.Position
}

func newTrimmer(l *loops) *trimmer {
	return &trimmer{a: l.a, e: l.e, horizon: l.a.cfg.Horizon, archived: l.archiver.Positions}
}

// run trims soon, since the log may have filled up while nobody trimmed it, and then once a minute
// until ctx ends. A trim that fails is tried again with the next.
func (t *trimmer) run(ctx context.Context) {
	tick := time.NewTimer(trimFirst)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(trimEvery)
		}
		if err := t.trim(ctx); err != nil && ctx.Err() == nil {
			t.a.log.Warn("trim: the log stays as it is", "error", err)
		}
	}
}

func (t *trimmer) trim(ctx context.Context) error {
	limit, by, err := t.limit(ctx)
	if err != nil {
		return err
	}
	if limit.Seq == 0 {
		return nil
	}
	// A log that is full takes no cut until it was trimmed up to the last one.
	cutErr := t.cut(ctx, limit)
	n, err := t.e.log.Trim(ctx, limit)
	if n > 0 {
		t.a.log.Info("trim: the log forgot what history has", "messages", n, "up_to", limit.Seq, "held_by", by)
	}
	return errors.Join(cutErr, err)
}

// cut publishes a cut when the log fills up and could be trimmed further than to its last cut: a
// log is only trimmed to cuts. It has the same definitions, and no build, which harms nothing.
func (t *trimmer) cut(ctx context.Context, limit schemas.Position) error {
	info, err := t.e.log.Info(ctx)
	if err != nil || !underPressure(info) {
		return err
	}
	last, ok, err := t.e.log.LastCut(ctx)
	if err != nil || !ok || limit.Seq <= last.Position.Seq {
		return err
	}
	// If we stop here, the next minute's look finds the cut, and trims to it.
	cut, err := t.e.log.PublishCut(ctx, last, last.Definitions, last.Retiring)
	if errors.Is(err, eventlog.ErrCutTaken) {
		return nil // a batch was first
	}
	if err == nil {
		t.a.log.Info("trim: the log fills up; published a cut, to which it can be trimmed", "cut", cut.Number, "bytes", info.Bytes, "max_bytes", info.MaxBytes)
	}
	return err
}

// limit is the position up to which the log may forget, and what holds it there: the smallest of
//
//   - what history holds of every type: the archiver reads on from there;
//   - one duplicate horizon before the log's end: a speed worker that starts reads it again;
//   - what every plan's speed states hold, unless the log is nearly full.
//
// The zero position means that nothing may be forgotten.
func (t *trimmer) limit(ctx context.Context) (at schemas.Position, by string, err error) {
	info, err := t.e.log.Info(ctx)
	if err != nil {
		return at, "", err
	}
	cut, ok, err := t.e.log.LastCut(ctx)
	if err != nil || !ok {
		return at, "no cut", err
	}
	if at, err = t.e.log.Before(ctx, info.LastTime.Add(-t.horizon)); err != nil {
		return at, "", err
	}
	by = "duplicate horizon"
	archived := t.archived()
	for _, set := range []*schemas.Set{&cut.Definitions, &cut.Retiring} {
		for _, ev := range set.Events {
			if p := archived[ev.Name]; p.Seq < at.Seq {
				at, by = p, "history of "+ev.Name
			}
		}
	}
	// One that no cut defines any more may be set aside, and has to read its last events still.
	for name, p := range archived {
		if p.Seq > 0 && p.Seq < at.Seq {
			at, by = p, "history of "+name
		}
	}
	if underPressure(info) {
		return at, by, nil
	}
	plans, err := foldedPlans(&cut)
	if err != nil {
		return at, "", err
	}
	marks, err := positions(ctx, t.e.db, plans)
	if err != nil {
		return at, "", err
	}
	for _, p := range plans {
		if m := marks[p.Hash]; m.Position.Seq < at.Seq {
			at, by = m.Position, "view "+p.Name()
		}
	}
	return at, by, nil
}

func underPressure(info eventlog.Info) bool {
	return float64(info.Bytes) >= trimPressure*float64(info.MaxBytes)
}

// foldedPlans are the plans that the speed layer folds behind a cut.
func foldedPlans(cut *schemas.Cut) ([]*view.Plan, error) {
	plans, err := view.CompileSet(&cut.Definitions)
	if err != nil {
		return nil, err
	}
	retiring, err := view.CompileSet(&cut.Retiring)
	return append(plans, retiring...), err
}
