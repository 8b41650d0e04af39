// Command bench measures the batch layer beside the engines that people would use instead: ClickHouse
// and DuckDB, on the same Parquet files, cores and memory, one after another. `bench speed` measures the
// speed layer, from producers to views, beside a ClickHouse with materialized views. See docs/bench/README.md.
//
// Each measurement has engines and directories of its own. Everybody's results are held against each
// other before any time is printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"watershed/internal/devserver"
)

func main() {
	devserver.Child() // the embedded ClickHouse is this program, started again
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// Config says what is measured.
type Config struct {
	Traffic
	Data    string // pageview or flights
	Dir     string // where data are kept, and everything else while it is needed
	Runs    int    // of which the median counts, after one that does not
	Memory  int64  // bytes that each engine may take
	Cores   []int  // that everybody is bound to; several: the speed-up is measured
	Views   []int  // how many; several: the time by number of views is measured
	Scale   []int  // millions of events: the time by number of events is measured
	Changed bool   // measure a night with one changed date
	Peers   bool   // measure ClickHouse and DuckDB
	JSON    string // file; empty: none
	Chart   string // file for an SVG; empty: none
	Profile string // file for a CPU profile of our last run on the compacted history; empty: none
	Command string // as it was called
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 1 && args[0] == childCommand {
		return child(ctx, stdin, stdout)
	}
	if len(args) > 0 && args[0] == speedCommand {
		return runSpeed(ctx, args[1:], stdout, stderr)
	}
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	b := &bench{cfg: cfg, stderr: stderr, cores: cfg.Cores[len(cfg.Cores)-1]}
	if err := unix.SchedGetaffinity(0, &b.all); err != nil {
		return err
	}
	r, err := b.run(ctx)
	if err != nil {
		return err
	}
	r.print(stdout)
	if cfg.JSON != "" {
		if err := writeJSON(cfg.JSON, r); err != nil {
			return err
		}
	}
	if cfg.Chart != "" {
		return r.writeChart(cfg.Chart)
	}
	return nil
}

// eventsPerDay is what a day of a site has that is worth a benchmark: enough that a minute of a country
// has many events.
const eventsPerDay = 1_000_000

func parse(args []string, stderr io.Writer) (cfg Config, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&cfg.Events, "events", 10_000_000, "distinct `events`")
	f.IntVar(&cfg.Days, "days", 0, "`days` that they are spread over (default: one for each million)")
	f.Uint64Var(&cfg.Seed, "seed", 1, "what the events are drawn by")
	f.Float64Var(&cfg.Duplicates, "duplicates", 0.02, "`share` of events that the raw history has twice")
	f.Float64Var(&cfg.Late, "late", 0.01, "`share` of events that came a day late")
	f.StringVar(&cfg.Data, "data", "pageview", "pageview, which are generated, or flights, which are real")
	f.StringVar(&cfg.Dir, "dir", filepath.Join(os.TempDir(), "watershed-bench"), "`directory` for data, which are used again, and work")
	f.IntVar(&cfg.Runs, "runs", 3, "`runs` of which the median counts")
	memory := f.Int64("memory", 8192, "`MiB` that each engine may take")
	f.BoolVar(&cfg.Changed, "changed", false, "measure a night on which one of the dates has changed, too")
	f.BoolVar(&cfg.Peers, "peers", true, "measure ClickHouse and DuckDB")
	f.StringVar(&cfg.JSON, "json", "", "`file` for the result")
	f.StringVar(&cfg.Chart, "chart", "", "`file` for a chart, SVG")
	f.StringVar(&cfg.Profile, "profile", "", "`file` for a CPU profile of our last run of all views on the compacted history")
	cores := f.String("cores", "2", "cores that everybody is bound to; a `list` measures our speed-up, too")
	views := f.String("views", strconv.Itoa(headline), "how many views; a `list` measures our time by their number, too")
	scale := f.String("scale", "", "a `list` of millions of events: measure our time by their number, too")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	if cfg.Days == 0 {
		cfg.Days = max(1, cfg.Events/eventsPerDay)
	}
	cfg.Memory = *memory << 20
	cfg.Command = "bench " + strings.Join(args, " ")
	var errs [3]error
	cfg.Cores, errs[0] = list(*cores)
	cfg.Views, errs[1] = list(*views)
	cfg.Scale, errs[2] = list(*scale)
	if err := errors.Join(errs[:]...); err != nil {
		return cfg, err
	}
	if len(cfg.Cores) == 0 || len(cfg.Views) == 0 || cfg.Events < cfg.Days || cfg.Runs < 1 || f.NArg() > 0 {
		return cfg, errors.New("--cores, --views and --runs must be given, --events at least one for each day, and nothing besides")
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return cfg, err
	}
	return cfg, os.MkdirAll(cfg.Dir, 0o700)
}

// list reads whole numbers above 0, separated by commas.
func list(s string) (out []int, err error) {
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no list of numbers", s)
		}
		out = append(out, n)
	}
	return out, nil
}
