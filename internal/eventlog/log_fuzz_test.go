package eventlog

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/bounded"
	"watershed/schemas"
)

// foreign is a message as anyone may put it into the stream.
type foreign struct {
	jetstream.Msg // nothing else of it is used
	subject       string
	header        nats.Header
	data          []byte
}

func (m *foreign) Subject() string      { return m.subject }
func (m *foreign) Headers() nats.Header { return m.header }
func (m *foreign) Data() []byte         { return m.data }

func declared() *schemas.Event {
	return &schemas.Event{Name: "a", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "s", Type: schemas.Type{Kind: schemas.String}, Optional: true},
	}}
}

// header reads "Name: value" lines.
func header(text string) nats.Header {
	h := make(nats.Header)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			h.Set(name, value)
		}
	}
	return h
}

func packed(f *testing.F, data []byte) []byte {
	f.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	return z.EncodeAll(data, nil)
}

// FuzzLogMessage adds a message with any subject, headers and payload to a chunk: it becomes events, rejects or the
// next cut, or reading stops with an error; nothing else.
func FuzzLogMessage(f *testing.F) {
	first := &schemas.Cut{Number: 1, Definitions: schemas.Set{Events: []*schemas.Event{declared()}}, Position: schemas.Position{Seq: 1, Hash: 1}}
	next, err := encodeCut(&schemas.Cut{Number: 2, Previous: first.Position, Definitions: first.Definitions})
	if err != nil {
		f.Fatal(err)
	}
	const zipped = "Content-Encoding: zstd\n"
	f.Add("events.a", "", []byte(`{"id":1,"time":"2024-01-01T00:00:00Z"}`))
	f.Add("events.a", "Watershed-Logged: 2020-01-01T00:00:00.5Z\n", []byte("{\n\n{}"))
	f.Add("events.a", "Watershed-Logged: x", []byte(`{"id":1,"time":9223372036854775807}`))
	f.Add("events.b.c", "", []byte("x"))
	f.Add("events.", "", []byte{})
	f.Add("control.cut", "", next.Data)
	f.Add("control.cut", zipped, packed(f, next.Data))
	f.Add("control.cut", zipped, packed(f, make([]byte, 64<<20)))                                                                              // unpacks without end
	f.Add("control.cut", zipped, packed(f, append([]byte(`{"number":2,"definitions":{"events":[`), bytes.Repeat([]byte("{},"), maxCut/4)...))) // unpacks into much
	f.Add("control.cut", zipped, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0xff, 0xff, 0xff, 0xff})                                                 // declares 4 GiB
	f.Add("control.cut", "Content-Encoding: gzip", []byte("x"))
	f.Add("control.cut", "", []byte(`{"number":9,"anew":4}`))
	f.Add("control.cut", "", []byte(`{"number":2,"past":-1}`))
	f.Add("control.anew", "", []byte{})
	f.Add("control.other", "", []byte{})
	f.Fuzz(func(t *testing.T, subject, headers string, data []byte) {
		b := newBuilder(ChunkOptions{MaxRows: defaultRows, MaxBytes: defaultChunk}, schemas.Position{Seq: 4, Hash: 9}, 1, first)
		msg := &foreign{subject: subject, header: header(headers), data: data}
		meta := &jetstream.MsgMetadata{Timestamp: time.Unix(1_700_000_000, 5), Sequence: jetstream.SequencePair{Stream: 5}}
		bounded.Run(t, func() {
			err := b.add(msg, meta)
			if err != nil {
				var bad *badMessageError
				var changed *LogChangedError
				if !errors.As(err, &bad) && !errors.As(err, &changed) || b.messages > 0 || b.last.seq != 4 {
					t.Errorf("got %v after %d messages; want a final error and nothing changed", err, b.messages)
				}
				return
			}
			defer b.drop()
			if b.messages != 1 || b.position() != (schemas.Position{Seq: 5, Hash: hash(subject, meta.Timestamp, data)}) {
				t.Errorf("stands at %+v after %d messages; want at message 5 after one", b.position(), b.messages)
			}
			if b.ended != nil && (subject != cutSubject || b.ended.Number <= 1) {
				t.Errorf("cut %d from %s", b.ended.Number, subject)
			}
			if strings.HasPrefix(subject, eventSubject) && b.rows == 0 && len(b.rejects) == 0 {
				t.Error("a message of events became neither events nor rejects")
			}
		})
	})
}

// FuzzDeadLetter reads what anyone may put among the dead letters and the rescued messages.
func FuzzDeadLetter(f *testing.F) {
	f.Add("rescue.1.00000000000000ff.5.a", "Watershed-Seq: 1\nWatershed-Row: -1\nWatershed-Time: 2024-01-01T00:00:00Z\n", []byte("x"))
	f.Add("rescue.1.x.5.a.b", "Watershed-Seq: x", []byte{})
	f.Add("rescue", "Watershed-Seq: 1\nWatershed-Row: 0\nWatershed-Time: 2024-01-01T00:00:00Z\nWatershed-Truncated: -9", []byte("x"))
	f.Fuzz(func(t *testing.T, subject, headers string, data []byte) {
		bounded.Run(t, func() {
			d, err := letterOf(&foreign{subject: subject, header: header(headers), data: data}, 1)
			if err == nil && (d.ID != deadID(d.Seq, d.Row) || d.Size < len(d.Payload)) {
				t.Errorf("got %+v", d)
			}
			if s, err := parseSaved(subject); err == nil && s.eventType == "" {
				t.Errorf("%s has no event type", subject)
			}
		})
	})
}
