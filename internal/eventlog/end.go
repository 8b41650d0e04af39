package eventlog

import (
	"context"
	"fmt"
	"time"
)

// End returns the sequence and the log's timestamp of the last message; zero if there was none.
func (l *Log) End(ctx context.Context) (seq uint64, at time.Time, err error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("end of log %s: %w", l.cfg.Stream, classify(err))
	}
	return info.State.LastSeq, info.State.LastTime, nil
}
