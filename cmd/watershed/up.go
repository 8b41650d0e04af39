package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"watershed/batch"
)

func (a *app) upCmd() *cobra.Command {
	var nightly string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process, with embedded engines",
		Long: `Run the stream worker, the archiver, the SQL/HTTP endpoint and the nightly batch in one
process, on a NATS and a ClickHouse of its own that keep their data below --dir and listen on
loopback alone. It needs no configuration, and may be stopped and started again at any time.
Other commands find it by --dir. With --nats or --clickhouse it uses those servers instead.`,
		Example: `  watershed up
  watershed up --dir /var/lib/watershed --definitions ./definitions --nightly 03:30`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := parseNightly(nightly)
			if err != nil {
				return err
			}
			if _, _, err := a.adminConfig(); err != nil {
				return err
			}
			return a.leave(cmd.Context(), "up", func(ctx context.Context) error { return a.up(ctx, at) })
		},
	}
	cmd.Flags().StringVar(&nightly, "nightly", "02:00", "UTC `time` of day of the batch; off: none")
	return cmd
}

// up runs every role until ctx ends.
//
//	NATS ──▶ worker ───▶ ClickHouse ──▶ endpoint
//	  └────▶ archiver ─▶ history ─▶ nightly batch ─▶ ClickHouse
func (a *app) up(ctx context.Context, nightly time.Duration) (err error) {
	began := time.Now()
	emb, err := a.startEmbedded(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emb.close()) }()
	e, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	loops, err := a.newLoops(ctx, e)
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(a.cfg.Dir, runningFile))
	g, ctx := errgroup.WithContext(ctx)
	a.countIngest()
	g.Go(func() error { return emb.watch(ctx) })
	g.Go(func() error { return a.withAdmin(ctx, e, loops, loops.run) })
	g.Go(func() error {
		return a.serve(ctx, e, loops, func(addr string) error {
			fmt.Fprintf(a.stderr, "watershed is up after %.1f s: http://%s (SQL: POST /v1/sql, views: /v1/views, state: /v1/status)\n",
				time.Since(began).Seconds(), addr)
			return a.announce(addr)
		})
	})
	if nightly >= 0 {
		g.Go(func() error { return loops.nightly(ctx, nightly) })
	}
	return g.Wait()
}

// announce tells other commands where everything is.
func (a *app) announce(endpoint string) error {
	history, err := filepath.Abs(a.cfg.History)
	if err != nil {
		return err
	}
	r := running{
		PID: os.Getpid(), Since: time.Now().UTC(), NATS: a.cfg.NATS,
		ClickHouse: a.cfg.ClickHouse, ClickHouseUser: a.cfg.ClickHouseUser, ClickHousePassword: a.cfg.ClickHousePassword,
		ReaderUser: a.cfg.ReaderUser, ReaderPassword: a.cfg.ReaderPassword,
		History: history, Endpoint: endpoint,
	}
	return r.save(a.cfg.Dir)
}

// parseNightly returns the time since midnight, or a negative one for "off".
func parseNightly(s string) (time.Duration, error) {
	if s == "off" {
		return -1, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, usage("--nightly %q: want a time of day like 02:00, or off", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// nightly runs a batch every day. One that fails is reported; the next night tries again.
func (l *loops) nightly(ctx context.Context, at time.Duration) error {
	for {
		next := nextNight(time.Now().UTC(), at)
		l.a.log.Info("the next batch", "at", next.Format(time.RFC3339))
		wait := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
		if _, err := l.batch(ctx); err != nil {
			continue // it has said why
		}
		l.a.tidy(ctx, l.e)
	}
}

// batch runs one batch and reports how it ended.
func (l *loops) batch(ctx context.Context) (*batch.Report, error) {
	a := l.a
	cfg := a.cfg.batch()
	cfg.History, cfg.App, cfg.Logger, cfg.Tracer = a.cfg.History, a.appID(), a.log, a.tracer()
	if a.cfg.Definitions != "" || hasDefinitions(defaultDefinitions) {
		set, from, err := loadDefinitions(a.cfg.Definitions)
		if err != nil {
			a.log.Error("batch: the definitions on disk have mistakes; the log's own are used", "directory", from, "error", err)
		}
		cfg.Definitions = set
	}
	report, err := a.mended(ctx, l.e, func() (*batch.Report, error) { return batch.Run(ctx, l.e.log, l.e.db, cfg) })
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.batchFailures.Add(1)
		a.log.Error("batch: failed; what was live stays live", "error", err)
	default:
		a.log.Info("batch: done", "build", report.Build, "live", report.Flipped, "seconds", report.Seconds.Total,
			"computed", report.Slices.Computed, "reused", report.Slices.Reused, "drifted", report.Drifted())
		a.warnHeldOver(report)
	}
	return report, err
}

// nextNight is the first time after now that lies `at` after a UTC midnight.
func nextNight(now time.Time, at time.Duration) time.Time {
	next := now.Truncate(24 * time.Hour).Add(at)
	if !next.After(now) {
		next = next.Add(24 * time.Hour)
	}
	return next
}
