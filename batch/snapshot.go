package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"watershed/batch/history"
	"watershed/schemas"
)

// snapshots is what history holds at the cut, by event type. A type that is held over is absent.
type snapshots map[string]*snapshot

type snapshot struct {
	table   *history.Table
	version int64 // of the table
	dates   []date

	baseAt uint64 // stream sequence of the cut up to which the live build has the type; 0: it has nothing
	ahead  bool   // a compaction has mixed what the live build has with what came since
	lost   bool   // what the live build was made from is not there any more, and was given up
}

// A date is the input of one date's slices.
type date struct {
	day   int32
	files []history.File
	fresh []history.File // imports that the live build's snapshot did not hold

	compacted uint64 // duplicates that compactions have left out of the files
}

// maxPause is the longest time between two looks at what others do.
const maxPause = 100 * time.Millisecond

// snapshots waits until the archiver has committed every type up to the cut, and returns what
// the tables held in exactly those commits. Types that have no such commit when the time is up are
// held over: the other types do not wait for them longer than that. If there is none, that is an error.
func (r *run) snapshots(ctx context.Context) (snapshots, error) {
	events := r.cut.Definitions.Events
	deadline := time.NewTimer(r.cfg.Wait)
	defer deadline.Stop()
	pause := 2 * time.Millisecond // longer and longer: each look reads the directories of tables
	out, missing := make(snapshots), make(map[string]error)
	for {
		for _, ev := range events {
			if out[ev.Name] != nil {
				continue
			}
			r.cfg.Progress(Progress{Step: "snapshots", Done: int64(len(out)), Total: int64(len(events)), Unit: "tables", Detail: ev.Name})
			s, err := r.snapshot(ctx, ev)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				missing[ev.Name] = err
			default:
				out[ev.Name] = s
				delete(missing, ev.Name)
			}
		}
		waiting := false // for one that may still come
		for _, err := range missing {
			var changed *changedError
			waiting = waiting || !errors.As(err, &changed)
		}
		if !waiting {
			if len(out) == 0 && len(missing) > 0 {
				return nil, r.notArchived(events, missing)
			}
			r.holdOver(missing)
			return out, nil
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		case <-deadline.C:
			if len(out) == 0 {
				return nil, r.notArchived(events, missing)
			}
			r.holdOver(missing)
			return out, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// snapshot is what history holds of a type at the cut; an error if it has not come as far, or
// cannot be read.
func (r *run) snapshot(ctx context.Context, ev *schemas.Event) (*snapshot, error) {
	// The archiver makes a table when it passes the first cut that defines the type. It may be
	// another process, and a Delta log tells nobody when it grows.
	table, err := r.table(ctx, ev)
	if err != nil {
		return nil, err
	}
	at, err := table.SnapshotAt(ctx, r.cfg.App, r.cut.Position.Seq)
	if err != nil {
		return nil, err
	}
	if got := at.Position(r.cfg.App); got != r.cut.Position {
		return nil, fmt.Errorf("it was archived from another log: that had a message with hash %016x at position %d, and this one has cut %d there, with hash %016x; heal it with: watershed repair",
			got.Hash, got.Seq, r.cut.Number, r.cut.Position.Hash)
	}
	out := &snapshot{table: table, version: at.Version, baseAt: r.baseAt(ev)}
	before := &history.Snapshot{}
	if out.baseAt > 0 {
		before, err = table.SnapshotAt(ctx, r.cfg.App, out.baseAt)
		gone := errors.Is(err, history.ErrNoSnapshot)
		if err != nil && !gone {
			return nil, err
		}
		if gone {
			before = &history.Snapshot{}
		}
		if days := r.changed(ev, before); (gone || len(days) > 0) && !r.cfg.AcceptHistory {
			return nil, &changedError{build: r.base.Number, at: out.baseAt, gone: gone, days: days}
		}
		out.lost = gone
	}
	out.dates = divide(at.Files, before)
	out.ahead = slices.ContainsFunc(at.Files, func(f history.File) bool { return f.AsOf > before.Version })
	return out, nil
}

// A changedError says that history does not hold what the live build was computed from: files of it
// are lost, or it was restored from an older copy.
type changedError struct {
	build, at uint64
	gone      bool    // the whole commit at the build's cut
	days      []int32 // dates of which the build has slices of other files
}

func (e *changedError) Error() string {
	what := fmt.Sprintf("on %d dates, the first being %s, its files are others", len(e.days), firstDate(e.days))
	if e.gone {
		what = fmt.Sprintf("it has no commit at position %d", e.at)
	}
	return fmt.Sprintf("it is not what build %d, which is live, was computed from: %s. Restore it from a backup; or take it as it is, with `watershed batch --accept-history`: the audit then tells what that changes", e.build, what)
}

func firstDate(days []int32) string {
	if len(days) == 0 {
		return "none"
	}
	return dateText(slices.Min(days))
}

// changed are the dates on which the live build has a slice of a type that was computed from other
// files than history held at the build's cut. A snapshot never changes, so there is none unless history
// has lost something.
func (r *run) changed(ev *schemas.Event, before *history.Snapshot) (days []int32) {
	then := make(map[int32]date)
	for _, d := range divide(before.Files, &history.Snapshot{}) {
		then[d.day] = d
	}
	for _, p := range r.plans {
		if p.Event.Name != ev.Name {
			continue
		}
		for _, s := range r.base.Plans[p.Hash].Slices {
			// A slice whose registration ClickHouse has lost has no key; the run computes it again.
			if s.Key != "" && !keyOf(p, then[s.Date]).is(s.Key) && !slices.Contains(days, s.Date) {
				days = append(days, s.Date)
			}
		}
	}
	return days
}

// notArchived says why there is nothing to build from.
func (r *run) notArchived(events []*schemas.Event, missing map[string]error) error {
	for _, ev := range events {
		if err := missing[ev.Name]; err != nil && !errors.Is(err, history.ErrNoSnapshot) {
			return fmt.Errorf("history of %s: %w", ev.Name, err)
		}
	}
	return fmt.Errorf("the archiver has not committed %s up to cut %d (position %d) within %s: is `watershed speed` or `watershed up` running? "+
		"The next run will use what this one computed", events[0].Name, r.cut.Number, r.cut.Position.Seq, r.cfg.Wait)
}

// holdOver books the types that the build has only up to an older cut.
func (r *run) holdOver(missing map[string]error) {
	for _, ev := range r.cut.Definitions.Events {
		err := missing[ev.Name]
		if err == nil {
			continue
		}
		h := HeldOver{Type: ev.Name, Reason: err.Error()}
		if errors.Is(err, history.ErrNoSnapshot) {
			h.Reason = fmt.Sprintf("the archiver has not committed it up to cut %d (position %d) within %s", r.cut.Number, r.cut.Position.Seq, r.cfg.Wait)
		}
		for _, p := range r.plans {
			if p.Event.Name != ev.Name {
				continue
			}
			if base, covered := r.base.Plans[p.Hash]; covered {
				h.Cut = base.Cut
				h.Views = append(h.Views, p.Name())
			} else {
				h.Uncovered = append(h.Uncovered, p.Name())
			}
		}
		r.report.HeldOver = append(r.report.HeldOver, h)
		r.cfg.Logger.Warn("batch: a type is held over: its views keep the slices of the live build, and the speed layer adds the rest",
			"type", h.Type, "cut", h.Cut, "views", h.Views, "without an answer", h.Uncovered, "reason", h.Reason)
	}
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

// table opens a type's table.
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

// divide sorts files into dates, in an order that depends on their content alone. before is the live
// build's snapshot: what a compaction has made of its files is not fresh.
func divide(files []history.File, before *history.Snapshot) []date {
	known := make(map[string]bool, len(before.Files))
	for _, f := range before.Files {
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
		d.compacted += uint64(f.Duplicates)
		if f.Import && !known[f.Content] && (f.AsOf == 0 || f.AsOf > before.Version) {
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
