package main

import (
	"github.com/spf13/cobra"
)

func (a *app) speedCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "speed",
		Short: "Run the stream worker and the archiver",
		Long: `Run the always-on stream worker, which folds the log into the views, and beside it the
archiver, which copies the log into history. A log without a cut gets cut 1, with the
definitions on disk. One worker per log: a second one takes over from the first.`,
		Example: `  watershed speed --nats nats://nats:4222 --clickhouse clickhouse:9000 --history /data/history`,
		Args:    cobra.NoArgs,
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
			return loops.run(ctx)
		},
	}
}
