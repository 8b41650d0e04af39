package batch

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"watershed/batch/history"
	"watershed/schemas"
)

// snapshots is what history holds at the cut, by event type.
type snapshots map[string]*snapshot

type snapshot struct {
	table *history.Table
	dates []date

	baseAt uint64 // stream sequence of the cut up to which the live build has the type; 0: it has nothing
}

// A date is the input of one date's slices.
type date struct {
	day   int32
	files []history.File
	fresh []history.File // imports that the live build's snapshot did not hold
}

// snapshots waits until the archiver has committed every type up to the cut, and returns what
// the tables held in exactly those commits.
func (r *run) snapshots(ctx context.Context) (snapshots, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Wait)
	defer cancel()
	out := make(snapshots)
	for i, ev := range r.cut.Definitions.Events {
		r.cfg.Progress(Progress{Step: "snapshots", Done: int64(i), Total: int64(len(r.cut.Definitions.Events)), Unit: "tables", Detail: ev.Name})
		table, err := r.table(ctx, ev)
		if err != nil {
			return nil, err
		}
		at, err := r.await(ctx, table)
		if err != nil {
			return nil, err
		}
		before, baseAt := &history.Snapshot{}, r.baseAt(ev)
		if baseAt > 0 {
			before, err = table.SnapshotAt(ctx, r.cfg.App, baseAt)
			if errors.Is(err, history.ErrNoSnapshot) { // the type is younger than the live build
				before, err = &history.Snapshot{}, nil
			}
			if err != nil {
				return nil, err
			}
		}
		out[ev.Name] = &snapshot{table, divide(at.Files, before.Files), baseAt}
	}
	return out, nil
}

// baseAt is the stream sequence of the cut up to which the live build has the plans of a type. It
// is one for all of them: they are held over together.
func (r *run) baseAt(ev *schemas.Event) (seq uint64) {
	for _, p := range r.plans {
		if p.Event.Name == ev.Name {
			seq = max(seq, r.base.Plans[p.Hash].Position.Seq)
		}
	}
	return seq
}

// table opens a type's table. The archiver makes it when it passes the first cut that defines
// the type, so an absent one is waited for.
func (r *run) table(ctx context.Context, ev *schemas.Event) (*history.Table, error) {
	if t := r.tables[ev.Name]; t != nil {
		return t, nil
	}
	t, err := history.Open(ctx, r.cfg.History, ev)
	if err != nil {
		return nil, err
	}
	r.tables[ev.Name] = t
	return t, nil
}

// await polls for the commit at the cut: the archiver may be another process, and a Delta log
// tells nobody when it grows.
func (r *run) await(ctx context.Context, t *history.Table) (*history.Snapshot, error) {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		s, err := t.SnapshotAt(ctx, r.cfg.App, r.cut.Position.Seq)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, history.ErrNoSnapshot) {
			return nil, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, fmt.Errorf("the archiver has not committed %s up to cut %d (position %d) within %s: is `watershed speed` or `watershed up` running? "+
					"The next run will use what this one computed", t.Event().Name, r.cut.Number, r.cut.Position.Seq, r.cfg.Wait)
			}
			return nil, ctx.Err()
		}
	}
}

// divide sorts files into dates, in an order that depends on their content alone.
func divide(files, before []history.File) []date {
	known := make(map[string]bool, len(before))
	for _, f := range before {
		known[f.Content] = true
	}
	byDay := make(map[int32]*date)
	for _, f := range files {
		d := byDay[f.Date]
		if d == nil {
			d = &date{day: f.Date}
			byDay[f.Date] = d
		}
		d.files = append(d.files, f)
		if f.Import && !known[f.Content] {
			d.fresh = append(d.fresh, f)
		}
	}
	dates := make([]date, 0, len(byDay))
	for _, d := range byDay {
		sort.Slice(d.files, func(i, j int) bool { return d.files[i].Content < d.files[j].Content })
		dates = append(dates, *d)
	}
	sort.Slice(dates, func(i, j int) bool { return dates[i].day < dates[j].day })
	return dates
}
