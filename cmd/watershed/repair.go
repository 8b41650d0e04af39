package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

func (a *app) repairCmd() *cobra.Command {
	var opts history.RepairOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Heal history, log and views from what is intact",
		Long: `Look at history, the log and ClickHouse, say plainly what is wrong, and heal what can be healed,
in this order; run it again after whatever interrupts it, or to see that all is well:

  1. Files of history that are damaged or missing are written again from the log, if it still has
     their events. Those of imports must be imported again, the rest comes from a backup; with
     --accept-loss they are given up, and their events counted.
  2. A log that is not the one that stored positions belong to (lost, recreated, cut short, or
     restored from an old copy) is begun anew behind all of them. What it has is published again;
     events that history has already count once all the same. Publishers are refused meanwhile.
  3. What ClickHouse lacks is computed again by ` + "`watershed up` or `watershed speed`" + `, without a hand.
     Tables that it cannot read any more are dropped first, so that what they held is computed too.

It starts the embedded engines of --dir if they do not run. Exit code 3 if something is left, or
was lost: with what, and how much of it.`,
		Example: `  watershed repair --dry-run
  watershed repair
  watershed repair --accept-loss`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			if err := a.locate(); err != nil {
				return err
			}
			if a.cfg.NATS == "" || a.cfg.ClickHouse == "" {
				emb, err := a.startEmbedded(ctx, "")
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, emb.close()) }()
			}
			e, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer e.close()
			r := &repair{a: a, e: e, opts: opts}
			// What was done before an error is told all the same.
			err = r.run(ctx)
			if asJSON {
				err = errors.Join(err, a.printJSON(r.report))
			} else if err == nil || len(r.report.Found) > 0 {
				r.print()
			}
			if err == nil && r.report.left() > 0 {
				err = driftError{fmt.Sprintf("%d problems are left", r.report.left())}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.DryRun, "dry-run", false, "only say what is wrong and what would be done")
	f.BoolVar(&opts.AcceptLoss, "accept-loss", false, "give up what cannot be restored")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// A repair heals in the order in which one thing needs the other: history from the log, the log's
// positions from history, ClickHouse from both. But tables of ClickHouse that cannot be read come
// first, since the log's positions are looked up there too.
type repair struct {
	a      *app
	e      *engines
	opts   history.RepairOptions
	report repaired
}

// A repaired says what was wrong, and what became of it.
type repaired struct {
	DryRun  bool     `json:"dry_run,omitempty"`
	Found   []remedy `json:"found"`
	GivenUp []string `json:"given_up,omitempty"` // by repairs before this one, and not brought back since
	Next    []string `json:"next,omitempty"`     // what remains to be done, in commands
}

// A remedy is a problem and what was done about it.
type remedy struct {
	Part    string           `json:"part"` // history, log or views
	Problem string           `json:"problem"`
	Action  string           `json:"action"`
	Done    bool             `json:"done"`
	Lost    map[string]int64 `json:"lost,omitempty"`         // events that are gone, by date
	Unknown bool             `json:"lost_unknown,omitempty"` // events are gone, and nobody knows how many
	Import  string           `json:"import,omitempty"`
}

// lossy tells whether events are gone for good.
func (m *remedy) lossy() bool { return len(m.Lost) > 0 || m.Unknown }

func (r *repaired) left() (n int) {
	for _, f := range r.Found {
		if !f.Done || f.lossy() {
			n++
		}
	}
	return n
}

func (r *repair) run(ctx context.Context) error {
	r.report = repaired{DryRun: r.opts.DryRun, Found: []remedy{}}
	if again, err := r.unreadable(ctx); err != nil || !again {
		return err
	}
	// An attempt that was interrupted goes first: until then the log takes no events.
	if err := r.resume(ctx); err != nil {
		return err
	}
	w, err := r.a.whereabouts(ctx, r.e)
	if err != nil {
		return err
	}
	wrong, err := w.misfits(ctx, r.e.log)
	if err != nil {
		return err
	}
	if err := r.history(ctx, len(wrong) == 0); err != nil {
		return err
	}
	if len(wrong) == 0 {
		if err := r.tables(ctx, w); err != nil {
			return err
		}
	}
	if len(w.unreadable) > 0 && !r.opts.DryRun { // what was healed of them tells more
		if w, err = r.a.whereabouts(ctx, r.e); err != nil {
			return err
		}
		if wrong, err = w.misfits(ctx, r.e.log); err != nil {
			return err
		}
	}
	if len(wrong) > 0 {
		if err := w.known(); err != nil && !r.opts.DryRun {
			return err
		}
		if err := r.log(ctx, w, wrong); err != nil {
			return err
		}
	}
	return r.views(ctx)
}

// unreadable renews the tables that ClickHouse cannot read. What follows can be looked at only if it has.
func (r *repair) unreadable(ctx context.Context) (on bool, err error) {
	found, err := r.e.db.Unreadable(ctx)
	if err != nil || len(found) == 0 {
		return true, err
	}
	if !r.opts.DryRun {
		if err := r.e.renew(ctx, found); err != nil {
			return false, err
		}
	}
	for _, u := range found {
		r.report.Found = append(r.report.Found, remedy{Part: "views", Problem: fmt.Sprintf("ClickHouse cannot read table %s: %s", u.Table, u.Why),
			Action: "dropped: what it held is computed again from history and log", Done: !r.opts.DryRun})
	}
	return !r.opts.DryRun, nil
}

// resume ends what an earlier repair has begun and not ended.
func (r *repair) resume(ctx context.Context) error {
	pending, err := r.e.log.AnewPending(ctx)
	if err != nil || !pending {
		return err
	}
	m := remedy{Part: "log", Problem: "it was being begun anew, and that was interrupted: publishers are refused", Action: "it is begun anew to the end"}
	if !r.opts.DryRun {
		w, err := r.a.whereabouts(ctx, r.e)
		if err != nil {
			return err
		}
		if err := w.known(); err != nil {
			return err
		}
		result, err := r.anew(ctx, w, schemas.Position{})
		if err != nil {
			return err
		}
		m.Done, m.Action = true, anewAction(result)
	}
	r.report.Found = append(r.report.Found, m)
	return nil
}

// history heals the files of history. Only a log that is the one that was archived may restore them.
func (r *repair) history(ctx context.Context, same bool) error {
	found, err := history.Verify(ctx, r.a.cfg.History)
	if err != nil {
		return err
	}
	for _, loss := range found.GivenUp {
		r.report.GivenUp = append(r.report.GivenUp, loss.String())
		if loss.Import != "" {
			r.report.Next = append(r.report.Next, importAgain(loss.Type, loss.Import, loss.Range))
		}
	}
	if len(found.Problems) == 0 {
		return nil
	}
	var source history.OpenSource
	if same {
		source = archiverSource(r.e.log)
	}
	healed, err := history.Repair(ctx, r.a.cfg.History, r.a.appID(), found.Problems, source, r.opts)
	imports := make(map[string]bool)
	for _, h := range healed.Remedies {
		m := remedy{Part: "history", Problem: h.Problem.String(), Action: h.Action, Done: h.Done, Import: h.Import}
		for date, n := range h.Lost {
			if m.Lost == nil {
				m.Lost = make(map[string]int64)
			}
			m.Lost[time.Unix(int64(date)*86400, 0).UTC().Format(time.DateOnly)] += n
		}
		r.report.Found = append(r.report.Found, m)
		if h.Import != "" && h.Done && !imports[h.Import] {
			imports[h.Import] = true
			r.report.Next = append(r.report.Next, importAgain(h.Problem.Type, h.Import, h.Range))
		}
	}
	return err
}

// tables begins tables again that are gone wholly: with all that the log has of their types.
func (r *repair) tables(ctx context.Context, w *whereabouts) error {
	oldest, _, err := r.e.log.OldestCut(ctx)
	if err != nil {
		return err
	}
	info, err := r.e.log.Info(ctx)
	if err != nil {
		return err
	}
	begins := oldest.Position // of the log: what lies before is trimmed
	whole := info.First <= 1
	if whole {
		begins = schemas.Position{}
	}
	front := begins // of the other types; if there are none, they were archived up to where the log was trimmed
	for _, p := range w.positions {
		if !p.plan && p.at.Seq > front.Seq {
			front = p.at
		}
	}
	lost, err := history.LostTables(ctx, r.a.cfg.History, r.a.appID(), front, archiverSource(r.e.log))
	if err != nil {
		return err
	}
	for _, ev := range lost {
		dir := filepath.Join(r.a.cfg.History, ev.Name)
		m := remedy{Part: "history", Problem: fmt.Sprintf("%s: %s is gone, with all its events", ev.Name, dir),
			Action: "begun again: the archiver brings back what the log has, which is whole; imports must be made again"}
		if !whole {
			m.Action = fmt.Sprintf("take the directory back from a backup, or give up by accepting the loss what came before position %d; the log has the rest", begins.Seq)
		}
		if (whole || r.opts.AcceptLoss) && !r.opts.DryRun {
			if err := history.BeginLost(ctx, r.a.cfg.History, r.a.appID(), ev, begins); err != nil {
				return err
			}
			if m.Done = true; !whole {
				m.Unknown = true
				m.Action = fmt.Sprintf("begun again at position %d: what came before and its imports are gone, and nobody knows how much that is", begins.Seq)
			}
		}
		r.report.Found = append(r.report.Found, m)
	}
	return nil
}

// importAgain is what brings back the events of an import, or of a range of it as from..to.
func importAgain(eventType, sum, within string) string {
	command := "watershed import " + eventType + " FILE"
	if from, to, ranged := strings.Cut(within, ".."); ranged {
		if from != "" {
			command += " --from " + from
		}
		if to != "" {
			command += " --to " + to
		}
	}
	return fmt.Sprintf("%s, the file whose SHA-256 is %s", command, sum)
}

// log begins the log anew, since stored positions do not fit it.
func (r *repair) log(ctx context.Context, w *whereabouts, wrong []misfit) error {
	info, err := r.e.log.Info(ctx)
	if err != nil {
		return err
	}
	for _, m := range wrong {
		r.report.Found = append(r.report.Found, remedy{Part: "log", Problem: fmt.Sprintf("%s stands at position %d, which the log does not have: %s", m.what, m.at.Seq, reasonOf(m.err)),
			Action: "the log is begun anew behind it", Done: !r.opts.DryRun})
	}
	if n := w.unarchived(info.Last); n > 0 {
		r.report.Found = append(r.report.Found, remedy{Part: "log",
			Problem: fmt.Sprintf("of the log before, up to %d messages (positions %d to %d) were shown by views, but are neither in history nor in the log", n, w.above-n+1, w.above),
			Action:  "restore a newer copy of the log before this repair, or have producers send them again: what is there already counts once", Done: r.opts.AcceptLoss})
	}
	if r.opts.DryRun {
		return nil
	}
	// Positions that still fit say what history has of this very log; otherwise all that the log has
	// is published again.
	kept := schemas.Position{}
	if at, ok := w.archivedHere(wrong); ok {
		kept = at
	}
	result, err := r.anew(ctx, w, kept)
	if err == nil && result.Resumed {
		result, err = r.anew(ctx, w, kept)
	}
	if err != nil {
		return err
	}
	r.report.Found = append(r.report.Found, remedy{Part: "log", Problem: "stored positions did not fit the log", Action: anewAction(result), Done: true})
	return nil
}

func (r *repair) anew(ctx context.Context, w *whereabouts, kept schemas.Position) (eventlog.AnewResult, error) {
	return r.e.log.Anew(ctx, eventlog.AnewRequest{
		Above: w.above, CutAbove: w.cutAbove, Kept: kept, Definitions: w.definitions, Retiring: w.retiring,
	})
}

func anewAction(r eventlog.AnewResult) string {
	return fmt.Sprintf("begun anew with cut %d at position %d; %d messages were published again", r.Cut.Number, r.Cut.Position.Seq, r.Republished)
}

// reasonOf is why the log does not have a position, without what else an error says.
func reasonOf(err error) string {
	var changed *eventlog.LogChangedError
	if errors.As(err, &changed) {
		return changed.Reason
	}
	return err.Error()
}

// known refuses to begin a log anew where a table cannot be read: it may hold positions beyond those
// that are known, and events behind them would be taken for archived.
func (w *whereabouts) known() error {
	if len(w.unreadable) == 0 {
		return nil
	}
	name := sortedKeys(w.unreadable)[0]
	return fmt.Errorf("the log is not begun anew while history of %s cannot be read; take it back from a backup, or move its directory away: %w", name, w.unreadable[name])
}

// unarchived is how many messages of the log before this one are beyond both history and log.
func (w *whereabouts) unarchived(last uint64) uint64 {
	reached := max(w.archived, last)
	shown := uint64(0)
	for _, p := range w.positions {
		shown = max(shown, p.at.Seq)
	}
	return shown - min(shown, reached)
}

// archivedHere is up to where history has every type of this very log, if all its positions fit.
func (w *whereabouts) archivedHere(wrong []misfit) (least schemas.Position, ok bool) {
	for _, m := range wrong {
		if !m.plan {
			return schemas.Position{}, false
		}
	}
	for _, p := range w.positions {
		if !p.plan && (!ok || p.at.Seq < least.Seq) {
			least, ok = p.at, true
		}
	}
	return least, ok && w.archived > 0
}

// views says what ClickHouse lacks. Those who run all the time compute it.
func (r *repair) views(ctx context.Context) error {
	damage, err := r.a.damage(ctx, r.e)
	if err != nil {
		return err
	}
	if !damage.None() {
		r.report.Found = append(r.report.Found, remedy{Part: "views", Problem: damage.String(),
			Action: "the next batch computes it again; `watershed up` and `watershed speed` run one by themselves", Done: true})
	}
	if len(r.report.Found) > 0 && !r.opts.DryRun {
		r.report.Next = append(r.report.Next, "start `watershed up` (or `watershed speed`) again if it has stopped", "watershed verify")
	}
	return nil
}

func (r *repair) print() {
	out := r.a.stdout
	if len(r.report.Found) == 0 {
		fmt.Fprintln(out, "nothing is wrong")
	}
	for _, f := range r.report.Found {
		state := "left"
		switch {
		case f.lossy():
			state = "lost"
		case f.Done:
			state = "healed"
		case r.opts.DryRun:
			state = "would be"
		}
		fmt.Fprintf(out, "%s: %s\n  %s: %s\n", f.Part, f.Problem, state, f.Action)
		for _, date := range sortedKeys(f.Lost) {
			fmt.Fprintf(out, "  lost of %s: %d events\n", date, f.Lost[date])
		}
	}
	for _, loss := range r.report.GivenUp {
		fmt.Fprintln(out, "given up before:", loss)
	}
	for _, next := range r.report.Next {
		fmt.Fprintln(out, "next:", next)
	}
}
