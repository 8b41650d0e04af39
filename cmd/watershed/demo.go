package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/internal/devserver"
	"watershed/schemas"
)

// The demo's source: 3,000,000 flights of the first half of 2001. January to May are imported
// as history; June comes through the log.
var (
	juneBegins = time.Date(2001, time.June, 1, 0, 0, 0, 0, time.UTC)
	flightMap  = map[string]string{"time": "date"}
)

// A demoReport is what the demo found; with --json it is printed as it is.
type demoReport struct {
	HistoryEvents   int64           `json:"history_events"`
	PublishedEvents int64           `json:"published_events"`
	Build           uint64          `json:"build"` // the live one at the end
	Checks          []demoCheck     `json:"checks"`
	Audit           []schemas.Audit `json:"audit"`
	Seconds         demoSeconds     `json:"seconds"`
	EventsPerSecond float64         `json:"events_per_second"` // June: from the first publish until all is visible
	Visible         demoVisible     `json:"publish_to_visible_ms"`
	PeakMB          float64         `json:"peak_mb"` // resident memory of this process, engines in it included; ClickHouse is another one
}

type demoSeconds struct {
	Start       float64 `json:"start"`        // engines and roles
	Import      float64 `json:"import"`       // January to May into history
	FirstBatch  float64 `json:"first_batch"`  // their views
	June        float64 `json:"june"`         // first publish until all of June is visible
	SecondBatch float64 `json:"second_batch"` // while the last third of June was published
	Total       float64 `json:"total"`
}

type demoVisible struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (a *app) demoCmd() *cobra.Command {
	var exit, asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Take three million real flights through both layers, and check every answer",
		Long: `Import January to May 2001 as history and batch it to a build; publish June through the log
while queries run; run a second batch while the last third of June is still being published;
after each stage hold the merged answers against ClickHouse's own over the source file.
It uses engines of its own in a new directory, and stays up afterwards unless --exit is given.`,
		Example: `  watershed demo
  watershed demo --exit --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), exit, asJSON)
		},
	}
	cmd.Flags().BoolVar(&exit, "exit", false, "leave when the checks are done, instead of staying up")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object at the end")
	return cmd
}

// A demo is one under way.
type demo struct {
	a        *app
	e        *engines
	source   string // the flights' Parquet file
	endpoint string
	json     bool // print the report as JSON
	report   demoReport
	began    time.Time
}

func (a *app) demo(ctx context.Context, exit, asJSON bool) (err error) {
	source, err := devserver.FlightsPath()
	if err != nil {
		return err
	}
	d := &demo{a: a, source: source, json: asJSON, began: time.Now()}
	if err := a.demoDirectory(); err != nil {
		return err
	}
	if !a.cfg.given["dir"] {
		defer os.RemoveAll(a.cfg.Dir)
	}
	a.cfg.NATS, a.cfg.ClickHouse, a.cfg.History, a.cfg.Definitions = "", "", "", ""
	if !a.cfg.given["listen"] && exit {
		a.cfg.Listen = "127.0.0.1:0"
	}
	if !a.cfg.given["log-level"] {
		a.cfg.LogLevel = "warn"
		a.log = a.logger()
	}
	emb, err := a.startEmbedded(ctx, filepath.Dir(source))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emb.close()) }()
	if d.e, err = a.connect(ctx); err != nil {
		return err
	}
	defer d.e.close()
	loops, err := a.startExample(ctx, d.e)
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(a.cfg.Dir, runningFile))
	roles, stop := context.WithCancel(ctx)
	g, roles := errgroup.WithContext(roles)
	up := make(chan string, 1)
	g.Go(func() error { return emb.watch(roles) })
	g.Go(func() error { return loops.run(roles) })
	g.Go(func() error {
		return a.serve(roles, d.e, loops, func(addr string) error {
			up <- addr
			return a.announce(addr)
		})
	})
	g.Go(func() error {
		defer func() {
			if exit || roles.Err() != nil {
				stop()
			}
		}()
		select {
		case d.endpoint = <-up:
		case <-roles.Done():
			return nil
		}
		d.report.Seconds.Start = time.Since(d.began).Seconds()
		if err := d.run(roles); err != nil {
			return err
		}
		return d.finish(exit)
	})
	return g.Wait()
}

// demoDirectory is a new directory: what an earlier demo left would be counted again.
func (a *app) demoDirectory() (err error) {
	if !a.cfg.given["dir"] {
		a.cfg.Dir, err = os.MkdirTemp("", "watershed-demo-")
		return err
	}
	entries, err := os.ReadDir(a.cfg.Dir)
	if err == nil && len(entries) > 0 {
		return usage("--dir %s is not empty: the demo wants a new directory (`watershed up --dir %s` goes on with an old one)", a.cfg.Dir, a.cfg.Dir)
	}
	return nil
}

// run is the demo's stages.
func (d *demo) run(ctx context.Context) error {
	d.say("engines and roles are up: http://%s", d.endpoint)
	if err := d.importHistory(ctx); err != nil {
		return err
	}
	first, err := d.batch(ctx)
	if err != nil {
		return fmt.Errorf("first batch: %w", err)
	}
	d.report.Seconds.FirstBatch = first.Seconds.Total
	d.sayBatch("build %d of January to May", first)
	if err := d.check(ctx, "history", juneBegins); err != nil {
		return err
	}
	second, err := d.june(ctx)
	if err != nil {
		return err
	}
	if err := d.check(ctx, "merged", time.Time{}); err != nil {
		return err
	}
	d.report.Seconds.SecondBatch, d.report.Audit = second.Seconds.Total, second.Audit
	// Part of June lies behind the second build's cut. A third one covers all of it.
	last, err := d.batch(ctx)
	if err != nil {
		return fmt.Errorf("last batch: %w", err)
	}
	d.sayBatch("build %d, with all of June from history", last)
	d.report.Audit, d.report.Build = append(d.report.Audit, last.Audit...), last.Build
	for _, audit := range d.report.Audit {
		d.say("  audit of build %d: %s", audit.Build, auditLine(audit))
	}
	return d.check(ctx, "all from history", time.Time{})
}

func (d *demo) importHistory(ctx context.Context) error {
	cut, _, err := d.e.log.LastCut(ctx)
	if err != nil {
		return err
	}
	table, err := history.Open(ctx, d.a.cfg.History, cut.Definitions.Event("departure"))
	if err != nil {
		return err
	}
	r, err := d.a.importFile(ctx, table, history.ImportConfig{Path: d.source, Map: flightMap, To: juneBegins}, d.a.liveProgress("import"))
	if err != nil {
		return err
	}
	d.report.HistoryEvents, d.report.Seconds.Import = r.Rows, r.Duration.Seconds()
	d.say("imported January to May: %d flights into %d Parquet files in %.2f s (%.1f M/s)", r.Rows, r.Files, r.Duration.Seconds(), float64(r.Rows)/1e6/r.Duration.Seconds())
	return nil
}

func (d *demo) batch(ctx context.Context) (*batch.Report, error) {
	return d.a.runBatch(ctx, d.e, batch.Config{}, d.a.liveProgress("batch"))
}

func (d *demo) sayBatch(what string, r *batch.Report) {
	d.say("batch: "+what+" is live after %.2f s (%d slices computed, %d reused, %d events read)",
		r.Build, r.Seconds.Total, r.Slices.Computed, r.Slices.Reused, r.Events)
}

// story is where the story goes: with --json standard output is for the report alone.
func (d *demo) story() io.Writer {
	if d.json {
		return d.a.stderr
	}
	return d.a.stdout
}

// say prints a line of the story.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.story(), "%6.2f s  "+format+"\n", append([]any{time.Since(d.began).Seconds()}, args...)...)
}

// finish prints the result; an answer that was not equal is an error.
func (d *demo) finish(exit bool) error {
	d.report.Seconds.Total = time.Since(d.began).Seconds()
	d.report.PeakMB = peakMB()
	if d.json {
		if err := d.a.printJSON(d.report); err != nil {
			return err
		}
	}
	wrong := 0
	for _, c := range d.report.Checks {
		if !c.OK {
			wrong++
		}
	}
	if wrong > 0 {
		return driftError{fmt.Sprintf("%d of %d answers were not what ClickHouse reads from the source file", wrong, len(d.report.Checks))}
	}
	for _, audit := range d.report.Audit {
		if audit.Drifted > 0 {
			return driftError{"an audit found drift: " + auditLine(audit)}
		}
	}
	d.say("all %d answers equal; %.0f MB of memory at most, ClickHouse aside", len(d.report.Checks), d.report.PeakMB)
	if !exit {
		fmt.Fprintf(d.story(), `
It stays up at http://%s until you press Ctrl-C. Try:
  %s query --dir %s 'SELECT * FROM days ORDER BY day LIMIT 5'
  curl 'http://%s/v1/views/departures_by_hour?dimensions=origin&measures=flights,late&order=-flights&limit=5'
  %s status --dir %s
`, d.endpoint, os.Args[0], d.a.cfg.Dir, d.endpoint, os.Args[0], d.a.cfg.Dir)
	}
	return nil
}
