package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

func (a *app) importCmd() *cobra.Command {
	var cfg history.ImportConfig
	var from, to string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import TYPE FILE...",
		Short: "Bring Parquet, NDJSON or CSV files into history",
		Long: `Import events of a type straight into history, without the log: each file in one commit, or
not at all. The same file again changes nothing. A field takes the column of its name unless
--map says otherwise; without a column for the id, an event's id is "<file name>#<row>".
Imported events appear in the views with the next batch.`,
		Example: `  watershed import departure flights-3m.parquet --map time=date
  watershed import departure old/*.csv --from 2001-01-01 --to 2001-06-01`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if cfg.From, err = parseTime("--from", from); err != nil {
				return err
			}
			if cfg.To, err = parseTime("--to", to); err != nil {
				return err
			}
			table, err := a.importTable(cmd.Context(), args[0], cfg.Map)
			if err != nil {
				return err
			}
			var reports []imported
			for _, path := range args[1:] {
				cfg.Path = path
				r, err := a.importFile(cmd.Context(), table, cfg, a.newProgress("import"))
				if err != nil {
					return err
				}
				reports = append(reports, imported{
					File: path, Source: r.Source, Already: r.Already, Events: r.Rows, Outside: r.Outside,
					Files: r.Files, Version: r.Version, Seconds: r.Duration.Seconds(),
				})
				if !asJSON {
					a.printImport(path, r)
				}
			}
			if asJSON {
				return a.printJSON(reports)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Format, "format", "", "`format`: parquet, ndjson or csv (default: by the file's name)")
	f.StringToStringVar(&cfg.Map, "map", nil, "our `field=column` of the file, such as time=date,id=uuid")
	f.StringVar(&from, "from", "", "import events from this `time` on (RFC 3339, or a date)")
	f.StringVar(&to, "to", "", "import events before this `time`")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// An imported is what --json says of one file.
type imported struct {
	File    string  `json:"file"`
	Source  string  `json:"source"`  // SHA-256 of the file
	Already bool    `json:"already"` // it was there: nothing changed
	Events  int64   `json:"events"`
	Outside int64   `json:"outside"` // rows outside of --from and --to
	Files   int     `json:"files"`   // written to history
	Version int64   `json:"version"` // of the table
	Seconds float64 `json:"seconds"`
}

// importTable opens the type's history by the definitions of the log, or by those on disk
// when there is no log to ask. The mapping may name fields of the type alone.
func (a *app) importTable(ctx context.Context, eventType string, mapping map[string]string) (*history.Table, error) {
	if err := a.locate(); err != nil {
		return nil, err
	}
	set, err := a.currentDefinitions(ctx)
	if err != nil {
		return nil, err
	}
	ev := set.Event(eventType)
	if ev == nil {
		return nil, usage("no event type %s is defined; there are %s", eventType, eventNames(set))
	}
	for _, name := range sortedKeys(mapping) {
		if !slices.ContainsFunc(ev.Fields, func(f schemas.Field) bool { return f.Name == name }) {
			return nil, usage("--map %s=%s: event %s has no field %s", name, mapping[name], ev.Name, name)
		}
	}
	return history.Open(ctx, a.cfg.History, ev)
}

func (a *app) currentDefinitions(ctx context.Context) (*schemas.Set, error) {
	if a.cfg.NATS != "" {
		log, err := a.openLog(ctx)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		return lastDefinitions(ctx, log)
	}
	set, _, err := loadDefinitions(a.cfg.Definitions)
	return set, err
}

func lastDefinitions(ctx context.Context, log *eventlog.Log) (*schemas.Set, error) {
	cut, ok, err := log.LastCut(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, usage("the log has no definitions yet: start `watershed up` or `watershed speed` first")
	}
	return &cut.Definitions, nil
}

func (a *app) importFile(ctx context.Context, table *history.Table, cfg history.ImportConfig, p *progress) (history.ImportReport, error) {
	defer p.done()
	cfg.Progress = p.bytes
	return history.Import(ctx, table, cfg)
}

func (a *app) printImport(path string, r history.ImportReport) {
	if r.Already {
		fmt.Fprintf(a.stdout, "%s: was imported before; nothing changed\n", path)
		return
	}
	fmt.Fprintf(a.stdout, "%s: %d events into %d files in %.2f s", path, r.Rows, r.Files, r.Duration.Seconds())
	if r.Outside > 0 {
		fmt.Fprintf(a.stdout, ", %d rows outside of the range", r.Outside)
	}
	fmt.Fprintln(a.stdout, "; `watershed batch` brings them into the views")
}

// parseTime reads a time or a date; empty is the zero time.
func parseTime(what, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usage("%s %q: want a time like 2001-06-01T00:00:00Z, or a date", what, s)
}
