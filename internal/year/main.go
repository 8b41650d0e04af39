// Command year runs a year of Watershed in minutes: a batch every night, over small days, on the real
// engines, with all that is to keep it running for months: trimming, garbage, compaction and vacuum. It
// prints what has grown every thirty days, and fails if something did that should not.
//
// What is simulated is the calendar: each day's events bear that day's date, late ones an earlier one. The
// clock is the machine's, since the log stamps its messages with the time at which they came: a day takes
// as long as its work does. What is measured by that clock is scaled: the speed layer finds duplicates
// over Horizon, and history keeps replaced files for Retention; both are a day or more of the simulated year.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"watershed/internal/devserver"
)

func main() {
	devserver.Child() // the embedded ClickHouse is this program, started again
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "year:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("year", flag.ContinueOnError)
	flags.SetOutput(stderr)
	cfg := Config{Horizon: 3 * time.Second, Retention: 6 * time.Second}
	flags.IntVar(&cfg.Days, "days", 365, "how many days")
	flags.IntVar(&cfg.Every, "every", 30, "measure every so many `days`")
	flags.IntVar(&cfg.PerDay, "events", 300, "events of a day")
	flags.Uint64Var(&cfg.Seed, "seed", 1, "what the events are drawn by")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if cfg.Dir, err = os.MkdirTemp("", "watershed-year-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Measured = func(s Sample) {
		fmt.Fprintf(stderr, "day %d: %.0f s, %.0f messages in the log, %.0f parts, batch %.2f s\n",
			s.Day, s.Since.Seconds(), s.Values[logMessages], s.Values[parts], s.Values[batchSeconds])
	}
	result, err := Simulate(ctx, cfg)
	if err != nil {
		return err
	}
	result.Print(stdout)
	return errors.Join(result.Bounded()...)
}
