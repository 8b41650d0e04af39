package decode

import (
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
)

// ErrArrowText says that the texts of an Arrow stream take more than they may, every use of a dictionary's entry
// counted: a small stream can stand for any amount of them.
var ErrArrowText = errors.New("too much text in an Arrow stream")

// What a part of a stream holds: so many rows, or less if their texts take more than so many bytes together; one row
// at least.
const (
	partRows = 1024
	partText = 64 << 10
)

// ArrowParts bounds what ReadArrow takes.
type ArrowParts struct {
	Row  int // bytes of the texts of one event; one with more is rejected
	Text int // bytes of all texts; a stream with more is refused with ErrArrowText
}

// ReadArrow reads an Arrow stream of any size a part at a time, so that memory stays small whatever columns, rows and
// dictionaries the stream says that it has. It calls take with the rows of each part that fit, in a record that holds
// until take returns, and with the others, whose Rejects have no payload. Rows are numbered over the stream, and event
// times held against at.
//
// An error is that of take, or says why the stream cannot be read to its end; what take was given before is to be
// dropped then. A stream without rows is none. The decoder must have no rows.
func (d *Decoder) ReadArrow(stream []byte, at time.Time, parts ArrowParts, take func(arrow.Record, []schemas.Reject) error) error {
	d.at, d.from, d.to = at, at.Add(-d.limits.Past).UnixMicro(), at.Add(d.limits.Future).UnixMicro()
	s := newStream(d, 0)
	s.parts, s.take = &parts, take
	err := s.read(stream)
	d.Discard()
	return err
}

// inParts appends n rows of the batch at hand, and hands them over.
func (s *stream) inParts(n int) error {
	for from := 0; from < n; {
		to, large, err := s.part(from, n)
		if err != nil {
			return err
		}
		if large > 0 {
			reason := fmt.Sprintf("event with texts of %d bytes: at most %d are allowed", large, s.parts.Row)
			err = s.reject(from, to, map[int]string{from: reason})
		} else {
			err = s.span(from, to)
		}
		if err == nil {
			err = s.handOver()
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// part returns where the part ends that begins with a row. A row whose texts are larger than they may be is a part of
// its own, and large is what they take.
func (s *stream) part(from, n int) (to, large int, err error) {
	text := 0
	for to = from; to < n && to < from+partRows && text < partText; to++ {
		size := 0
		for i, c := range s.sources {
			if c == nil || s.d.cols[i].kind != schemas.String || c.isNull(to) {
				continue
			}
			b, _, err := s.textOf(c, to)
			if err != nil {
				return 0, 0, fmt.Errorf("field %s: %w", s.d.cols[i].name, err)
			}
			size += len(b)
		}
		if to > from && (text+size > partText || size > s.parts.Row) {
			break
		}
		text += size
		if s.text += size; s.text > s.parts.Text {
			return 0, 0, fmt.Errorf("%w: more than %d bytes", ErrArrowText, s.parts.Text)
		}
		if size > s.parts.Row {
			return to + 1, size, nil
		}
	}
	return to, 0, nil
}

// handOver hands over what was appended.
func (s *stream) handOver() error {
	rec := s.d.Record()
	defer rec.Release()
	err := s.take(rec, s.rejects)
	s.rejects = s.rejects[:0]
	return err
}
