// Package decode turns messages of events into Arrow records: JSON, CloudEvents and Arrow streams.
//
// A Decoder is driven by one event's declaration and is strict: an event fits its schema
// wholly or comes back as a schemas.Reject that names the field at fault. These rules hold:
//
//   - A message has a Format, NDJSON unless its headers say otherwise: one event per line. A line
//     of white space is no event. Rows are numbered from 0 over the events, whether they fit or
//     not. docs/FORMAT.md has the other formats, and how a CloudEvent becomes an event.
//   - An event is one JSON object (RFC 8259) in valid UTF-8. A field that comes twice, a missing or
//     null field that is not optional, and any value that is an object or an array are refused.
//   - A field that is not declared is refused too, unless the event's declaration ignores those:
//     then its value must be JSON that nests up to 64 deep, and may come twice.
//   - string: a JSON string; half a surrogate pair is refused.
//   - bool: true or false.
//   - int64: a JSON number without fraction and exponent, within 64 bits.
//   - float64: a JSON number; one that rounds to infinity is refused; -0 becomes 0.
//   - decimal(p,s): a JSON number, or a string that holds one, whose exact value has at most s
//     digits behind the point and p in all. It may be written with an exponent.
//   - timestamp: a string, RFC 3339 with a zone or "2006-01-02 15:04:05[.ffffff]" in UTC, or an
//     integer number of microseconds. Digits behind the microsecond are cut off.
//   - date: a string, "2006-01-02".
//   - Timestamps and dates lie in the years 1900 to 2299, which is what ClickHouse can show.
//   - The event time lies within Limits around the log's timestamp of the message.
//
// Whether a number may be an input of quantiles is not decided here.
//
// It is our own code because of its speed: the libraries decode into structs, from which values
// would go on to columns, and none refuses keys that come twice or says which number does not fit.
// Processor time for the page view of cmd/bench, 169 bytes with nine fields, in messages of 200 (go
// 1.26, a busy EPYC; BenchmarkAppendPageview):
//
//	decode, checked, into Arrow columns                       330 ns
//	goccy/go-json 0.10.5, into a struct, time left as text    420 ns
//	bytedance/sonic 1.15.5, likewise                          570 ns
//	minio/simdjson-go 0.4.5, its tape alone                  1050 ns
//	encoding/json, into a struct                             2480 ns
package decode

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"watershed/schemas"
)

// Limits bound what a Decoder accepts. A zero field means its default.
type Limits struct {
	Past   time.Duration // how far the event time may lie before the log's timestamp; default 50 years
	Future time.Duration // how far after it; default one day
	Bytes  int           // size of one message; default 8 MiB, at most 1 GiB
}

const (
	defaultPast   = 50 * 365.25 * 24 * time.Hour
	defaultFuture = 24 * time.Hour
	defaultBytes  = 8 << 20
	maxBytes      = 1 << 30

	wholeMessage = -1 // the row of a Reject that concerns no single event
)

func (l Limits) withDefaults() Limits {
	if l.Past == 0 {
		l.Past = defaultPast
	}
	if l.Future == 0 {
		l.Future = defaultFuture
	}
	if l.Bytes == 0 {
		l.Bytes = defaultBytes
	}
	l.Bytes = min(l.Bytes, maxBytes)
	return l
}

// A Decoder appends events of one type to a record under construction. It must not be used by
// two goroutines at once. Nothing that it keeps or hands over refers to the payloads given to
// it, except for the Payload of a Reject.
type Decoder struct {
	event  *schemas.Event
	limits Limits
	cols   []column
	index  map[string]int // column by field name, for keys that do not come in the usual order
	first  int            // the field that came first last time
	time   int            // the column of the event time
	id     int            // that of the id

	rows    int
	bytes   int
	seqs    []int64
	rowNums []int32

	at      time.Time
	from    int64 // earliest event time accepted in the message at hand, µs
	to      int64 // latest
	line    uint64
	scratch []byte // unescaped text
	day     lastDay
	unknown []byte // name of the field being ignored

	envelopes attributes // of the CloudEvent at hand
}

// New returns a Decoder for events declared by ev, which must be valid.
func New(ev *schemas.Event, limits Limits) *Decoder {
	d := &Decoder{event: ev, limits: limits.withDefaults(), index: make(map[string]int, len(ev.Fields))}
	d.envelopes.seen = make(map[string]bool)
	for i, f := range ev.Fields {
		d.cols = append(d.cols, newColumn(f, (i+1)%len(ev.Fields)))
		d.index[f.Name] = i
		if f.Name == ev.Time {
			d.time = i
		}
		if f.Name == ev.ID {
			d.id = i
		}
	}
	return d
}

// Rows is the number of events appended since the last Record.
func (d *Decoder) Rows() int { return d.rows }

// Bytes is about the memory that those events take. The caller takes the Record before it
// passes 1 GiB.
func (d *Decoder) Bytes() int { return d.bytes }

// Append is AppendAs for NDJSON.
func (d *Decoder) Append(payload []byte, seq uint64, at time.Time) []schemas.Reject {
	return d.AppendAs(Format{}, payload, seq, at)
}

// AppendAs appends the events of one message that fit, and returns the others in their order.
// seq and at are the message's stream sequence and log timestamp (for an import 0 and the time
// that the event times are held against). A message without any event, one that is too large,
// and one whose events cannot be told apart come back as one Reject of Row -1; nothing of it is
// appended. The payloads of Rejects are parts of payload, or JSON if it is Arrow; their headers
// say how to read them.
func (d *Decoder) AppendAs(f Format, payload []byte, seq uint64, at time.Time) []schemas.Reject {
	if d.bytes > maxBytes {
		panic("decode: Append beyond 1 GiB without Record") // 32-bit offsets of text would overflow
	}
	d.at, d.from, d.to = at, at.Add(-d.limits.Past).UnixMicro(), at.Add(d.limits.Future).UnixMicro()
	if len(payload) > d.limits.Bytes {
		reason := fmt.Sprintf("message of %d bytes: at most %d are allowed", len(payload), d.limits.Bytes)
		return []schemas.Reject{d.reject(payload, seq, wholeMessage, reason, f)}
	}
	switch f.kind {
	case plainJSON, cloudEvent:
		return d.single(f, payload, seq)
	case cloudBatch:
		return d.batch(payload, seq)
	case arrowIPC:
		return d.arrow(payload, seq)
	}
	return d.lines(payload, seq)
}

// lines appends the events of a message of NDJSON.
func (d *Decoder) lines(payload []byte, seq uint64) []schemas.Reject {
	var rejects []schemas.Reject
	row := 0
	for rest := payload; len(rest) > 0; {
		var line []byte
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			line, rest = rest[:end], rest[end+1:]
		} else {
			line, rest = rest, nil
		}
		if blank(line) {
			continue
		}
		if err := d.appendRow(line, nil, seq, row); err != nil {
			if len(rejects) == cap(rejects) {
				// append alone would grow by quarters, which takes five times the memory in the end:
				// a message may consist of half a million lines that do not fit.
				rejects = slices.Grow(rejects, max(len(rejects), 1))
			}
			rejects = append(rejects, d.reject(line, seq, row, err.Error(), Format{}))
		}
		row++
	}
	if row == 0 {
		rejects = append(rejects, d.reject(payload, seq, wholeMessage, "message without an event", Format{}))
	}
	return rejects
}

// single appends the event of a message that is one.
func (d *Decoder) single(f Format, payload []byte, seq uint64) []schemas.Reject {
	i := skip(payload, 0)
	if i == len(payload) {
		return []schemas.Reject{d.reject(payload, seq, wholeMessage, "message without an event", f)}
	}
	var err error
	if f.kind == plainJSON {
		err = d.appendRow(payload, f.ce, seq, 0)
	} else {
		_, err = d.cloudEvent(payload, i, true, seq, 0)
	}
	if err != nil {
		return []schemas.Reject{d.reject(payload, seq, 0, err.Error(), f)}
	}
	return nil
}

// Line returns the line of one event of a message of NDJSON, by the row that Append gives it; nil if the
// message has fewer.
func Line(payload []byte, row int) []byte {
	for line := range bytes.Lines(payload) {
		if blank(line) {
			continue
		}
		if row--; row < 0 {
			return bytes.TrimSuffix(line, []byte("\n"))
		}
	}
	return nil
}

// Part returns the bytes of one event of a message, by the row that AppendAs gives it; nil if the
// message has fewer, or is Arrow and holds none as bytes of its own.
func Part(f Format, payload []byte, row int) []byte {
	switch {
	case f.kind == ndjson:
		return Line(payload, row)
	case (f.kind == plainJSON || f.kind == cloudEvent) && row == 0:
		return payload
	case f.kind == cloudBatch:
		return element(payload, row)
	}
	return nil
}

func (d *Decoder) reject(payload []byte, seq uint64, row int, reason string, f Format) schemas.Reject {
	return schemas.Reject{Seq: seq, Row: row, Type: d.event.Name, Time: d.at, Reason: reason, Payload: payload, Header: f.Header()}
}

// appendRow appends the event that is all of s, or changes nothing and returns why it does not
// fit. ce is the CloudEvent whose data it is, nil if none.
func (d *Decoder) appendRow(s []byte, ce *attributes, seq uint64, row int) error {
	d.line++
	before := d.bytes
	i, err := d.object(s, skip(s, 0))
	if err == nil {
		err = end(s, i)
	}
	if err == nil && ce != nil {
		err = d.fill(ce)
	}
	if err == nil {
		err = d.complete()
	}
	if err = d.finish(err, len(s), seq, row); err != nil {
		d.bytes = before
	}
	return err
}

// finish makes what was read a row, of about so many bytes, unless err says why it is none.
func (d *Decoder) finish(err error, size int, seq uint64, row int) error {
	if err != nil {
		d.truncate(d.rows)
		return err
	}
	d.seqs = append(d.seqs, int64(seq))
	d.rowNums = append(d.rowNums, int32(row))
	d.rows++
	d.bytes += size + 16
	return nil
}

// Discard forgets the events appended since the last Record, as if it had been taken: for who
// wants to know only whether they fit.
func (d *Decoder) Discard() {
	d.truncate(0)
	d.seqs, d.rowNums, d.rows, d.bytes = d.seqs[:0], d.rowNums[:0], 0, 0
}

// truncate forgets what the columns have behind the first n rows.
func (d *Decoder) truncate(n int) {
	for i := range d.cols {
		d.cols[i].truncate(n)
	}
}

// complete checks the event time and gives the absent fields of the row just read their nulls.
func (d *Decoder) complete() error {
	for i := range d.cols {
		if c := &d.cols[i]; c.seen != d.line {
			if !c.optional {
				return fmt.Errorf("field %s: missing", c.name)
			}
			c.appendNull()
		}
	}
	t := d.cols[d.time].ints[d.rows]
	if t < d.from || t > d.to {
		return d.outOfTime(t)
	}
	return nil
}

func (d *Decoder) outOfTime(t int64) error {
	return fmt.Errorf("field %s: %s is not within %s before and %s after the log's timestamp %s", d.event.Time,
		time.UnixMicro(t).UTC().Format(time.RFC3339Nano), d.limits.Past, d.limits.Future, d.at.UTC().Format(time.RFC3339Nano))
}

func blank(line []byte) bool {
	for _, c := range line {
		if !isSpace(c) {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// The instants and days that ClickHouse's DateTime64 and Date32 can show.
const (
	minDay    = -25567 // 1900-01-01
	maxDay    = 120529 // 2299-12-31
	dayMicros = 86_400_000_000
	minMicros = minDay * dayMicros
	maxMicros = (maxDay+1)*dayMicros - 1
)
