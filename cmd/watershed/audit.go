package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"watershed/schemas"
)

func (a *app) auditCmd() *cobra.Command {
	var asJSON bool
	var builds int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what the last audits found",
		Long: `Show the stored audits: for each view how many groups the batch compared with what the speed
layer had shown, how many were equal, explained by duplicates that the batch removed, or
drifted, and the worst of the latter. Exit code 3 if a group of the newest audit drifted.`,
		Example: `  watershed audit
  watershed audit --builds 7 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			audits, err := e.db.Audits(cmd.Context(), builds)
			if err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(audits); err != nil {
					return err
				}
			} else {
				a.printAudits(audits)
			}
			return newestDrift(audits)
		},
	}
	cmd.Flags().IntVar(&builds, "builds", 1, "audits of that many newest builds")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printAudits(audits []schemas.Audit) {
	if len(audits) == 0 {
		fmt.Fprintln(a.stdout, "no batch has run yet")
	}
	for _, audit := range audits {
		fmt.Fprintf(a.stdout, "build %d against %d: %s\n", audit.Build, audit.Baseline, auditLine(audit))
		for _, g := range audit.Worst {
			fmt.Fprintf(a.stdout, "  %v %s: shown %s, is %s\n", g.Group, g.Measure, g.Baseline, g.Batch)
		}
	}
}

func newestDrift(audits []schemas.Audit) error {
	var newest, drifted uint64
	for _, a := range audits {
		newest = max(newest, a.Build)
	}
	for _, a := range audits {
		if a.Build == newest {
			drifted += a.Drifted
		}
	}
	if drifted > 0 {
		return driftError{fmt.Sprintf("the audit of build %d found %d groups that drifted", newest, drifted)}
	}
	return nil
}
