package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"watershed/schemas"
)

func (a *app) auditCmd() *cobra.Command {
	var asJSON bool
	var builds int
	var build uint64
	var view string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what the last audits found",
		Long: `Show the stored audits. Each night the batch compares, group by group, what the views had shown
(the build before, and what the speed layer and imports added to it) with what it computed from
history. A group is

  equal      every measure is the same;
  explained  it differs by duplicates that the batch removed: "late" ones, which came when the
             speed layer had forgotten the first, or ones that came with an import;
  drifted    it differs by anything else: a mistake somewhere, which the new build heals. The ten
             worst are listed with both values.

The same is in table audits, by columns. Exit code 3 if a group of the newest audit shown drifted.`,
		Example: `  watershed audit
  watershed audit --build 41 --view departures_by_hour
  watershed audit --builds 7 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if builds < 1 {
				return usage("--builds %d: want 1 or more", builds)
			}
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			var audits []schemas.Audit
			if cmd.Flags().Changed("build") {
				audits, err = auditsOf(cmd.Context(), e, build)
			} else {
				audits, err = e.db.Audits(cmd.Context(), builds)
			}
			if err != nil {
				return err
			}
			if audits, err = auditsOfView(audits, view); err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(audits); err != nil {
					return err
				}
			} else if err := printAudits(a.stdout, audits); err != nil {
				return err
			}
			return newestDrift(audits)
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&build, "build", 0, "audits of the build of that `number`")
	f.IntVar(&builds, "builds", 1, "audits of that many newest builds")
	f.StringVar(&view, "view", "", "audits of that `view` alone")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("build", "builds")
	return cmd
}

// auditsOf reads the audits of one build.
func auditsOf(ctx context.Context, e *engines, build uint64) ([]schemas.Audit, error) {
	audits, err := e.db.AuditsOf(ctx, build)
	if err != nil || len(audits) > 0 {
		return audits, err
	}
	there, err := e.db.AuditedBuilds(ctx)
	if err != nil {
		return nil, err
	}
	if len(there) == 0 {
		return nil, usage("there is no audit of build %d: no batch has run yet", build)
	}
	return nil, usage("there is no audit of build %d; audited are %v", build, there)
}

// auditsOfView selects the audits of one view; of all if it has no name.
func auditsOfView(audits []schemas.Audit, view string) ([]schemas.Audit, error) {
	if view == "" {
		return audits, nil
	}
	var of []schemas.Audit
	var names []string
	for _, a := range audits {
		if a.View == view {
			of = append(of, a)
		}
		if !slices.Contains(names, a.View) {
			names = append(names, a.View)
		}
	}
	if len(of) == 0 && len(names) == 0 {
		return nil, usage("there is no audit of view %s: no batch has run yet", view)
	}
	if len(of) == 0 {
		return nil, usage("there is no audit of view %s; audited are %s", view, strings.Join(names, ", "))
	}
	return of, nil
}

// printAudits prints for each build a table of its views, and below what there is to say of them.
func printAudits(out io.Writer, audits []schemas.Audit) error {
	if len(audits) == 0 {
		_, err := fmt.Fprintln(out, "no batch has run yet")
		return err
	}
	for i := 0; i < len(audits); {
		n := i
		for n < len(audits) && audits[n].Build == audits[i].Build {
			n++
		}
		of := audits[i:n]
		fmt.Fprintf(out, "build %d against build %d\n", of[0].Build, of[0].Baseline)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "GROUPS\tEQUAL\tEXPLAINED\tDRIFTED\t  VIEW")
		for _, a := range of {
			if a.Skipped != "" {
				fmt.Fprintf(w, "-\t-\t-\t-\t  %s: not compared, %s\n", a.View, a.Skipped)
				continue
			}
			fmt.Fprintf(w, "%d\t%d\t%d\t%d\t  %s\n", a.Groups, a.Equal, a.Explained, a.Drifted, a.View)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, a := range of {
			if _, err := io.WriteString(out, auditDetails(a)); err != nil {
				return err
			}
		}
		if i = n; i < len(audits) {
			fmt.Fprintln(out)
		}
	}
	return nil
}

// auditDetails says what a view's audit found besides equal groups; nothing if there is nothing.
func auditDetails(a schemas.Audit) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	atMost := ""
	if a.AtMost {
		atMost = "at most "
	}
	if a.LateDuplicates > 0 {
		line("late duplicates removed: %s%d (the speed layer had forgotten the first, and counted them)", atMost, a.LateDuplicates)
	}
	if a.ImportDuplicates > 0 {
		line("import duplicates removed: %s%d", atMost, a.ImportDuplicates)
	}
	if a.Imports > 0 {
		line("imported events: %d", a.Imports)
	}
	if a.Conflicts > 0 {
		line("conflicts: %d (same type, id and date, another payload; the first one counts)", a.Conflicts)
		for _, c := range a.First {
			line("  %s %s on %s: kept %s, dropped %s", c.Type, c.ID, c.Date, originText(c.Kept), originText(c.Dropped))
		}
	}
	if a.Drifted > 0 {
		line("drifted: %d %s, by up to %s (%.3g%% of the value)", a.Drifted, plural(a.Drifted, "group"), number(a.Largest), 100*a.LargestShare)
		for _, g := range a.Worst {
			line("  %s: %s was shown as %s, is %s", groupText(g.Group), g.Measure, g.Baseline, g.Batch)
		}
	}
	if a.Gated {
		line("gated: the build was not made live; `watershed batch --gate off` makes one live in spite of the drift")
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n" + a.View + "\n" + b.String()
}

func originText(o schemas.Origin) string {
	if o.Seq == 0 {
		return fmt.Sprintf("row %d of an import (%s)", o.Row, o.File)
	}
	return fmt.Sprintf("position %d row %d", o.Seq, o.Row)
}

// groupText is a group's dimensions, by name.
func groupText(group map[string]string) string {
	if len(group) == 0 {
		return "all"
	}
	parts := make([]string, 0, len(group))
	for name, value := range group {
		parts = append(parts, name+"="+value)
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}

// number is a difference as people write it.
func number(x float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.6f", x), "0"), ".")
}

func plural(n uint64, what string) string {
	if n == 1 {
		return what
	}
	return what + "s"
}

// newestDrift is a driftError if the newest of the audits found drift.
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
		return driftError{fmt.Sprintf("the audit of build %d found %d %s that drifted", newest, drifted, plural(drifted, "group"))}
	}
	return nil
}
