package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/internal/decode"
)

// A DeadLetter is an event, or a whole message, that did not fit its schema.
type DeadLetter struct {
	ID      string    // "<seq>.<row>"; row -1 stands for the message as a whole
	Type    string    // the event type that its subject named
	Seq     uint64    // of the message in the log
	Row     int       // of the event in the message
	Time    time.Time // the log's timestamp of the message
	Reason  string
	Payload []byte            // the original bytes, or as many of them as could be stored
	Header  map[string]string // the headers that say how they are read; nil: JSON events, one per line
	Size    int               // of the original bytes; above len(Payload) if they are not whole
	Number  uint64            // place among the dead letters, for DeadLetterFilter.Behind
}

// A DeadLetterFilter selects dead letters. A zero field selects all.
type DeadLetterFilter struct {
	ID     string
	Type   string
	Reason string    // part of the reason
	Since  time.Time // the log had the message then or later
	Until  time.Time // the log had it before
	Behind uint64    // number of the letter behind which to begin
	Limit  int       // at most so many
}

// subject is the narrowest subject that all letters of the filter have.
func (f DeadLetterFilter) subject() (string, error) {
	eventType, place := "*", ">"
	if f.Type != "" {
		eventType = subjectToken(f.Type)
	}
	if f.ID != "" {
		seq, row, ok := strings.Cut(f.ID, ".")
		_, seqErr := strconv.ParseUint(seq, 10, 64)
		_, rowErr := strconv.Atoi(row)
		if !ok || seqErr != nil || rowErr != nil {
			return "", fmt.Errorf("%q is not the id of a dead letter, such as 4711.0", f.ID)
		}
		place = f.ID
	}
	return deadSubject + eventType + "." + place, nil
}

func (f DeadLetterFilter) matches(d *DeadLetter) bool {
	return (f.Type == "" || d.Type == f.Type) && strings.Contains(d.Reason, f.Reason) &&
		(f.Since.IsZero() || !d.Time.Before(f.Since)) && (f.Until.IsZero() || d.Time.Before(f.Until))
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// DeadLetters returns the dead letters that a filter selects, oldest first. Those that are stored
// while it runs may be among them. An error is the last thing that it yields.
func (l *Log) DeadLetters(ctx context.Context, f DeadLetterFilter) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		subject, err := f.subject()
		if err == nil {
			n := 0
			err = l.walk(ctx, l.dead, f.Behind, []string{subject}, func(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
				d, err := letterOf(msg, meta.Sequence.Stream)
				if err != nil {
					return err
				}
				if !f.matches(&d) {
					return nil
				}
				if n++; !yield(d, nil) || n == f.Limit {
					return errEnough
				}
				return nil
			})
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(DeadLetter{}, fmt.Errorf("dead letters of log %s: %w", l.cfg.Stream, classify(err)))
		}
	}
}

// DeadLetterAt returns the dead letter of that id; ok is false if there is none.
func (l *Log) DeadLetterAt(ctx context.Context, id string) (d DeadLetter, ok bool, err error) {
	for d, err := range l.DeadLetters(ctx, DeadLetterFilter{ID: id, Limit: 1}) {
		return d, err == nil, err
	}
	return DeadLetter{}, false, nil
}

func letterOf(msg jetstream.Msg, number uint64) (DeadLetter, error) {
	h := msg.Headers()
	d := DeadLetter{Type: h.Get(typeHeader), Reason: h.Get(reasonHeader), Payload: msg.Data(), Header: decode.HeaderOf(headerOf(h)),
		Size: len(msg.Data()), Number: number}
	var errs [4]error
	d.Seq, errs[0] = strconv.ParseUint(h.Get(seqHeader), 10, 64)
	d.Row, errs[1] = strconv.Atoi(h.Get(rowHeader))
	d.Time, errs[2] = time.Parse(time.RFC3339Nano, h.Get(timeHeader))
	if size := h.Get(truncatedHeader); size != "" {
		d.Size, errs[3] = strconv.Atoi(size)
	}
	if d.Size < len(d.Payload) {
		errs[3] = fmt.Errorf("it has %d bytes of %d", len(d.Payload), d.Size)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return d, fmt.Errorf("message %d on %s is not a dead letter: %w", number, msg.Subject(), err)
	}
	d.ID = deadID(d.Seq, d.Row)
	return d, nil
}

func deadID(seq uint64, row int) string { return fmt.Sprintf("%d.%d", seq, row) }

// A Replay says what ReplayDeadLetters did.
type Replay struct {
	Replayed int          // letters that are events in the log again, and no dead letters any more
	Refused  []DeadLetter // whose bytes are not whole and not in the log any more; they stay
}

// ReplayDeadLetters publishes the original bytes of the selected dead letters as messages of
// their types, with the events' own ids, and removes each letter when the log has acknowledged
// it. What does not fit still becomes a new dead letter, under the place that it has now.
//
// If it dies between a publish and the removal, a second replay publishes the event once more:
// within two minutes the log drops that by its message id, later the layers drop it as the same
// event.
func (l *Log) ReplayDeadLetters(ctx context.Context, f DeadLetterFilter) (Replay, error) {
	var r Replay
	var replayed atomic.Int64
	err := l.eachLetter(ctx, f, func(ctx context.Context, d DeadLetter) error {
		if err := l.replay(ctx, &d); err != nil {
			return err
		}
		replayed.Add(1)
		return nil
	}, func(d DeadLetter) (DeadLetter, bool, error) {
		whole, err := l.whole(ctx, d)
		if err == nil && len(whole.Payload) < whole.Size {
			r.Refused = append(r.Refused, whole)
			return whole, false, nil
		}
		return whole, true, err
	})
	r.Replayed = int(replayed.Load())
	if err != nil {
		return r, fmt.Errorf("replay dead letters of log %s: %w", l.cfg.Stream, classify(err))
	}
	return r, nil
}

func (l *Log) replay(ctx context.Context, d *DeadLetter) error {
	msg := l.eventMessage(ctx, d.Type, d.Payload, fmt.Sprintf("dlq/%d/%d", d.Seq, d.Row))
	if content := setContent(msg.Header, d.Header); len(d.Payload)+content+headerReserve > int(l.conn.MaxPayload()) {
		msg.Header = contentOnly(d.Header)
	}
	if _, err := l.js.PublishMsg(ctx, msg); err != nil {
		return &PublishError{Type: d.Type, ID: d.ID, Payload: d.Payload, Err: classify(err)}
	}
	crash.At("eventlog.deadletter-replayed")
	return l.removeLetter(ctx, d.Number)
}

// whole returns the letter with all of its bytes, if the log still has what was cut off.
func (l *Log) whole(ctx context.Context, d DeadLetter) (DeadLetter, error) {
	if len(d.Payload) == d.Size {
		return d, nil
	}
	msg, err := l.message(ctx, d.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	if msg.Subject != eventSubject+d.Type {
		return d, nil // another log
	}
	payload := msg.Data
	if d.Row >= 0 {
		format, err := decode.FormatOf(headerOf(msg.Header))
		if err != nil {
			return d, nil
		}
		payload = decode.Part(format, payload, d.Row)
	}
	if len(payload) == d.Size && strings.HasPrefix(string(payload), string(d.Payload)) {
		d.Payload = payload
	}
	return d, nil
}

// DropDeadLetters removes the selected dead letters for good, and returns their number. The
// messages that they came from stay in the log as long as it has them; if the archiver must read
// one again, its dead letter comes back.
func (l *Log) DropDeadLetters(ctx context.Context, f DeadLetterFilter) (dropped int, err error) {
	var n atomic.Int64
	err = l.eachLetter(ctx, f, func(ctx context.Context, d DeadLetter) error {
		if err := l.removeLetter(ctx, d.Number); err != nil {
			return err
		}
		n.Add(1)
		return nil
	}, func(d DeadLetter) (DeadLetter, bool, error) { return d, true, nil })
	if err != nil {
		return int(n.Load()), fmt.Errorf("drop dead letters of log %s: %w", l.cfg.Stream, classify(err))
	}
	return int(n.Load()), nil
}

// eachLetter calls do for the letters selected that keep takes, several at once.
func (l *Log) eachLetter(ctx context.Context, f DeadLetterFilter, do func(context.Context, DeadLetter) error, keep func(DeadLetter) (DeadLetter, bool, error)) error {
	info, err := l.dead.Info(ctx)
	if err != nil {
		return err
	}
	if info.Config.DenyDelete {
		return fmt.Errorf("stream %s was created with deny_delete, which NATS does not take back: look through its letters"+
			" (watershed dlq list), then delete it (nats stream rm %s) and start again; it is created anew", info.Config.Name, info.Config.Name)
	}
	last := info.State.LastSeq // what is replayed and rejected again must not be replayed for ever
	g, run := errgroup.WithContext(ctx)
	g.SetLimit(deadInFlight)
	for d, err := range l.DeadLetters(ctx, f) {
		if err == nil && d.Number > last {
			break
		}
		ok := false
		if err == nil {
			d, ok, err = keep(d)
		}
		if err == nil {
			err = run.Err()
		}
		if err != nil {
			return errors.Join(g.Wait(), err)
		}
		if ok {
			g.Go(func() error { return do(run, d) })
		}
	}
	return g.Wait()
}

// removeLetter removes a letter. One that is gone already is no error.
func (l *Log) removeLetter(ctx context.Context, number uint64) error {
	if err := l.dead.DeleteMsg(ctx, number); err != nil {
		if _, getErr := l.dead.GetMsg(ctx, number); errors.Is(getErr, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	}
	crash.At("eventlog.deadletter-removed")
	return nil
}
