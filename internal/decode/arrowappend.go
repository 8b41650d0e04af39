package decode

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"watershed/schemas"
)

// A target appends one column of a batch to one of the decoder's.
type target struct {
	s          *stream
	c          *column
	from       *source
	first, end int            // rows
	skip       map[int]string // rows to leave out
	bad        map[int]string // takes the rows that do not fit, and why
}

// refuse notes why a row does not fit. It gets some value in the column all the same.
func (t *target) refuse(r int, format string, args ...any) {
	if t.bad[r] == "" {
		t.bad[r] = "field " + t.c.name + ": " + fmt.Sprintf(format, args...)
	}
}

// append appends all rows, and a null flag for each if the column is optional.
func (t *target) append() error {
	for r := t.first; r < t.end; r++ {
		if len(t.bad) > maxBad {
			return nil
		}
		if t.skip != nil {
			if _, is := t.skip[r]; is {
				continue
			}
		}
		if t.from.isNull(r) {
			if !t.c.optional {
				t.refuse(r, "null, but not optional")
			}
			t.c.appendNull()
			if !t.c.optional {
				t.c.null = t.c.null[:0]
			}
			continue
		}
		if err := t.value(r); err != nil {
			return err
		}
		if t.c.optional {
			t.c.null = append(t.c.null, false)
		}
	}
	return nil
}

// value appends a row that is not null.
func (t *target) value(r int) error {
	c, from := t.c, t.from
	switch c.kind {
	case schemas.String:
		return t.text(r)
	case schemas.Bool:
		c.bools = append(c.bools, from.values[r/8]>>(r%8)&1)
	case schemas.Int64:
		v, ok := from.integer(r)
		if !ok {
			t.refuse(r, "beyond 64 bits: %d", uint64(v))
		}
		c.ints = append(c.ints, v)
	case schemas.Float64:
		v := from.float(r)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.refuse(r, "not finite: %g", v)
		}
		c.floats = append(c.floats, v+0) // -0 + 0 is 0
	case schemas.Decimal:
		v := from.decimal(r)
		if !fitsIn(v, c.typ.Precision) {
			t.refuse(r, "more than %s can hold: %s", c.typ, v.ToString(int32(c.typ.Scale)))
		}
		c.decimals = append(c.decimals, v)
	case schemas.Timestamp:
		v, ok := from.micros(r)
		if !ok || v < minMicros || v > maxMicros {
			t.refuse(r, "not in the years 1900 to 2299")
		} else if c == &t.s.d.cols[t.s.d.time] && (v < t.s.d.from || v > t.s.d.to) {
			if t.bad[r] == "" {
				t.bad[r] = t.s.d.outOfTime(v).Error()
			}
		}
		c.ints = append(c.ints, v)
	case schemas.Date:
		v, _ := from.integer(r)
		if v < minDay || v > maxDay {
			t.refuse(r, "not in the years 1900 to 2299")
		}
		c.days = append(c.days, int32(v))
	}
	return nil
}

// maxKnown is how many entries of a dictionary are remembered: beyond it they are looked up row by
// row, so that what is remembered is small whatever a message holds.
const maxKnown = 64 << 10

// text appends a row of text.
func (t *target) text(r int) error {
	c, from := t.c, t.from
	b, entry, err := t.s.textOf(from, r)
	if err != nil {
		return err
	}
	if t.s.parts == nil { // else it was counted before
		if t.s.text += len(b); t.s.text > maxArrowText {
			return fmt.Errorf("%w: more than %d bytes", ErrArrowText, maxArrowText)
		}
	}
	// The decoder's numbers are those of one record: a stream in parts becomes several.
	remember := entry >= 0 && entry < maxKnown && !c.text.plain && t.s.parts == nil
	if remember && entry < len(from.known) && from.known[entry] > 0 {
		c.text.codes = append(c.text.codes, from.known[entry]-1)
		return nil
	}
	if !utf8.Valid(b) {
		t.refuse(r, "not UTF-8: %s", clip(b))
		b = nil
		remember = false
	}
	c.text.append(b)
	if remember && !c.text.plain {
		for len(from.known) <= entry {
			from.known = append(from.known, 0)
		}
		from.known[entry] = c.text.codes[len(c.text.codes)-1] + 1
	}
	return nil
}

// textOf is the text of a row that is not null, and the number of its entry, -1 if it is not coded.
func (s *stream) textOf(from *source, r int) (text []byte, entry int, err error) {
	if !from.coded {
		return from.texts.at(r), -1, nil
	}
	dict := s.dicts[from.dict]
	i, ok := from.integer(r)
	if dict == nil || !ok || i < 0 || i >= int64(dict.n) {
		return nil, 0, fmt.Errorf("row %d: its dictionary has no entry %d", s.rows+r, i)
	}
	return dict.at(int(i)), int(i), nil
}

// line is a row as JSON, so that it can be mended and sent again. What JSON cannot say is written
// as text or as it is, and does not fit then either.
func (s *stream) line(r int) []byte {
	b := []byte{'{'}
	for i, from := range s.sources {
		if from == nil {
			continue
		}
		c := &s.d.cols[i]
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(b, c.quoted...), ':')
		if from.isNull(r) {
			b = append(b, "null"...)
			continue
		}
		switch c.kind {
		case schemas.String:
			text, _, _ := s.textOf(from, r)
			b = appendText(b, text)
		case schemas.Bool:
			b = strconv.AppendBool(b, from.values[r/8]>>(r%8)&1 == 1)
		case schemas.Int64:
			if v, ok := from.integer(r); ok {
				b = strconv.AppendInt(b, v, 10)
			} else {
				b = strconv.AppendUint(b, uint64(v), 10)
			}
		case schemas.Float64:
			if v := from.float(r); math.IsNaN(v) || math.IsInf(v, 0) {
				b = strconv.AppendQuote(b, strconv.FormatFloat(v, 'g', -1, 64))
			} else {
				b = strconv.AppendFloat(b, v, 'g', -1, 64)
			}
		case schemas.Decimal:
			b = append(b, from.decimal(r).ToString(int32(c.typ.Scale))...)
		case schemas.Timestamp:
			if v, ok := from.micros(r); ok && v >= minMicros && v <= maxMicros {
				b = append(time.UnixMicro(v).UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
			} else {
				v, _ := from.integer(r)
				b = fmt.Appendf(b, `"%d/%d s"`, v, from.unit)
			}
		case schemas.Date:
			if v, _ := from.integer(r); v >= minDay && v <= maxDay {
				b = append(time.Unix(v*86400, 0).UTC().AppendFormat(append(b, '"'), time.DateOnly), '"')
			} else {
				b = strconv.AppendInt(b, v, 10)
			}
		}
	}
	return append(b, '}')
}

// appendText appends a JSON string. Bytes that are not UTF-8 stay as they are.
func appendText(b, text []byte) []byte {
	if utf8.Valid(text) {
		if quoted, err := json.Marshal(string(text)); err == nil {
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
