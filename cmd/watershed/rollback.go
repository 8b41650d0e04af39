package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"watershed/batch"
	"watershed/schemas"
)

func (a *app) rollbackCmd() *cobra.Command {
	var release, asJSON bool
	cmd := &cobra.Command{
		Use:   "rollback [BUILD]",
		Short: "Show an older build again, and pin it",
		Long: `Make an older build live: by default the one before the live build. What the speed layer has
folded since that build's cut is added to it, so no event is missing. The build stays live,
whatever later batches compute, until --release makes the newest build live again.`,
		Example: `  watershed rollback
  watershed rollback 41
  watershed rollback --release`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if release && len(args) > 0 {
				return usage("--release takes no build")
			}
			var want uint64
			if len(args) == 1 {
				var err error
				if want, err = strconv.ParseUint(args[0], 10, 64); err != nil {
					return usage("build %q: want a number; `watershed builds` lists them", args[0])
				}
			}
			ctx := cmd.Context()
			e, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer e.close()
			var was schemas.Live
			choose := func(ctx context.Context, live schemas.Live) (uint64, error) {
				was = live
				return a.rollbackTarget(ctx, e, live, want, len(args) == 1, release)
			}
			now, err := batch.Rollback(ctx, e.log, e.db, choose, !release)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(now)
			}
			_, err = fmt.Fprintf(a.stdout, "build %d is live (was %d), pinned: %t\n", now.Build, was.Build, now.Pinned)
			return err
		},
	}
	cmd.Flags().BoolVar(&release, "release", false, "unpin: make the newest build live")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// rollbackTarget chooses the build to show.
func (a *app) rollbackTarget(ctx context.Context, e *engines, live schemas.Live, want uint64, given, release bool) (uint64, error) {
	builds, err := e.db.Builds(ctx)
	if err != nil {
		return 0, err
	}
	numbers := make([]uint64, len(builds))
	for i, b := range builds {
		numbers[i] = b.Number
	}
	slices.Sort(numbers)
	switch {
	case release:
		if !live.Pinned {
			return 0, fmt.Errorf("build %d is live and not pinned: there is nothing to release", live.Build)
		}
		return numbers[len(numbers)-1], nil
	case given:
		if !slices.Contains(numbers, want) {
			return 0, usage("there is no build %d; kept are %v", want, numbers)
		}
		return want, nil
	}
	at, _ := slices.BinarySearch(numbers, live.Build)
	if at == 0 {
		return 0, fmt.Errorf("build %d is live, and no older one is kept", live.Build)
	}
	return numbers[at-1], nil
}
