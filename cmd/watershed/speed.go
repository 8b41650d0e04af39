package main

import (
	"context"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) speedCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "speed",
		Short: "Run the stream worker and the archiver",
		Long: `Run the always-on stream worker, which folds the log into the views, and beside it the
archiver, which copies the log into history. A log without a cut gets cut 1, with the
definitions on disk. One worker per log: a second one takes over from the first.

With --admin it serves /metrics, /v1/status, /healthz, /readyz, /log/level and (on this machine alone)
/debug/pprof: what only this process knows (its restarts, what it has set aside or waits for) is there.`,
		Example: `  watershed speed --nats nats://nats:4222 --clickhouse clickhouse:9000 --history /data/history
  watershed speed --admin 127.0.0.1:8485`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.leave(cmd.Context(), "speed", a.speed) },
	}
}

func (a *app) speed(ctx context.Context) error {
	if _, _, err := a.adminConfig(); err != nil {
		return err
	}
	a.preferMemory(workerMemory)
	if a.getenv("GOGC") == "" {
		debug.SetGCPercent(workerGrowth)
	}
	e, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	loops, err := a.newLoops(ctx, e)
	if err != nil {
		return err
	}
	return a.withAdmin(ctx, e, loops, loops.run)
}
