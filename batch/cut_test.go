package batch_test

import (
	"context"
	"testing"

	"watershed/batch"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// A crowdedLog has somebody publish a cut just before each of the first ones of a batch.
type crowdedLog struct {
	*eventlog.Log
	others int
}

func (l *crowdedLog) PublishCut(ctx context.Context, last schemas.Cut, definitions, retiring schemas.Set) (schemas.Cut, error) {
	if l.others > 0 {
		l.others--
		if _, err := l.Log.PublishCut(ctx, last, definitions, retiring); err != nil {
			return schemas.Cut{}, err
		}
	}
	return l.Log.PublishCut(ctx, last, definitions, retiring)
}

// TestCutsOfOthersDoNotEndABatch has the log cut between a batch's look at it and the batch's own cut,
// as it is while it fills up.
func TestCutsOfOthersDoNotEndABatch(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.fold()
	w.publish(hits(0, 50, 1, 0))
	r, err := batch.Run(t.Context(), &crowdedLog{w.log, 2}, w.db, w.config())
	w.check(err)
	if last, _, err := w.log.LastCut(t.Context()); err != nil || !r.Flipped || r.Cut != last.Number || last.Number != 4 {
		t.Errorf("build %d at cut %d is live: %t; the last cut is %d, %v; want 4 for all", r.Build, r.Cut, r.Flipped, last.Number, err)
	}
	w.exact()
}
