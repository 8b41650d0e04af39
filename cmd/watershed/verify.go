package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"watershed/batch/history"
)

func (a *app) verifyCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Hold every history file against the hash that was recorded when it was written",
		Long: `Read every live file of history again and compare its bytes with the SHA-256 in the table's
log. Exit code 3 if one differs or is missing. ` + "`watershed batch --rebuild`" + ` proves the slices.`,
		Example: "  watershed verify --history /data/history --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.locate(); err != nil {
				return err
			}
			r, err := history.Verify(cmd.Context(), a.cfg.History)
			if err != nil {
				return err
			}
			problems := make([]string, len(r.Problems))
			for i, p := range r.Problems {
				problems[i] = p.String()
			}
			if asJSON {
				err = a.printJSON(map[string]any{"types": r.Types, "files": r.Files, "rows": r.Rows, "bytes": r.Bytes, "problems": problems})
			} else {
				fmt.Fprintf(a.stdout, "%d files of %d types, %d events, %d bytes: %d problems\n", r.Files, r.Types, r.Rows, r.Bytes, len(problems))
				for _, p := range problems {
					fmt.Fprintln(a.stdout, "  "+p)
				}
			}
			if err == nil && len(problems) > 0 {
				err = driftError{fmt.Sprintf("%d files of history are not what was written", len(problems))}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
