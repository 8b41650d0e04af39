package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/crash"
	"watershed/internal/decode"
	"watershed/schemas"
)

const (
	encodingHeader = "Content-Encoding"
	encodingZstd   = "zstd"
	compressFrom   = 16 << 10 // bytes of a cut's JSON from which it is compressed
	maxCut         = 4 << 20  // bytes of a cut's JSON, against a payload that unpacks without end
	cutCounter     = "cut"    // the highest number of a cut
)

type cutError string

func (e cutError) Error() string  { return string(e) }
func (e cutError) CutTaken() bool { return e == ErrCutTaken }
func (e cutError) NoCut() bool    { return e == ErrNoCut }

const (
	// ErrCutTaken is the error of a PublishCut that lost a race: another process published a cut of
	// that number. Nothing of ours is in the log.
	ErrCutTaken = cutError("another cut was published at the same time")

	// ErrNoCut is the error of reading a log that has no cut, or not the one asked for.
	ErrNoCut = cutError("the log has no such cut")
)

// PublishCut publishes the cut after `last`, with these definitions, and returns it. What the
// definitions were decided by is what LastCut returned before: the log takes the cut only if
// that is the last one still (the zero Cut: if it has none), so a number is never published
// twice, and nobody's cut is passed over.
// The number is 1 more than that of the last cut. In a log without cuts it is 1, or if the
// log was recreated it follows the highest number known of the log before, so that its epochs
// are not taken for those of old states.
//
// ErrCutTaken: nothing was published; read LastCut and decide anew. Any other error leaves open
// whether the cut is in the log: LastCut tells.
func (l *Log) PublishCut(ctx context.Context, last schemas.Cut, definitions, retiring schemas.Set) (schemas.Cut, error) {
	cut := schemas.Cut{Number: last.Number + 1, Previous: last.Position, Definitions: definitions, Retiring: retiring,
		Past: l.cfg.Past, Future: l.cfg.Future}
	// Between two steps of Anew events are still to come again that history has: a build up to a cut
	// in between would show them once, and the speed states behind it once more. If Anew begins only
	// after this look, its cut is the last one then, and ours is refused.
	pending, err := l.AnewPending(ctx)
	if err == nil && pending {
		err = errBeginning
	}
	if err == nil {
		err = l.publishNumbered(ctx, &cut)
	}
	if err != nil {
		return schemas.Cut{}, fmt.Errorf("publish cut %d: %w", cut.Number, err)
	}
	return cut, nil
}

// publishNumbered publishes a cut and keeps the counter of cuts, which outlives the stream.
func (l *Log) publishNumbered(ctx context.Context, cut *schemas.Cut) error {
	known, err := l.raise(ctx, cutCounter, cut.Number-1)
	if err != nil {
		return err
	}
	if cut.Number == 1 {
		cut.Number = known + 1 // no cut in the log: the first ever, or the first since it was recreated
	}
	// If we stop here, nothing has changed: the counter says what the log says.
	crash.At("eventlog.cut-numbered")
	if err := l.publishCut(ctx, cut); err != nil {
		return err
	}
	// If we stop here, the counter is one behind until the next cut is published. Only if the
	// stream were lost before that would the number be used again.
	_, err = l.raise(ctx, cutCounter, cut.Number)
	crash.At("eventlog.cut-counted")
	return err
}

// publishCut sends a cut and fills in where it came to stand.
func (l *Log) publishCut(ctx context.Context, cut *schemas.Cut) error {
	msg, err := encodeCut(cut)
	if err != nil {
		return err
	}
	// If we stop before the server has it, there is no cut. If we stop after, there is one without
	// a build: whoever runs the batch next finds it as the last cut and resumes it or leaves it.
	ack, err := l.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(cut.Previous.Seq),
		jetstream.WithExpectStream(l.cfg.Stream))
	if isWrongLast(err) {
		return ErrCutTaken
	}
	if err != nil {
		return classify(err)
	}
	crash.At("eventlog.cut-acknowledged")
	cut.Position, cut.At, err = l.At(ctx, ack.Sequence)
	return err
}

func encodeCut(cut *schemas.Cut) (*nats.Msg, error) {
	data, err := json.Marshal(cut)
	if err != nil {
		return nil, err
	}
	if len(data) > maxCut {
		return nil, fmt.Errorf("the definitions take %d bytes; a cut may have %d", len(data), maxCut)
	}
	msg := nats.NewMsg(cutSubject)
	msg.Header.Set(contentHeader, "application/json")
	if len(data) >= compressFrom {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		data = z.EncodeAll(data, nil)
		msg.Header.Set(encodingHeader, encodingZstd)
	}
	msg.Data = data
	return msg, nil
}

// decodeCut reads the cut in a message on control.cut.
func decodeCut(header nats.Header, data []byte, position schemas.Position, at time.Time) (*schemas.Cut, error) {
	bad := func(err error) error {
		return fmt.Errorf("message %d on %s is not a cut: %w", position.Seq, cutSubject, err)
	}
	switch encoding := header.Get(encodingHeader); encoding {
	case "":
	case encodingZstd:
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxCut))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		if data, err = z.DecodeAll(data, nil); err != nil {
			return nil, bad(err)
		}
	default:
		return nil, bad(fmt.Errorf("unknown encoding %q", encoding))
	}
	cut := new(schemas.Cut)
	if err := json.Unmarshal(data, cut); err != nil {
		return nil, bad(err)
	}
	if cut.Number == 0 {
		return nil, bad(errors.New("it has no number"))
	}
	if cut.Past < 0 || cut.Future < 0 {
		return nil, bad(fmt.Errorf("its range of event times is %s to %s", cut.Past, cut.Future))
	}
	for _, set := range []schemas.Set{cut.Definitions, cut.Retiring} {
		for _, ev := range set.Events {
			if f := ev.Field(ev.Time); f == nil || f.Type.Kind != schemas.Timestamp || f.Optional {
				return nil, bad(fmt.Errorf("event type %s has no event time", ev.Name))
			}
		}
	}
	cut.Position, cut.At = position, at
	return cut, nil
}

func cutOf(msg *jetstream.RawStreamMsg) (*schemas.Cut, error) {
	position := schemas.Position{Seq: msg.Sequence, Hash: hash(msg.Subject, msg.Time, msg.Data)}
	return decodeCut(msg.Header, msg.Data, position, msg.Time)
}

// Limits are those of the decoder of events behind a cut. Archiver, speed layer and whoever checks
// events before publishing them have the same ones, because the cut says so.
func Limits(cut *schemas.Cut) decode.Limits {
	return decode.Limits{Past: cut.Past, Future: cut.Future}
}

// LastCut returns the log's last cut; ok is false if there is none.
func (l *Log) LastCut(ctx context.Context) (cut schemas.Cut, ok bool, err error) {
	msg, err := l.stream.GetLastMsgForSubject(ctx, cutSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return schemas.Cut{}, false, nil
	}
	if err != nil {
		return schemas.Cut{}, false, fmt.Errorf("last cut: %w", err)
	}
	c, err := cutOf(msg)
	if err != nil {
		return schemas.Cut{}, false, fmt.Errorf("last cut: %w", err)
	}
	return *c, true, nil
}

// Cut returns the cut of that number, or ErrNoCut.
func (l *Log) Cut(ctx context.Context, number uint64) (schemas.Cut, error) {
	cut, err := l.findCut(ctx, func(c *schemas.Cut) bool { return c.Number <= number })
	if err == nil && cut.Number != number {
		err = ErrNoCut
	}
	if err != nil {
		return schemas.Cut{}, fmt.Errorf("cut %d: %w", number, err)
	}
	return cut, nil
}

// CutBefore returns the newest cut at or before the message at seq, or ErrNoCut if seq lies
// before the first.
func (l *Log) CutBefore(ctx context.Context, seq uint64) (schemas.Cut, error) {
	cut, err := l.findCut(ctx, func(c *schemas.Cut) bool { return c.Position.Seq <= seq })
	if err != nil {
		return schemas.Cut{}, fmt.Errorf("cut before message %d: %w", seq, err)
	}
	return cut, nil
}

// CutFor returns the cut whose definitions hold for the messages behind seq, and the epoch that
// they lie in. That is CutBefore, or, for what lies before the log's first cut, that first cut
// and the epoch that it ends. A log without a cut is ErrNoCut.
func (l *Log) CutFor(ctx context.Context, seq uint64) (cut schemas.Cut, epoch uint64, err error) {
	cut, err = l.CutBefore(ctx, seq)
	if err == nil {
		return cut, cut.Number, nil
	}
	if !errors.Is(err, ErrNoCut) {
		return schemas.Cut{}, 0, err
	}
	// The oldest cut has a number above 1 if the log was trimmed, recreated or begun anew; then it
	// is the very first message, and the epoch that it ends has no event here.
	oldest, ok, err := l.OldestCut(ctx)
	if err == nil && !ok {
		err = ErrNoCut
	}
	if err == nil && seq > 0 && oldest.Anew < seq && oldest.Previous.Seq > 0 {
		err = &TrimmedError{Stored: schemas.Position{Seq: seq}, First: oldest.Position.Seq}
	}
	if err != nil {
		return schemas.Cut{}, 0, fmt.Errorf("cut for message %d: %w", seq, err)
	}
	return oldest, oldest.Number - 1, nil
}

// OldestCut returns the first cut that the log still has; ok is false if there is none. A log that
// was trimmed or begun anew begins with it.
func (l *Log) OldestCut(ctx context.Context) (cut schemas.Cut, ok bool, err error) {
	msg, err := l.stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(cutSubject)) // the first at or behind 1
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return schemas.Cut{}, false, nil
	}
	if err != nil {
		return schemas.Cut{}, false, fmt.Errorf("oldest cut: %w", classify(err))
	}
	c, err := cutOf(msg)
	if err != nil {
		return schemas.Cut{}, false, fmt.Errorf("oldest cut: %w", err)
	}
	return *c, true, nil
}

// findCut walks from the last cut back to the first for which stop is true.
func (l *Log) findCut(ctx context.Context, stop func(*schemas.Cut) bool) (schemas.Cut, error) {
	cut, ok, err := l.LastCut(ctx)
	if err == nil && !ok {
		err = ErrNoCut
	}
	if err != nil {
		return schemas.Cut{}, err
	}
	for !stop(&cut) {
		if cut, err = l.previous(ctx, cut); err != nil {
			return schemas.Cut{}, err
		}
	}
	return cut, nil
}

// previous returns the cut before another, or ErrNoCut if that is the first or the one before
// was trimmed.
func (l *Log) previous(ctx context.Context, cut schemas.Cut) (schemas.Cut, error) {
	if cut.Previous.Seq == 0 {
		return schemas.Cut{}, ErrNoCut
	}
	msg, err := l.message(ctx, cut.Previous.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return schemas.Cut{}, fmt.Errorf("%w: cut %d was trimmed from it", ErrNoCut, cut.Number-1)
	}
	if err != nil {
		return schemas.Cut{}, err
	}
	before, err := cutOf(msg)
	if err != nil {
		return schemas.Cut{}, err
	}
	if before.Position != cut.Previous || before.Number+1 != cut.Number {
		return schemas.Cut{}, &LogChangedError{Stored: cut.Previous, Found: before.Position,
			Reason: fmt.Sprintf("cut %d does not follow the cut that it names", cut.Number)}
	}
	return *before, nil
}
