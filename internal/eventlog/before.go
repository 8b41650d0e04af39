package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"watershed/schemas"
)

// Before returns the position of the last message that is older than t. If the log holds none,
// that is where its reader begins: at its first message, a cut, if it was trimmed, else the zero
// position. Timestamps ascend with sequences, so it is found by bisection.
func (l *Log) Before(ctx context.Context, t time.Time) (schemas.Position, error) {
	for {
		found, err := l.before(ctx, t)
		var trimmed *TrimmedError
		if errors.As(err, &trimmed) {
			continue // in between: seek again in what is left
		}
		if err != nil {
			return schemas.Position{}, fmt.Errorf("seek the log at %s: %w", t.UTC().Format(time.RFC3339Nano), err)
		}
		return found, nil
	}
}

func (l *Log) before(ctx context.Context, t time.Time) (schemas.Position, error) {
	info, err := l.Info(ctx)
	if err != nil {
		return schemas.Position{}, err
	}
	var found schemas.Position
	if info.First > 1 && info.Messages > 0 {
		if found, _, err = l.At(ctx, info.First); err != nil {
			return schemas.Position{}, err
		}
	}
	for lo, hi := info.First, info.Last+1; lo < hi; { // the answer lies below hi; what is below lo is older than t
		mid := lo + (hi-lo)/2
		pos, at, err := l.At(ctx, mid)
		if err != nil {
			return schemas.Position{}, err
		}
		if at.Before(t) {
			found, lo = pos, mid+1
		} else {
			hi = mid
		}
	}
	return found, nil
}
