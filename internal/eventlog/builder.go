package eventlog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/decode"
	"watershed/internal/traces"
	"watershed/schemas"
)

// A builder decodes messages into the chunk that is handed out next.
type builder struct {
	opts     ChunkOptions
	cut      *schemas.Cut // whose definitions hold
	epoch    uint64
	decoders map[string]*decode.Decoder // by event type, made when the first such message comes

	after    schemas.Position
	last     lastMessage
	messages int
	bytes    int
	rows     int
	rejects  []schemas.Reject
	traced   []schemas.Traced // at most opts.Traced
	ended    *schemas.Cut     // the cut that is the chunk's last message
	before   schemas.Position // of the message before that cut
	caught   bool
}

// lastMessage is the message read last. Its hash is computed when it is asked for: once a chunk.
type lastMessage struct {
	seq     uint64
	hash    uint64 // if hashed
	hashed  bool
	subject string
	at      time.Time
	payload []byte
}

func newBuilder(opts ChunkOptions, after schemas.Position, epoch uint64, cut *schemas.Cut) builder {
	return builder{opts: opts, cut: cut, epoch: epoch, after: after, decoders: make(map[string]*decode.Decoder),
		last: lastMessage{seq: after.Seq, hash: after.Hash, hashed: true}}
}

// position is that of the message read last.
func (b *builder) position() schemas.Position {
	if !b.last.hashed {
		b.last.hash, b.last.hashed = hash(b.last.subject, b.last.at, b.last.payload), true
	}
	return schemas.Position{Seq: b.last.seq, Hash: b.last.hash}
}

func hashOf(subject string, meta *jetstream.MsgMetadata, payload []byte) schemas.Position {
	return schemas.Position{Seq: meta.Sequence.Stream, Hash: hash(subject, meta.Timestamp, payload)}
}

// full reports that the chunk takes no further message.
func (b *builder) full() bool {
	return b.ended != nil || b.rows >= b.opts.MaxRows || b.bytes >= b.opts.MaxBytes
}

// A badMessageError is about a message that no process can read on from.
type badMessageError struct{ err error }

func (e *badMessageError) Error() string { return e.err.Error() }
func (e *badMessageError) Unwrap() error { return e.err }

// add appends a message. On an error nothing has changed.
func (b *builder) add(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
	subject, payload := msg.Subject(), msg.Data()
	if eventType, ok := strings.CutPrefix(subject, eventSubject); ok {
		at, header := meta.Timestamp, noHeader
		if h := msg.Headers(); !isPlain(h) {
			header = headerOf(h)
			if t, ok := loggedAt(h); ok {
				at = t
			}
		}
		b.event(eventType, header, payload, meta.Sequence.Stream, at)
	} else if subject == markSubject {
		// The end of a log that was to be begun anew, and was not.
	} else if subject == cutSubject {
		cut, err := decodeCut(msg.Headers(), payload, hashOf(subject, meta, payload), meta.Timestamp)
		if err != nil {
			return &badMessageError{err}
		}
		if err := b.follows(cut); err != nil {
			return err
		}
		b.ended, b.before = cut, b.position()
	} else {
		return &badMessageError{fmt.Errorf("message %d has the unknown subject %s", meta.Sequence.Stream, subject)}
	}
	b.last = lastMessage{seq: meta.Sequence.Stream, subject: subject, at: meta.Timestamp, payload: payload}
	b.messages++
	b.bytes += len(payload)
	b.caught = meta.NumPending == 0
	return nil
}

// follows checks that a cut is the one after the cut that holds, or the first message of a log
// that is read from its beginning or was begun anew.
func (b *builder) follows(cut *schemas.Cut) error {
	if b.last.seq == 0 {
		b.epoch = cut.Number - 1 // what was trimmed before, nobody here has read
		return nil
	}
	if beganAnew(cut, b.last.seq) && cut.Number > b.epoch {
		return nil
	}
	if cut.Number == b.epoch+1 && (b.epoch == 0 || b.cut.Position == cut.Previous || cut.Previous.Seq == 0) {
		return nil
	}
	return &LogChangedError{Stored: b.position(), Found: cut.Position,
		Reason: fmt.Sprintf("cut %d comes in epoch %d", cut.Number, b.epoch)}
}

// event decodes a message of events, which was logged first at the given time.
func (b *builder) event(eventType string, header func(string) string, payload []byte, seq uint64, at time.Time) {
	d, ok := b.decoders[eventType]
	if !ok {
		if d = b.newDecoder(eventType); d != nil {
			b.decoders[eventType] = d
		}
	}
	if d == nil && !b.wanted(eventType) {
		return
	}
	if len(b.traced) < b.opts.Traced {
		if from := header(traces.Header); traces.IsSampled(from) {
			b.traced = append(b.traced, schemas.Traced{Seq: seq, Type: eventType, Traceparent: from})
		}
	}
	reason := ""
	if d == nil {
		reason = fmt.Sprintf("event type %s is not defined (cut %d)", eventType, b.cut.Number)
	} else if format, err := decode.FormatOf(header); err != nil {
		reason = err.Error()
	} else {
		rows, bytes := d.Rows(), d.Bytes()
		b.rejects = append(b.rejects, d.AppendAs(format, payload, seq, at)...)
		b.rows += d.Rows() - rows
		b.bytes += max(0, d.Bytes()-bytes-len(payload)) // texts of a dictionary take more than their message
		return
	}
	b.rejects = append(b.rejects, schemas.Reject{Seq: seq, Row: -1, Type: eventType, Time: at, Reason: reason,
		Payload: payload, Header: decode.HeaderOf(header)})
}

func (b *builder) wanted(eventType string) bool {
	return len(b.opts.Types) == 0 || slices.Contains(b.opts.Types, eventType)
}

// newDecoder returns a decoder for the type as the cut that holds defines it, nil if it does not
// or if the type is not wanted.
func (b *builder) newDecoder(eventType string) *decode.Decoder {
	if !b.wanted(eventType) {
		return nil
	}
	ev := b.cut.Definitions.Event(eventType)
	if ev == nil {
		ev = b.cut.Retiring.Event(eventType)
	}
	if ev == nil {
		return nil
	}
	return decode.New(ev, Limits(b.cut))
}

// take hands over the chunk and begins the next.
func (b *builder) take() *schemas.Chunk {
	chunk := &schemas.Chunk{
		Epoch: b.epoch, After: b.after, Last: b.position(), LastTime: b.last.at, Records: make(map[string]arrow.Record),
		Rejects: b.rejects, Traced: b.traced, Cut: b.ended, BeforeCut: b.before, Caught: b.caught,
	}
	for eventType, d := range b.decoders {
		if d.Rows() > 0 {
			chunk.Records[eventType] = d.Record()
		}
	}
	if b.ended != nil {
		b.cut, b.epoch, b.ended, b.before = b.ended, b.ended.Number, nil, schemas.Position{}
		clear(b.decoders)
	}
	b.after, b.last.payload = chunk.Last, nil
	b.messages, b.bytes, b.rows, b.rejects, b.traced = 0, 0, 0, nil, nil
	return chunk
}

// drop releases what was decoded and is not wanted any more.
func (b *builder) drop() {
	if b.messages > 0 {
		for _, rec := range b.take().Records {
			rec.Release()
		}
	}
}
