package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"watershed/batch/history"
)

func (a *app) vacuumCmd() *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "vacuum",
		Short: "Remove files of history that nothing needs any more",
		Long: `Remove from history what nothing names any more: files that were replaced, what processes that
died have left, and commits that a checkpoint covers. What a kept build rests on stays, and so
does everything younger than --retention. ` + "`watershed batch`" + ` and ` + "`watershed up`" + ` do it by themselves.`,
		Example: `  watershed vacuum --dry-run
  watershed vacuum --retention 1d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			r, err := a.vacuum(cmd.Context(), e, dryRun)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(map[string]any{
					"files": r.Files, "temporary": r.Temps, "commits": r.Commits, "checkpoints": r.Checkpoints,
					"bytes": r.Bytes, "paths": emptyNotNull(r.Paths), "dry_run": dryRun,
				})
			}
			did := "removed"
			if dryRun {
				did = "would be removed"
				for _, p := range r.Paths {
					fmt.Fprintln(a.stdout, p)
				}
			}
			_, err = fmt.Fprintf(a.stdout, "%d files, %d temporary files, %d commits and %d checkpoints, %d bytes, %s\n",
				r.Files, r.Temps, r.Commits, r.Checkpoints, r.Bytes, did)
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// vacuum removes what no kept build and no running batch needs of history.
func (a *app) vacuum(ctx context.Context, e *engines, dryRun bool) (history.VacuumReport, error) {
	keep, err := a.keptCuts(ctx, e)
	if err != nil {
		return history.VacuumReport{}, err
	}
	return history.Vacuum(ctx, a.cfg.History, history.VacuumOptions{
		App: a.appID(), Keep: keep, Retention: time.Duration(a.cfg.Retention), DryRun: dryRun,
	})
}

// keptCuts are the positions of the cuts that kept builds stand at, for all their plans, and of
// the log's last cut, at which a batch may be computing.
func (a *app) keptCuts(ctx context.Context, e *engines) ([]uint64, error) {
	// The cut is read first: a batch that makes a build of it in between has it in the builds.
	cut, _, err := e.log.LastCut(ctx)
	if err != nil {
		return nil, err
	}
	keep := []uint64{cut.Position.Seq}
	builds, err := e.db.Builds(ctx)
	if err != nil {
		return nil, err
	}
	for _, info := range builds {
		b, err := e.db.Build(ctx, info.Number)
		if err != nil {
			return nil, err
		}
		keep = append(keep, b.Position.Seq)
		for _, covered := range b.Plans {
			keep = append(keep, covered.Position.Seq)
		}
	}
	slices.Sort(keep)
	return slices.Compact(keep), nil
}
