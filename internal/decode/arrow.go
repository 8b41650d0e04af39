package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
)

// The Arrow IPC stream format (arrow.apache.org/docs/format/Columnar.html) is read here and not by
// Arrow's library: that allocates what a damaged message says and panics on others. Here a message
// costs no more than its bytes are worth, and its buffers are read where they are. A column is
// checked and appended as a whole; only for rows that do not fit is it gone through again.

const (
	maxArrowText = 64 << 20 // bytes of text in a message of the log, every use of a dictionary's entry counted
	maxColumns   = 4096
	maxBad       = 64 << 10 // rows of a batch that are refused one by one
)

// What a message of the stream is.
const (
	headSchema = iota + 1
	headDictionary
	headRecords
)

// A stream is one message of Arrow being read.
type stream struct {
	d       *Decoder
	seq     uint64
	columns []source
	dicts   map[int64]*texts // dictionaries by id
	sources []*source        // of the decoder's columns, nil where the stream has none
	parts   *ArrowParts      // nil: it is taken as a whole, not by take
	take    func(arrow.Record, []schemas.Reject) error
	rows    int // of the batches read
	text    int // bytes of strings appended
	maxText int
	rejects []schemas.Reject
	letters int // bytes of the rejects' payloads
}

func newStream(d *Decoder, seq uint64) *stream {
	return &stream{d: d, seq: seq, dicts: make(map[int64]*texts), sources: make([]*source, len(d.cols))}
}

// arrow appends the rows of a message that is an Arrow stream.
func (d *Decoder) arrow(payload []byte, seq uint64) []schemas.Reject {
	s := newStream(d, seq)
	before, bytes := d.rows, d.bytes
	err := s.read(payload)
	if err == nil && s.rows == 0 {
		err = errors.New("message without an event")
	}
	if err != nil {
		d.truncate(before)
		d.seqs, d.rowNums = d.seqs[:before], d.rowNums[:before]
		d.rows, d.bytes = before, bytes
		return []schemas.Reject{d.reject(payload, seq, wholeMessage, err.Error(), Format{kind: arrowIPC})}
	}
	d.bytes += len(payload) + s.text + 16*(d.rows-before)
	return s.rejects
}

// read reads the stream to its end.
func (s *stream) read(b []byte) error {
	for first := true; len(b) > 0; first = false {
		if len(b) < 8 || binary.LittleEndian.Uint32(b) != 0xFFFFFFFF {
			return errors.New("not an Arrow stream: a message must begin with FFFFFFFF and its length")
		}
		size := int(int32(binary.LittleEndian.Uint32(b[4:])))
		if b = b[8:]; size == 0 {
			break // the end, and what is behind it is not part of the stream
		}
		if size < 0 || size > len(b) {
			return errTruncated
		}
		head := &flat{b: b[:size]}
		b = b[size:]
		table := head.to(0)
		kind, header, length := head.byte(table, 1), head.child(table, 2), head.long(table, 3)
		if head.broken || header == 0 {
			return errMetadata
		}
		if length < 0 || length > int64(len(b)) {
			return errTruncated
		}
		body := b[:length]
		b = b[length:]
		var err error
		switch {
		case first != (kind == headSchema):
			err = errors.New("not an Arrow stream: its schema must come first, and once")
		case kind == headSchema:
			err = s.schema(head, header)
		case kind == headDictionary:
			err = s.dictionary(head, header, body)
		case kind == headRecords:
			err = s.records(head, header, body)
		default:
			err = fmt.Errorf("not an Arrow stream: message of kind %d", kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	errTruncated = errors.New("not an Arrow stream: it ends within a message")
	errMetadata  = errors.New("not an Arrow stream: a message's metadata is damaged")
	errBuffers   = errors.New("not an Arrow stream: a batch has not the buffers that its schema says")
)

// A batch is the buffers of a record batch, taken one after the other.
type batch struct {
	head     *flat
	body     []byte
	rows     int
	nodes    int // where the next one is
	nodesEnd int
	buffers  int
	last     int
	err      error
}

func newBatch(head *flat, table int, body []byte) (*batch, error) {
	if head.child(table, 3) > 0 {
		return nil, errors.New("a compressed Arrow batch: send it without compression of its buffers")
	}
	rows := head.long(table, 0)
	nodes, n := head.vector(table, 1, 16)
	buffers, m := head.vector(table, 2, 16)
	if head.broken {
		return nil, errMetadata
	}
	if rows < 0 || rows > int64(len(body)) && rows > 0 {
		return nil, errBuffers // an event's time alone takes more
	}
	return &batch{head: head, body: body, rows: int(rows), nodes: nodes, nodesEnd: nodes + 16*n, buffers: buffers, last: buffers + 16*m}, nil
}

// node takes the next column's number of nulls.
func (b *batch) node() (nulls int) {
	if b.nodes >= b.nodesEnd {
		b.err = errBuffers
		return 0
	}
	rows, null := b.head.i64(b.nodes), b.head.i64(b.nodes+8)
	b.nodes += 16
	if rows != int64(b.rows) || null < 0 || null > rows {
		b.err = errBuffers
		return 0
	}
	return int(null)
}

// buffer takes the next buffer, which must have at least so many bytes.
func (b *batch) buffer(least int) []byte {
	if b.buffers >= b.last {
		b.err = errBuffers
		return nil
	}
	at, n := b.head.i64(b.buffers), b.head.i64(b.buffers+8)
	b.buffers += 16
	if at < 0 || n < 0 || at > int64(len(b.body)) || n > int64(len(b.body))-at || n < int64(least) {
		b.err = errBuffers
		return nil
	}
	return b.body[at : at+n]
}

// dictionary reads the entries of a dictionary.
func (s *stream) dictionary(head *flat, table int, body []byte) error {
	id, data, delta := head.long(table, 0), head.child(table, 1), head.byte(table, 2)
	if head.broken || data == 0 {
		return errMetadata
	}
	if delta != 0 {
		return errors.New("an Arrow dictionary that grows: send each as a whole")
	}
	b, err := newBatch(head, data, body)
	if err != nil {
		return err
	}
	wide := false
	used := false
	for i := range s.columns {
		if c := &s.columns[i]; c.to >= 0 && c.coded && c.dict == id {
			used, wide = true, c.tag == tagLargeUtf8
			c.known = c.known[:0]
		}
	}
	if !used {
		return nil
	}
	if nulls := b.node(); nulls > 0 {
		return errors.New("an Arrow dictionary with a null entry: make the rows null")
	}
	b.buffer(0)
	entries, err := b.texts(wide)
	s.dicts[id] = entries
	return err
}

// records appends the rows of a batch.
func (s *stream) records(head *flat, table int, body []byte) error {
	b, err := newBatch(head, table, body)
	if err != nil {
		return err
	}
	for i := range s.columns {
		c := &s.columns[i]
		if err := c.take(b); err != nil {
			return fmt.Errorf("column %s: %w", clip(c.name), err)
		}
	}
	if s.parts != nil {
		err = s.inParts(b.rows)
	} else {
		err = s.span(0, b.rows)
	}
	s.rows += b.rows
	return err
}

// span appends the rows of the batch at hand, from one to before another, that fit, and rejects the others.
func (s *stream) span(from, to int) error {
	text := s.text
	bad := make(map[int]string)
	if err := s.append(from, to, nil, bad); err != nil {
		return err
	}
	if len(bad) > 0 { // once more, without those rows
		s.d.truncate(s.d.rows)
		s.text = text
		if err := s.reject(from, to, bad); err != nil {
			return err
		}
		if err := s.append(from, to, bad, nil); err != nil {
			return err
		}
	}
	for r := from; r < to; r++ {
		if _, is := bad[r]; !is {
			s.d.seqs = append(s.d.seqs, int64(s.seq))
			s.d.rowNums = append(s.d.rowNums, int32(s.rows+r))
			s.d.rows++
		}
	}
	return nil
}

// append appends rows of all columns but those to be skipped, and notes why others do not fit.
func (s *stream) append(first, end int, skip, bad map[int]string) error {
	for i := range s.d.cols {
		c, from := &s.d.cols[i], s.sources[i]
		if from == nil { // optional, or the schema would not have been taken
			for range end - first - len(skip) {
				c.appendNull()
			}
			continue
		}
		to := target{s: s, c: c, from: from, first: first, end: end, skip: skip, bad: bad}
		if err := to.append(); err != nil {
			return fmt.Errorf("field %s: %w", c.name, err)
		}
		if len(bad) > maxBad {
			return s.tooMany(bad)
		}
	}
	return nil
}

func (s *stream) tooMany(bad map[int]string) error {
	first := slices.Min(slices.Collect(maps.Keys(bad)))
	return fmt.Errorf("%d rows of a batch or more do not fit, too many to keep one by one; row %d: %s", len(bad), s.rows+first, bad[first])
}

// reject makes rejects of rows, each as JSON unless the stream is taken in parts. Many large ones are refused with
// their message.
func (s *stream) reject(from, to int, bad map[int]string) error {
	for r := from; r < to; r++ {
		reason, is := bad[r]
		if !is {
			continue
		}
		if s.parts != nil {
			s.rejects = append(s.rejects, s.d.reject(nil, s.seq, s.rows+r, reason, Format{}))
			continue
		}
		line := s.line(r)
		if s.letters += len(line) + len(reason); s.letters > s.d.limits.Bytes {
			return s.tooMany(bad)
		}
		s.rejects = append(s.rejects, s.d.reject(line, s.seq, s.rows+r, reason, Format{kind: plainJSON}))
	}
	return nil
}
