package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"watershed/batch"
	"watershed/schemas"
)

func (a *app) batchCmd() *cobra.Command {
	var asJSON bool
	var rebuild, replace, accept bool
	var wait time.Duration
	var engine *string
	cmd := &cobra.Command{
		Use:   "batch",
		Short: "Recompute the views from history, audit, and make the result live",
		Long: `Run the nightly job once: publish a cut, wait until the archiver has passed it, compute the
slices of changed dates from history, audit the speed layer, and flip all views to the new
build in one step. Run it from cron or a systemd timer; two at once are safe, the later wins.

Exit code 3: the audit found groups in which what the views had shown differs from history
without an explanation (or a rebuild found slices that differ). The build is live even so, since
history is right, unless --gate says otherwise: a build that drifted more than the gate lets
through is kept, but the views go on showing the live one. Each later run compares again, until
one runs with --gate off.`,
		Example: `  watershed batch
  watershed batch --rebuild          recompute every slice, and prove that nothing differs
  watershed batch --engine clickhouse    the same, computed by ClickHouse from the files
  watershed batch --gate 1%          a drift of more than 1 % of a value does not go live
  watershed batch --json > report.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			if replace && !rebuild {
				return usage("--replace goes with --rebuild")
			}
			a.preferMemory(a.cfg.BatchMemory + besidesStates)
			cfg := a.cfg.batch()
			if cfg.Engine, err = a.engine(*engine, e.db); err != nil {
				return err
			}
			cfg.Rebuild, cfg.Replace, cfg.AcceptHistory, cfg.Wait = rebuild, replace, accept, wait
			if a.cfg.Definitions != "" || hasDefinitions(defaultDefinitions) {
				if cfg.Definitions, _, err = loadDefinitions(a.cfg.Definitions); err != nil {
					return err
				}
			}
			// What ClickHouse has lost is computed again; until then views must not show a part.
			if _, err := a.checkStore(cmd.Context(), e); err != nil {
				return err
			}
			report, err := a.mended(cmd.Context(), e, func() (*batch.Report, error) {
				return a.runBatch(cmd.Context(), e, cfg, a.newProgress("batch"))
			})
			if err == nil {
				a.tidy(cmd.Context(), e)
			}
			return a.batchDone(report, err, asJSON)
		},
	}
	f := cmd.Flags()
	engine = engineFlag(f)
	f.BoolVar(&rebuild, "rebuild", false, "recompute every slice, and fail where a finished value differs")
	f.BoolVar(&replace, "replace", false, "with --rebuild: make what was computed live even so")
	f.BoolVar(&accept, "accept-history", false, "take history as it is, even if it has lost what the live build was computed from")
	f.DurationVar(&wait, "wait", time.Minute, "how long the archiver and the speed layer may take to pass the cut")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// runBatch runs one batch and shows its progress.
func (a *app) runBatch(ctx context.Context, e *engines, cfg batch.Config, p *progress) (*batch.Report, error) {
	cfg.History, cfg.App, cfg.Logger, cfg.Tracer = a.cfg.History, a.appID(), a.log, a.tracer()
	defer p.done()
	cfg.Progress = p.step
	return batch.Run(ctx, e.log, e.db, cfg)
}

func (a *app) batchDone(report *batch.Report, err error, asJSON bool) error {
	var rebuild *batch.RebuildError
	if asJSON {
		if jsonErr := a.printJSON(report); jsonErr != nil {
			return jsonErr
		}
	}
	switch {
	case errors.As(err, &rebuild):
		return driftError{err.Error()}
	case err != nil:
		return err
	}
	if !asJSON {
		a.printReport(report)
	}
	if n := report.Drifted(); n > 0 {
		msg := fmt.Sprintf("the audit found %d %s that drifted; `watershed audit` shows them", n, plural(n, "group"))
		if report.Gated {
			msg += fmt.Sprintf(". Build %d stays live, and build %d is kept; `watershed batch --gate off` makes a build live in spite of the drift", report.Baseline, report.Build)
		}
		return driftError{msg}
	}
	return nil
}

func (a *app) printReport(r *batch.Report) {
	state := "live"
	switch {
	case r.Pinned:
		state = "kept; the live build is pinned (`watershed rollback --release`)"
	case r.Gated:
		state = "kept; the audit found more drift than --gate lets through (`watershed audit`)"
	}
	fmt.Fprintf(a.stdout, "build %d at position %d: %s after %.2f s\n", r.Build, r.Position, state, r.Seconds.Total)
	fmt.Fprintf(a.stdout, "  slices      %d computed, %d reused\n", r.Slices.Computed, r.Slices.Reused)
	fmt.Fprintf(a.stdout, "  events      %d read on %d dates, %d duplicates removed, %d conflicts\n", r.Events, r.Dates, r.Duplicates, r.Conflicts.Count)
	fmt.Fprintf(a.stdout, "  seconds     %s\n", r.Steps())
	if r.Slices.Computed > 0 {
		fmt.Fprintf(a.stdout, "  slices took %s, summed over all that was done at once\n", r.Phases)
	}
	for _, h := range r.HeldOver {
		fmt.Fprintf(a.stdout, "  held over   %s at cut %d: %s\n", h.Type, h.Cut, h.Reason)
	}
	for _, audit := range r.Audit {
		fmt.Fprintf(a.stdout, "  audit       %s\n", auditLine(audit))
	}
}

// warnHeldOver logs the types that a build has only up to an older cut.
func (a *app) warnHeldOver(r *batch.Report) {
	for _, h := range r.HeldOver {
		a.log.Warn("batch: a type is held over: its views show the slices of an older cut, and all that came since", "type", h.Type, "cut", h.Cut, "reason", h.Reason)
	}
}

func auditLine(a schemas.Audit) string {
	if a.Skipped != "" {
		return fmt.Sprintf("%s: not compared, %s", a.View, a.Skipped)
	}
	line := fmt.Sprintf("%s: %d groups compared, %d equal, %d explained, %d drifted", a.View, a.Groups, a.Equal, a.Explained, a.Drifted)
	if a.LateDuplicates > 0 && !a.AtMost {
		line += fmt.Sprintf("; late duplicates removed: %d", a.LateDuplicates)
	}
	return line
}
