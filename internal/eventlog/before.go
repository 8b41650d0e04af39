package eventlog

import (
	"context"
	"fmt"
	"time"

	"watershed/schemas"
)

// Before returns the position of the last message that is older than t; the zero position if
// the log still holds none. Timestamps ascend with sequences, so it is found by bisection.
func (l *Log) Before(ctx context.Context, t time.Time) (schemas.Position, error) {
	info, err := l.Info(ctx)
	if err != nil {
		return schemas.Position{}, err
	}
	var found schemas.Position
	for lo, hi := info.First, info.Last+1; lo < hi; { // the answer lies below hi; what is below lo is older than t
		mid := lo + (hi-lo)/2
		pos, at, err := l.At(ctx, mid)
		if err != nil {
			return schemas.Position{}, fmt.Errorf("seek the log at %s: %w", t.UTC().Format(time.RFC3339Nano), err)
		}
		if at.Before(t) {
			found, lo = pos, mid+1
		} else {
			hi = mid
		}
	}
	return found, nil
}
