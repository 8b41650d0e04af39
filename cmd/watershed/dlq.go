package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"watershed/serving/api"
)

func (a *app) dlqCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, show, replay or drop events that did not fit their schema",
		Long: `Events, and whole messages, that do not fit their schema are kept as dead letters, with their
bytes and the reason. List them, heal what was wrong (definitions: change them and run
` + "`watershed batch`" + `), and replay them: each is published to the log once, with the id it has, and
leaves the dead letters when the log has it. Times are those at which the log took them.`,
		Example: `  watershed dlq list --type departure --since 2001-07-01
  watershed dlq replay --reason 'unknown field "gate"'
  watershed dlq drop --all`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range []*cobra.Command{a.dlqListCmd(), a.dlqShowCmd(), a.dlqReplayCmd(), a.dlqDropCmd()} {
		usageOnArgs(c)
		cmd.AddCommand(c)
	}
	return cmd
}

// A dlqFilter is the flags that say which dead letters are meant.
type dlqFilter struct {
	api.DeadFilter
	since, until string
	all          bool
}

func (f *dlqFilter) register(flags *pflag.FlagSet, limit int) {
	flags.StringVar(&f.Type, "type", "", "of this event `type`")
	flags.StringVar(&f.Reason, "reason", "", "with this `text` in the reason")
	flags.StringVar(&f.since, "since", "", "taken by the log at this `time` or later (RFC 3339, or a date)")
	flags.StringVar(&f.until, "until", "", "taken by the log before this `time`")
	flags.IntVar(&f.Limit, "limit", limit, "at most so many, in the order in which they were stored; 0: all")
}

// read checks the flags and returns the filter.
func (f *dlqFilter) read(ids []string) (filter api.DeadFilter, err error) {
	if f.Since, err = parseTime("--since", f.since); err != nil {
		return filter, err
	}
	if f.Until, err = parseTime("--until", f.until); err != nil {
		return filter, err
	}
	if f.Limit < 0 {
		return filter, usage("--limit %d: want 0 or more", f.Limit)
	}
	for _, id := range ids {
		if !api.IsDeadID(id) {
			return filter, usage("%q is no id of a dead letter, like 42.3; `watershed dlq list` has them", id)
		}
	}
	f.IDs = ids
	return f.DeadFilter, nil
}

// readChosen is read for what changes something: all of them must be meant in words.
func (f *dlqFilter) readChosen(ids []string) (api.DeadFilter, error) {
	filtered := len(ids) > 0 || f.Type != "" || f.Reason != "" || f.since != "" || f.until != ""
	switch {
	case filtered && f.all:
		return f.DeadFilter, usage("--all goes without ids and filters")
	case !filtered && !f.all:
		return f.DeadFilter, usage("which dead letters? Give their ids, a filter (--type, --reason, --since, --until), or --all")
	}
	return f.read(ids)
}

// withDead runs something on the dead letters of the log.
func (a *app) withDead(ctx context.Context, do func(api.DeadLetters) error) error {
	if err := a.locate(); err != nil {
		return err
	}
	log, err := a.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	return do(newDeadLetters(log))
}

func (a *app) dlqListCmd() *cobra.Command {
	var f dlqFilter
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters",
		Example: `  watershed dlq list --reason 'field delay'
  watershed dlq list --type departure --since 2001-07-01 --limit 0 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.read(nil)
			if err != nil {
				return err
			}
			return a.withDead(cmd.Context(), func(dead api.DeadLetters) error {
				letters, more, err := dead.List(cmd.Context(), filter)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(map[string]any{"letters": emptyNotNull(letters), "more": more})
				}
				return a.printDead(letters, more)
			})
		},
	}
	f.register(cmd.Flags(), 100)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the bytes")
	return cmd
}

func emptyNotNull[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (a *app) printDead(letters []api.DeadLetter, more bool) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, l := range letters {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.ID, l.Time.UTC().Format(time.RFC3339), l.Type, l.Reason)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case len(letters) == 0:
		fmt.Fprintln(a.stdout, "no dead letters")
	case more:
		fmt.Fprintln(a.stderr, "there are more: see --limit and the filters")
	}
	return nil
}

func (a *app) dlqShowCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show ID...",
		Short:   "Show dead letters with their bytes",
		Example: "  watershed dlq show 42.3",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := new(dlqFilter).read(ids)
			if err != nil {
				return err
			}
			return a.withDead(cmd.Context(), func(dead api.DeadLetters) error {
				letters, _, err := dead.List(cmd.Context(), filter)
				if err != nil {
					return err
				}
				if asJSON {
					err = a.printJSON(emptyNotNull(letters))
				} else {
					a.showDead(letters)
				}
				if err == nil && len(letters) < len(ids) {
					err = fmt.Errorf("%d of %d dead letters are not there: `watershed dlq list` has the ids", len(ids)-len(letters), len(ids))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showDead(letters []api.DeadLetter) {
	for _, l := range letters {
		row := fmt.Sprintf("event %d", l.Row)
		if l.Row < 0 {
			row = "all"
		}
		fmt.Fprintf(a.stdout, "%s\n  type     %s\n  message  %d, %s of it\n  taken    %s\n  reason   %s\n",
			l.ID, l.Type, l.Seq, row, l.Time.UTC().Format(time.RFC3339Nano), l.Reason)
		if l.Truncated > 0 {
			fmt.Fprintf(a.stdout, "  cut off  %d of %d bytes are kept\n", len(l.Payload), l.Truncated)
		}
		text := fmt.Sprintf("%q", []byte(l.Payload))
		if utf8.Valid(l.Payload) && !strings.ContainsFunc(string(l.Payload), func(r rune) bool { return r < ' ' }) {
			text = string(l.Payload)
		}
		fmt.Fprintf(a.stdout, "  bytes    %s\n", text)
	}
}

func (a *app) dlqReplayCmd() *cobra.Command {
	return a.dlqActCmd(dlqAct{
		use:   "replay [ID...]",
		short: "Publish dead letters again, once, and remove them when the log has them",
		long: `Publish dead letters to the log again. Each is held against today's definitions first: what
still does not fit stays, with the reason, and the exit code is 1. What fits is published with
the id that it has, so that it counts once, however often it is replayed or was sent before.`,
		example: `  watershed dlq replay --type departure --reason 'unknown field'
  watershed dlq replay 42.3`,
		do: api.DeadLetters.Replay,
		print: func(o api.DeadOutcome) error {
			fmt.Fprintf(a.stdout, "%d replayed, %d left\n", o.Replayed, len(o.Left))
			for _, l := range o.Left {
				fmt.Fprintf(a.stderr, "%s stays: %s\n", l.ID, l.Reason)
			}
			return nil
		},
	})
}

func (a *app) dlqDropCmd() *cobra.Command {
	return a.dlqActCmd(dlqAct{
		use:   "drop [ID...]",
		short: "Remove dead letters for good",
		long: `Remove dead letters for good. The messages that they came from stay in the log until it is
trimmed; if the archiver has to read one again, its dead letter comes back.`,
		example: `  watershed dlq drop --type departure --until 2001-07-01
  watershed dlq drop --all`,
		do: api.DeadLetters.Drop,
		print: func(o api.DeadOutcome) error {
			_, err := fmt.Fprintf(a.stdout, "%d dropped\n", o.Dropped)
			return err
		},
	})
}

// A dlqAct is a command that changes dead letters.
type dlqAct struct {
	use, short, long, example string

	do    func(api.DeadLetters, context.Context, api.DeadFilter) (api.DeadOutcome, error)
	print func(api.DeadOutcome) error
}

func (a *app) dlqActCmd(act dlqAct) *cobra.Command {
	var f dlqFilter
	var asJSON bool
	cmd := &cobra.Command{
		Use: act.use, Short: act.short, Long: act.long, Example: act.example, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := f.readChosen(ids)
			if err != nil {
				return err
			}
			return a.withDead(cmd.Context(), func(dead api.DeadLetters) error {
				// What was done before an error is printed all the same.
				outcome, err := act.do(dead, cmd.Context(), filter)
				if asJSON {
					err = errors.Join(err, a.printJSON(outcome))
				} else {
					err = errors.Join(err, act.print(outcome))
				}
				if err == nil && len(outcome.Left) > 0 {
					err = fmt.Errorf("%d dead letters do not fit today's definitions either", len(outcome.Left))
				}
				return err
			})
		},
	}
	f.register(cmd.Flags(), 0)
	cmd.Flags().BoolVar(&f.all, "all", false, "all of them")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
