package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"watershed/batch/history"
)

func (a *app) compactCmd() *cobra.Command {
	var opts history.CompactOptions
	var date, before string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Bring the small files of history together, sorted and without duplicates",
		Long: `Write the small files of each date of history as one, or as several of a useful size: sorted by event
time, duplicates removed (the first counts, as in every batch), each column encoded as suits it best.
No answer changes, and no slice is computed again. What an import brought stays apart from what came
through the log, also where both have an event, so that the import can be given up. The old files stay as long as a kept build names them, and for --retention.

Only what all kept builds have is touched, so that a rollback and its audit see what they saw. With
--fresh it is all that is there; the next batch then does not compare the views of such a type once.

` + "`watershed batch`" + ` and ` + "`watershed up`" + ` do it by themselves after the flip, up to --compact-bytes a night.`,
		Example: `  watershed compact --dry-run
  watershed compact --type departure --before 2026-01-01
  watershed compact --date 2025-12-31 --min-files 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if opts.From, opts.To, err = datesOf(date, before); err != nil {
				return err
			}
			if opts.MinFiles < 1 {
				return usage("--min-files %d: want 1 or more", opts.MinFiles)
			}
			opts.Every = date != ""
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			if !asJSON {
				opts.Done = func(d history.CompactedDate) { a.printCompacted(d, opts.DryRun) }
			}
			r, err := a.compact(cmd.Context(), e, opts)
			if asJSON {
				if jsonErr := a.printJSON(compactJSON(r, opts.DryRun)); jsonErr != nil {
					return jsonErr
				}
			}
			if err != nil || asJSON {
				return err
			}
			return a.printCompaction(r, opts.DryRun)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Type, "type", "", "only events of this type")
	f.StringVar(&date, "date", "", "only this `date` (UTC), however little of it is new")
	f.StringVar(&before, "before", "", "only dates before this one")
	f.IntVar(&opts.MinFiles, "min-files", 2, "leave dates with fewer `files` that are not compacted yet")
	f.BoolVar(&opts.Fresh, "fresh", false, "also what not all kept builds have")
	f.BoolVar(&opts.DryRun, "dry-run", false, "only say what would be done")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// datesOf are the bounds that --date or --before give.
func datesOf(date, before string) (from, to time.Time, err error) {
	if date != "" && before != "" {
		return from, to, usage("--date and --before do not go together")
	}
	flag, text := "--date", date
	if before != "" {
		flag, text = "--before", before
	}
	if text == "" {
		return from, to, nil
	}
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return from, to, usage("%s %q: want a date like 2026-01-31", flag, text)
	}
	if before != "" {
		return from, at, nil
	}
	return at, at.AddDate(0, 0, 1), nil
}

// compact compacts what no kept build stands before.
func (a *app) compact(ctx context.Context, e *engines, opts history.CompactOptions) (history.CompactReport, error) {
	var err error
	if opts.Keep, err = a.keptCuts(ctx, e); err != nil {
		return history.CompactReport{}, err
	}
	opts.App, opts.Memory = a.appID(), a.cfg.CompactMemory
	return history.Compact(ctx, a.cfg.History, opts)
}

// tidy is what a batch does when it is over and nobody waits for it: some dates of history are compacted,
// and what nobody needs any more is removed. It never fails a batch.
func (a *app) tidy(ctx context.Context, e *engines) {
	if a.cfg.CompactBytes > 0 {
		r, err := a.compact(ctx, e, history.CompactOptions{MaxBytes: a.cfg.CompactBytes})
		if err != nil && ctx.Err() == nil {
			a.log.Error("compact: failed; dates of history stay as they are", "error", err)
		}
		if len(r.Dates) > 0 {
			files, from, to := sums(r)
			a.log.Info("compact: done", "dates", len(r.Dates), "files", files, "bytes", from, "bytes_after", to, "left", r.Left)
		}
	}
	r, err := a.vacuum(ctx, e, false)
	if err != nil && ctx.Err() == nil {
		a.log.Error("vacuum: failed; files of history that nobody needs stay", "error", err)
	}
	if err == nil && len(r.Paths) > 0 {
		a.log.Info("vacuum: done", "files", len(r.Paths), "bytes", r.Bytes)
	}
}

func sums(r history.CompactReport) (files int, from, to int64) {
	for _, d := range r.Dates {
		files, from, to = files+d.Files, from+d.Bytes, to+d.IntoBytes
	}
	return files, from, to
}

func (a *app) printCompacted(d history.CompactedDate, dryRun bool) {
	line := fmt.Sprintf("%s %s: %d files, %d bytes, %d events", d.Type, d.Date, d.Files, d.Bytes, d.Rows)
	switch {
	case d.Lost != "":
		line += ": left as it is: " + d.Lost
	case !dryRun:
		line += fmt.Sprintf(" -> %d files, %d bytes, %d duplicates removed", d.Into, d.IntoBytes, d.Duplicates)
	}
	fmt.Fprintln(a.stdout, line)
}

func (a *app) printCompaction(r history.CompactReport, dryRun bool) error {
	files, from, to := sums(r)
	line := fmt.Sprintf("%d dates, %d files, %d bytes", len(r.Dates), files, from)
	if dryRun {
		line += " would be compacted"
	} else {
		line += fmt.Sprintf(" compacted to %d bytes", to)
	}
	if r.Unshared > 0 {
		line += fmt.Sprintf("; %d dates wait until all kept builds have their events (or --fresh)", r.Unshared)
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}

func compactJSON(r history.CompactReport, dryRun bool) map[string]any {
	dates := make([]map[string]any, len(r.Dates))
	for i, d := range r.Dates {
		dates[i] = map[string]any{
			"type": d.Type, "date": d.Date, "files": d.Files, "bytes": d.Bytes, "events": d.Rows,
			"files_after": d.Into, "bytes_after": d.IntoBytes, "duplicates": d.Duplicates, "passes": d.Passes, "left_because": d.Lost,
		}
	}
	return map[string]any{"dates": dates, "waiting_for_builds": r.Unshared, "dry_run": dryRun}
}
