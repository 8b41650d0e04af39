package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) buildsCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "builds",
		Short:   "List the builds that are kept",
		Example: "  watershed builds --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			builds, err := (&catalog{e: e}).Builds(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(builds)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "BUILD\tCUT\tVIEWS\tSLICES\tAT\t")
			for _, b := range builds {
				mark := ""
				if b.Live {
					mark = "live"
				}
				fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\n", b.Number, b.Cut, len(b.Plans), b.Slices, b.At.Format(time.RFC3339), mark)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
