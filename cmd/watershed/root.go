package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"watershed/batch"
	"watershed/internal/traces/export"
	"watershed/schemas"
	"watershed/serving/api"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitDrift  = 3
)

// An app is one invocation of the program.
type app struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	cfg            config
	log            *slog.Logger
	level          *slog.LevelVar     // of log
	ingested       *api.IngestMetrics // nil: this process takes no events in
	traces         *export.Exporter   // nil: nobody asks for them
	leaveBy        time.Time          // when a role that was told to stop must have left; zero: none was
}

// A usageError is a mistake in flags, configuration or definitions: exit code 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// A driftError says that two figures that must be equal are not: exit code 3. What differs
// has been printed.
type driftError struct{ msg string }

func (e driftError) Error() string { return e.msg }

// A printedError is a mistake in definitions that has been printed: exit code 2.
type printedError struct{ err error }

func (e printedError) Error() string { return e.err.Error() }
func (e printedError) Unwrap() error { return e.err }

// exit prints an error and returns the exit code that it means.
func (a *app) exit(err error) int {
	var drift driftError
	var use usageError
	var defs schemas.Errors
	var table *batch.DefinitionError
	var printed printedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &printed):
		return exitUsage
	case errors.As(err, &defs):
		fmt.Fprintln(a.stderr, err)
		return exitUsage
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(a.stderr, "watershed: interrupted")
		return exitFailed
	}
	fmt.Fprintln(a.stderr, "watershed:", err)
	switch {
	case errors.As(err, &drift):
		return exitDrift
	case errors.As(err, &use), errors.As(err, &table):
		return exitUsage
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	a.level = new(slog.LevelVar)
	root := &cobra.Command{
		Use:   "watershed",
		Short: "Views over events that are fresh within a second and exactly right over all history",
		Long: `Watershed keeps views over events: a stream worker folds what is new, a nightly batch
recomputes everything from Parquet history, and one ClickHouse query sees both, cut at an
exact position in the log. Nothing is lost and nothing is counted twice.`,
		Example: `  watershed demo                     three million real flights, start to end
  watershed up                       everything in one process, on this machine alone
  watershed query 'SELECT * FROM days ORDER BY day'`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.cfg.resolve(cmd, a.getenv); err != nil {
				return usageError{err}
			}
			a.level.Set(a.cfg.level())
			a.log = a.logger()
			a.startTraces(cmd.Context(), cmd.Name())
			return nil
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w\nSee `%s --help`", err, cmd.CommandPath())
	})
	a.cfg.register(root)
	for _, c := range []*cobra.Command{
		a.upCmd(), a.speedCmd(), a.batchCmd(), a.serveCmd(),
		a.importCmd(), a.publishCmd(), a.queryCmd(), a.tailCmd(),
		a.statusCmd(), a.healthCmd(), a.buildsCmd(), a.rollbackCmd(), a.auditCmd(), a.verifyCmd(), a.repairCmd(), a.dlqCmd(), a.compactCmd(), a.vacuumCmd(),
		a.validateCmd(), a.demoCmd(), a.versionCmd(),
	} {
		usageOnArgs(c)
		root.AddCommand(c)
	}
	return root
}

// noSuchCommand refuses what is left when no command has taken it.
func noSuchCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see `" + root.CommandPath() + " --help`"
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("unknown command %q; %s", args[0], hint)
}

// usageOnArgs makes a wrong number of arguments exit with 2.
func usageOnArgs(c *cobra.Command) {
	check := c.Args
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage("%w\nSee `%s --help`", err, cmd.CommandPath())
		}
		return nil
	}
}

func (a *app) logger() *slog.Logger {
	opts := &slog.HandlerOptions{Level: a.level}
	if a.cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, opts))
	}
	return slog.New(slog.NewTextHandler(a.stderr, opts))
}

// printJSON writes v, indented, to standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal reports whether w is a terminal that a line can be rewritten on.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
