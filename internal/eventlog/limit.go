package eventlog

import (
	"context"
	"fmt"
)

// RaiseLimit raises the limit of the log to so many bytes, and says whether it did: a limit that
// is as high already stays. Nothing lowers it.
func (l *Log) RaiseLimit(ctx context.Context, maxBytes int64) (bool, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("log %s: %w", l.cfg.Stream, classify(err))
	}
	cfg := info.Config
	if maxBytes <= cfg.MaxBytes {
		return false, nil
	}
	cfg.MaxBytes = maxBytes
	if _, err := l.js.UpdateStream(ctx, cfg); err != nil {
		return false, fmt.Errorf("log %s: raise its limit to %d bytes: %w", l.cfg.Stream, maxBytes, classify(err))
	}
	return true, nil
}
