package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"watershed/serving/api"
)

func (a *app) statusCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how far log, views and history are",
		Long: `Show how far log, views and history are, as the engines tell it, and what needs a hand: types
that cannot be archived, views that wait for a batch, dead letters, a log that fills up. The
endpoint says the same at /v1/status, and as metrics at /metrics.`,
		Example: "  watershed status --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			s := api.ReadStatus(cmd.Context(), a.deps(e, nil))
			if asJSON {
				err = a.printJSON(s)
			} else {
				err = a.printStatus(s)
			}
			if err == nil && len(s.Errors) > 0 {
				err = fmt.Errorf("%d parts do not answer", len(s.Errors))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printStatus(s *api.Status) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if l := s.Log; l != nil {
		fmt.Fprintf(w, "log\tpositions %d to %d, %d messages, %.1f%% of %d bytes full, cut %d, %d dead letters\n",
			l.First, l.Last, l.Messages, 100*l.Fill, l.MaxBytes, s.Cut, l.DeadLetters)
	}
	pinned := ""
	if s.Live.Pinned {
		pinned = ", pinned by a rollback"
	}
	fmt.Fprintf(w, "live\tbuild %d at cut %d%s\n", s.Live.Build, s.Live.Cut, pinned)
	if b := s.Batch; b.Build > 0 {
		fmt.Fprintf(w, "batch\tbuild %d was made %s, %d groups drifted\n", b.Build, b.At.UTC().Format(time.RFC3339), b.Drifted)
	}
	if b := s.Batch; b.Pending > 0 {
		fmt.Fprintf(w, "batch\tcut %d has no build since %s: a batch runs, or has failed\n", b.Pending, age(b.PendingSeconds))
	}
	for _, h := range s.History {
		fmt.Fprintf(w, "history\t%s: %d events in %d files, position %d, %s\n", h.Type, h.Events, h.Files, h.Position, behind(h.Lag, h.LagSeconds))
		if h.Failing != "" {
			fmt.Fprintf(w, "\t%s cannot be archived: %s\n", h.Type, h.Failing)
		}
	}
	for _, p := range s.Plans {
		note := ""
		switch {
		case !p.Covered:
			note = ", not covered by the live build: run a batch"
		case p.Stranded:
			note = ", the log no longer has what comes next: run a batch"
		case p.HeldOver:
			note = fmt.Sprintf(", held over at cut %d", p.Cut)
		}
		fmt.Fprintf(w, "view\t%s: position %d, %s%s\n", p.View, p.Position, behind(p.Lag, p.LagSeconds), note)
	}
	for _, d := range s.Dead {
		fmt.Fprintf(w, "dlq\t%d of %s: %s\n", d.Count, d.Type, d.Reason)
	}
	for _, e := range s.Errors {
		fmt.Fprintf(w, "error\t%s\n", e)
	}
	return w.Flush()
}

func behind(messages *uint64, seconds *float64) string {
	if messages == nil || seconds == nil {
		return "lag not known"
	}
	return fmt.Sprintf("%d messages, %s behind", *messages, age(*seconds))
}

func age(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}
