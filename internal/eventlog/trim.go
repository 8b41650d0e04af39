package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/crash"
	"watershed/schemas"
)

// ErrCannotTrim is the error of trimming a stream whose settings forbid it, as they did when
// Watershed could not trim. It takes events and serves readers as any other, until it is full.
var ErrCannotTrim = errors.New("the stream was created with deny_purge, which NATS does not take back, so it cannot be trimmed:" +
	" raise its limit (nats stream edit --max-bytes), or begin it anew (watershed repair), which sets it right")

// Trim forgets what lies before the newest cut at or before upTo, which it holds against the log
// first, and returns the number of messages that it removed. The cut stays, so a log that was
// trimmed begins with a cut, and its last cut is never trimmed. A position that the log has no
// cut before, or that was trimmed itself, leaves everything as it is.
//
// Readers that stand at the cut or behind it notice nothing; those that stand before it get a
// *TrimmedError. It is the caller who knows that nobody needs what lies before upTo.
func (l *Log) Trim(ctx context.Context, upTo schemas.Position) (trimmed uint64, err error) {
	if trimmed, err = l.trim(ctx, upTo); err != nil {
		return 0, fmt.Errorf("trim log %s up to message %d: %w", l.cfg.Stream, upTo.Seq, classify(err))
	}
	return trimmed, nil
}

func (l *Log) trim(ctx context.Context, upTo schemas.Position) (uint64, error) {
	if upTo.Seq == 0 {
		return 0, nil
	}
	// The cut that a log was begun anew with must be there until Anew has ended.
	if pending, err := l.AnewPending(ctx); err != nil {
		return 0, err
	} else if pending {
		return 0, errBeginning
	}
	var gone *TrimmedError
	if err := l.verify(ctx, upTo); errors.As(err, &gone) {
		return 0, nil // by an earlier call
	} else if err != nil {
		return 0, err
	}
	cut, err := l.CutBefore(ctx, upTo.Seq)
	if errors.Is(err, ErrNoCut) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	first := info.State.FirstSeq
	if cut.Position.Seq <= first {
		return 0, nil
	}
	if info.Config.DenyPurge {
		return 0, ErrCannotTrim
	}
	crash.At("eventlog.trim-decided")
	// If we stop before the server has removed the messages, nothing has changed; if it stops while
	// it does, its next start finds some of them, all of them or none: the log then begins in the
	// middle of what nobody needs. The next call removes the rest.
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(cut.Position.Seq)); err != nil {
		return 0, err
	}
	crash.At("eventlog.trimmed")
	return cut.Position.Seq - first, nil
}
