package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/schemas"
)

// A LogChangedError says that the log is not the one that a position was taken from, or has
// lost messages: reading on would skip or repeat events.
type LogChangedError struct {
	Stored schemas.Position // what the reader stands at
	Found  schemas.Position // what the log has there or next to it; zero: nothing
	Reason string
}

// Error says what differs and how to go on.
func (e *LogChangedError) Error() string {
	return fmt.Sprintf("the log has changed: %s (stands at message %d with hash %016x, found message %d with hash %016x);"+
		" nothing was read past it. If this is the wrong log, point --nats and --stream at the one that these positions belong to;"+
		" if the log was lost, truncated or restored, heal it with: watershed repair",
		e.Reason, e.Stored.Seq, e.Stored.Hash, e.Found.Seq, e.Found.Hash)
}

// LogChanged reports true; callers of other layers find the error by this method.
func (e *LogChangedError) LogChanged() bool { return true }

// A TrimmedError says that the log has forgotten what lies behind a position, as Trim makes it.
// It is a *LogChangedError too: nothing may be read on from there.
type TrimmedError struct {
	Stored schemas.Position // what the reader stands at
	First  uint64           // sequence of the first message that the log has
}

// Error says what is missing.
func (e *TrimmedError) Error() string {
	return fmt.Sprintf("the log was trimmed: it starts at message %d, and what lies between that and message %d, the stored position,"+
		" is in history alone", e.First, e.Stored.Seq)
}

// Trimmed reports true; callers of other layers find the error by this method.
func (e *TrimmedError) Trimmed() bool { return true }

// LogChanged reports true.
func (e *TrimmedError) LogChanged() bool { return true }

// Unwrap returns the same as a *LogChangedError.
func (e *TrimmedError) Unwrap() error {
	return &LogChangedError{Stored: e.Stored, Found: schemas.Position{Seq: e.First}, Reason: "it was trimmed"}
}

// errBeginning is the error of reading a log between two steps of Anew. It passes.
var errBeginning = errors.New("the log is being begun anew at the moment; if that was interrupted, go on with: watershed repair")

// hash is the hash of a message, as the package comment defines it.
func hash(subject string, at time.Time, payload []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(subject)
	var b [9]byte
	binary.LittleEndian.PutUint64(b[1:], uint64(at.UnixNano()))
	_, _ = d.Write(b[:])
	_, _ = d.Write(payload)
	return d.Sum64()
}

// message gets the message at seq. Of several replicas one that lags may answer, so that a
// message is missing only if it still is after a while.
func (l *Log) message(ctx context.Context, seq uint64) (*jetstream.RawStreamMsg, error) {
	tries := 0
	return backoff.Retry(ctx, func() (*jetstream.RawStreamMsg, error) {
		msg, err := l.stream.GetMsg(ctx, seq)
		if err == nil {
			return msg, nil
		}
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, backoff.Permanent(l.gone(ctx, seq, err))
		}
		tries++
		if l.cfg.Replicas > 1 && tries < 5 && errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, err
		}
		return nil, backoff.Permanent(err)
	}, backoff.WithBackOff(backoff.NewExponentialBackOff()))
}

// gone tells a stream that does not exist any more from one that does not answer.
func (l *Log) gone(ctx context.Context, seq uint64, err error) error {
	if _, infoErr := l.stream.Info(ctx); errors.Is(infoErr, jetstream.ErrStreamNotFound) {
		return &LogChangedError{Stored: schemas.Position{Seq: seq}, Reason: "the stream is gone"}
	}
	return err
}

// verify holds a stored position against the log. The zero position stands before all that is
// there: it holds for a log that begins at sequence 1 or with a cut, as every log does that was
// trimmed or begun anew. In a log begun anew all positions hold that belong to the log before.
func (l *Log) verify(ctx context.Context, at schemas.Position) error {
	if at.Seq == 0 {
		return l.verifyStart(ctx)
	}
	msg, err := l.message(ctx, at.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		first, ok, err := l.OldestCut(ctx)
		if err != nil {
			return err
		}
		if ok && first.Anew >= at.Seq {
			return nil
		}
		return l.missing(ctx, at)
	}
	if err != nil {
		return err
	}
	found := schemas.Position{Seq: at.Seq, Hash: hash(msg.Subject, msg.Time, msg.Data)}
	if found != at {
		return &LogChangedError{Stored: at, Found: found, Reason: "it holds another message at the stored position"}
	}
	return nil
}

func (l *Log) verifyStart(ctx context.Context) error {
	for {
		info, err := l.stream.Info(ctx)
		if err != nil {
			return err
		}
		first := info.State.FirstSeq
		if first <= 1 || info.State.Msgs == 0 {
			return nil // an empty log is checked by the reader when its first message comes
		}
		msg, err := l.message(ctx, first)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // trimmed in between
		}
		if err != nil {
			return err
		}
		return startsAt(msg.Subject, schemas.Position{Seq: first, Hash: hash(msg.Subject, msg.Time, msg.Data)})
	}
}

// startsAt checks the first message of a log that is read from its beginning.
func startsAt(subject string, at schemas.Position) error {
	if at.Seq > 1 && subject != cutSubject {
		return &LogChangedError{Found: at, Reason: fmt.Sprintf("its beginning is gone: it starts at message %d, and not with a cut", at.Seq)}
	}
	return nil
}

// missing says why the log has no message at a position.
func (l *Log) missing(ctx context.Context, at schemas.Position) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return err
	}
	e := &LogChangedError{Stored: at}
	switch s := info.State; {
	case s.Msgs == 0 && isAside(info.Config.Subjects):
		return errBeginning
	case at.Seq > s.LastSeq:
		e.Found.Seq, e.Reason = s.LastSeq, fmt.Sprintf("it ends at message %d, before the stored position", s.LastSeq)
	case at.Seq < s.FirstSeq && s.Msgs > 0:
		return &TrimmedError{Stored: at, First: s.FirstSeq}
	case at.Seq < s.FirstSeq:
		e.Found.Seq, e.Reason = s.FirstSeq, "it is empty"
	default:
		e.Reason = fmt.Sprintf("message %d is missing from its middle", at.Seq)
	}
	return e
}
