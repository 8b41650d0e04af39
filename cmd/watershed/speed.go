package main

import (
	"context"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (a *app) speedCmd() *cobra.Command {
	var metrics string
	cmd := &cobra.Command{
		Use:   "speed",
		Short: "Run the stream worker and the archiver",
		Long: `Run the always-on stream worker, which folds the log into the views, and beside it the
archiver, which copies the log into history. A log without a cut gets cut 1, with the
definitions on disk. One worker per log: a second one takes over from the first.

With --metrics it serves /metrics, /v1/status, /livez and /readyz, and nothing else: what only this
process knows (its restarts, what it has set aside or waits for) is there.`,
		Example: `  watershed speed --nats nats://nats:4222 --clickhouse clickhouse:9000 --history /data/history
  watershed speed --metrics 127.0.0.1:8485`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			a.preferMemory(workerMemory)
			e, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer e.close()
			loops, err := a.newLoops(ctx, e)
			if err != nil {
				return err
			}
			if metrics == "" {
				return loops.run(ctx)
			}
			ctx, end := context.WithCancel(ctx)
			defer end()
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return a.serveAdmin(ctx, e, loops, metrics) })
			g.Go(func() error { defer end(); return loops.run(ctx) })
			return g.Wait()
		},
	}
	cmd.Flags().StringVar(&metrics, "metrics", "", "`address` of metrics, status and health; anything but loopback needs a token (default: none)")
	return cmd
}
