package ingest

import (
	"bytes"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/decode"
	"watershed/schemas"
)

// rewrite checks lines that are no events as the log has them, and returns those that fit as what they were
// understood to be. It takes memory for them.
func (k *check) rewrite(ev *schemas.Event, f decode.Format, lines []byte, held *hold) ([]byte, error) {
	for line := range bytes.Lines(lines) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if rejects := k.d.AppendAs(f, line, 0, k.now); len(rejects) > 0 {
			field, reason := fieldOf(rejects[0].Reason)
			k.refuse(k.row, field, reason)
		} else {
			k.waiting = append(k.waiting, k.row)
		}
		k.row++
		if k.d.Bytes() >= segmentBytes {
			if err := k.take(ev, held); err != nil {
				return nil, err
			}
		}
	}
	err := k.take(ev, held)
	return k.rows, err
}

// take writes the events that the decoder has behind the others.
func (k *check) take(ev *schemas.Event, held *hold) error {
	rec := k.d.Record()
	defer rec.Release()
	err := k.write(ev, rec, func(i int) int { return k.waiting[i] }, held)
	k.waiting = k.waiting[:0]
	return err
}

// write writes the events of a record behind the others; row is the number of each in the body. The same events become
// the same lines, however they came.
func (k *check) write(ev *schemas.Event, rec arrow.Record, row func(i int) int, held *hold) error {
	for i := range int(rec.NumRows()) {
		k.line = appendEvent(k.line[:0], ev, rec, i)
		if len(k.line) > k.largest {
			k.refuse(row(i), "", tooLarge(len(k.line), k.largest))
			continue
		}
		if int64(len(k.rows)+len(k.line)) > k.most {
			return &TooLargeError{Limit: k.most, Unpacked: true}
		}
		if free := cap(k.rows) - len(k.rows); free < len(k.line) {
			more := min(max(len(k.line)-free, cap(k.rows)), int(k.most)-cap(k.rows))
			if err := held.grow(bodyCost * int64(more)); err != nil {
				return err
			}
			k.rows = append(make([]byte, 0, cap(k.rows)+more), k.rows...)
		}
		k.rows = append(k.rows, k.line...)
		k.result.Accepted++
	}
	return nil
}

// appendEvent appends an event of a record as one line of JSON, which decodes into the very same values.
func appendEvent(dst []byte, ev *schemas.Event, rec arrow.Record, row int) []byte {
	between := byte('{')
	for i, f := range ev.Fields {
		col := rec.Column(i)
		if col.IsNull(row) {
			continue
		}
		dst = append(dst, between, '"')
		dst = append(append(dst, f.Name...), '"', ':')
		dst = appendValue(dst, f.Type, col, row)
		between = ','
	}
	return append(dst, '}', '\n')
}

func appendValue(dst []byte, typ schemas.Type, col arrow.Array, row int) []byte {
	switch c := col.(type) {
	case *array.Dictionary:
		return appendValue(dst, typ, c.Dictionary(), c.GetValueIndex(row))
	case *array.String:
		return appendText(dst, c.Value(row))
	case *array.Boolean:
		return strconv.AppendBool(dst, c.Value(row))
	case *array.Int64:
		return strconv.AppendInt(dst, c.Value(row), 10)
	case *array.Timestamp:
		return strconv.AppendInt(dst, int64(c.Value(row)), 10)
	case *array.Float64:
		return strconv.AppendFloat(dst, c.Value(row), 'g', -1, 64)
	case *array.Decimal128:
		return append(dst, c.Value(row).ToString(int32(typ.Scale))...)
	case *array.Date32:
		return append(time.Unix(int64(c.Value(row))*86400, 0).UTC().AppendFormat(append(dst, '"'), time.DateOnly), '"')
	}
	panic("ingest: a field of type " + typ.String()) // no declared type has another array
}

// appendText appends valid UTF-8 as a JSON string.
func appendText(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
