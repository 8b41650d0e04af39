package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watershed/schemas"
)

// NextOf returns the sequence of the first message of events of a type behind the message at
// after, and the log's timestamp of it: how far and how long one who stands there is behind. ok
// is false if there is none.
func (l *Log) NextOf(ctx context.Context, eventType string, after uint64) (seq uint64, at time.Time, ok bool, err error) {
	msg, err := l.stream.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(eventSubject+eventType))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, time.Time{}, false, nil
	case err != nil:
		return 0, time.Time{}, false, fmt.Errorf("log %s: next %s behind message %d: %w", l.cfg.Stream, eventType, after, classify(err))
	}
	return msg.Sequence, msg.Time, true, nil
}

// Holds checks that the log is the one that a position was taken from: it has the very message
// there, or it was begun anew behind it. The error is a *LogChangedError if it is not, and a
// *TrimmedError, which is one too, if what comes behind the position is gone by trimming.
func (l *Log) Holds(ctx context.Context, at schemas.Position) error {
	if err := l.verify(ctx, at); err != nil {
		return fmt.Errorf("log %s: %w", l.cfg.Stream, classify(err))
	}
	return nil
}
