package history

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/parquet-go/parquet-go/format"
)

var errColumnType = errors.New("this Arrow type does not fit the field")

// A span selects rows of a record: those listed, or from..to.
type span struct {
	rows     []int32
	from, to int
}

func (s span) len() int {
	if s.rows != nil {
		return len(s.rows)
	}
	return s.to - s.from
}

// part is the span's rows from..to-1.
func (s span) part(from, to int) span {
	if s.rows != nil {
		return span{rows: s.rows[from:to]}
	}
	return span{from: s.from + from, to: s.from + to}
}

// at is the record's row of the span's i-th.
func (s span) at(i int) int {
	if s.rows != nil {
		return int(s.rows[i])
	}
	return s.from + i
}

// write appends the span's values of an array to the column, and takes them into its statistics. Pages of strings may end
// within it.
func (c *columnWriter) write(arr arrow.Array, s span) error {
	var length func(row int) int
	switch a := arr.(type) {
	case *array.String:
		length = a.ValueLen
	case *array.Dictionary:
		at, err := c.openSource(a)
		if err != nil {
			return err
		}
		length = func(row int) int {
			if a.IsNull(row) { // what its code says means nothing
				return 0
			}
			return c.source.strings.ValueLen(int(at[row]))
		}
	default:
		return c.take(arr, s)
	}
	for s.len() > 0 {
		n := c.room(s, length)
		if n == 0 { // the text that comes is none for a dictionary
			if err := c.flush(); err != nil {
				return err
			}
			c.dictFull = true
			continue
		}
		if err := c.take(arr, s.part(0, n)); err != nil {
			return err
		}
		s = s.part(n, s.len())
		if err := c.endLongPage(); err != nil {
			return err
		}
	}
	return nil
}

// room is how many of the span's rows, of texts that long, fit into the page: at least one, but for texts that the dictionary
// does not take.
func (c *columnWriter) room(s span, length func(row int) int) int {
	coded := c.dict != nil && !c.dictFull
	size := len(c.page.data)
	for i := range s.len() {
		n := length(s.at(i))
		if coded && n > maxDictText {
			return i
		}
		if size += n; size >= pageBytes {
			return i + 1
		}
	}
	return s.len()
}

// endLongPage ends a page of long strings, and one whose dictionary has become too large.
func (c *columnWriter) endLongPage() error {
	if len(c.page.data) >= pageBytes || c.dict != nil && !c.dictFull && c.dict.bytes() > maxDictBytes {
		return c.flush()
	}
	return nil
}

// take appends to the page at hand.
func (c *columnWriter) take(arr arrow.Array, s span) error {
	p := &c.page
	p.rows += s.len()
	s, err := c.withoutNulls(arr, s)
	if err != nil {
		return err
	}
	switch a := arr.(type) {
	case *array.Int64:
		takeInts(c, s, a.Int64Values())
	case *array.Timestamp:
		takeInts(c, s, a.TimestampValues())
	case *array.Int32:
		takeInt32s(c, s, a.Int32Values())
	case *array.Date32:
		takeInt32s(c, s, a.Date32Values())
	case *array.Float64:
		at := len(p.doubles)
		p.doubles = take(p.doubles, s, a.Float64Values())
		for _, v := range p.doubles[at:] {
			p.stats.float(v)
		}
	case *array.Boolean:
		for i := range s.len() {
			v := byte(0)
			if a.Value(s.at(i)) {
				v = 1
			}
			p.bits = append(p.bits, v)
			p.stats.int(int64(v))
		}
	case *array.Decimal128:
		c.takeDecimals(s, a)
	case *array.String:
		c.takeStrings(s, a)
	case *array.Dictionary:
		return c.takeCodes(s, a)
	default:
		return fmt.Errorf("%s: %w", arr.DataType(), errColumnType)
	}
	return nil
}

// withoutNulls notes which of the span's values are null, and returns the others.
func (c *columnWriter) withoutNulls(arr arrow.Array, s span) (span, error) {
	p := &c.page
	if arr.NullN() == 0 {
		if c.optional {
			for range s.len() {
				p.levels = append(p.levels, 1)
			}
		}
		return s, nil
	}
	validity, offset := arr.NullBitmapBytes(), arr.Data().Offset()
	c.present = c.present[:0]
	for i := range s.len() {
		at := s.at(i)
		if bitutil.BitIsSet(validity, offset+at) {
			c.present = append(c.present, int32(at))
			p.levels = append(p.levels, 1)
		} else {
			p.levels = append(p.levels, 0)
		}
	}
	nulls := s.len() - len(c.present)
	if p.stats.nulls += int64(nulls); nulls > 0 && !c.optional {
		return s, errNull
	}
	if nulls == 0 {
		return s, nil
	}
	return span{rows: c.present[:len(c.present):len(c.present)]}, nil
}

// take appends the span's values.
func take[T any](to []T, s span, from []T) []T {
	if s.rows == nil {
		return append(to, from[s.from:s.to]...)
	}
	for _, r := range s.rows {
		to = append(to, from[r])
	}
	return to
}

func takeInts[T ~int64](c *columnWriter, s span, from []T) {
	p := &c.page
	at := len(p.int64s)
	if s.rows == nil {
		for _, v := range from[s.from:s.to] {
			p.int64s = append(p.int64s, int64(v))
		}
	} else {
		for _, r := range s.rows {
			p.int64s = append(p.int64s, int64(from[r]))
		}
	}
	p.stats.ints(p.int64s[at:])
}

func takeInt32s[T ~int32](c *columnWriter, s span, from []T) {
	p := &c.page
	for i := range s.len() {
		v := int32(from[s.at(i)])
		p.int32s = append(p.int32s, v)
		p.stats.int(int64(v))
	}
}

func (c *columnWriter) takeDecimals(s span, a *array.Decimal128) {
	p, values := &c.page, a.Values()
	for i := range s.len() {
		v := values[s.at(i)]
		if c.physical == format.Int64 {
			p.int64s = append(p.int64s, int64(v.LowBits()))
		} else {
			p.fixed = binary.BigEndian.AppendUint64(p.fixed, uint64(v.HighBits()))
			p.fixed = binary.BigEndian.AppendUint64(p.fixed, v.LowBits())
		}
		p.stats.decimal(v)
	}
}

func (c *columnWriter) takeStrings(s span, a *array.String) {
	if c.dict != nil && !c.dictFull {
		for i := range s.len() {
			c.text(a.Value(s.at(i)))
		}
		return
	}
	if s.len() == 0 {
		return
	}
	p, lo := &c.page, a.Value(s.at(0))
	hi := lo
	for i := range s.len() {
		v := a.Value(s.at(i))
		p.data = append(p.data, v...)
		p.ends = append(p.ends, uint32(len(p.data)))
		if v > hi {
			hi = v
		} else if v < lo {
			lo = v
		}
	}
	p.stats.text(lo)
	p.stats.text(hi)
}

// text appends a string.
func (c *columnWriter) text(v string) {
	p := &c.page
	if c.dict == nil || c.dictFull {
		p.data = append(p.data, v...)
		p.ends = append(p.ends, uint32(len(p.data)))
		p.stats.text(v)
		return
	}
	code := c.dict.text(v)
	p.codes = append(p.codes, code)
	c.see(code, v)
}

// see takes an entry into the page's statistics, once.
func (c *columnWriter) see(code int32, v string) {
	if page := int32(len(c.chunk.places)) + 1; c.dict.seen[code] != page {
		c.dict.seen[code] = page
		c.page.stats.text(v)
	}
}

// openSource returns the codes of an array, and keeps the texts that they stand for as the column's source.
func (c *columnWriter) openSource(a *array.Dictionary) ([]int32, error) {
	indices, ok := a.Indices().(*array.Int32)
	data, _ := a.Data().Dictionary().(*array.Data)
	if !ok || data == nil || data.DataType().ID() != arrow.STRING {
		return nil, fmt.Errorf("%s: %w", a.DataType(), errColumnType)
	}
	// (Not a.Dictionary(): it is made on the first call, and other writers may hold the same record.)
	if from := &c.source; from.data != data {
		from.data, from.strings, from.codes = data, array.NewStringData(data), from.codes[:0]
		for range from.strings.Len() {
			from.codes = append(from.codes, -1)
		}
	}
	return indices.Int32Values(), nil
}

// takeCodes numbers each entry of a dictionary once.
func (c *columnWriter) takeCodes(s span, a *array.Dictionary) error {
	at, err := c.openSource(a)
	if err != nil {
		return err
	}
	from := &c.source
	if c.dict == nil || c.dictFull {
		for i := range s.len() {
			c.text(from.strings.Value(int(at[s.at(i)])))
		}
		return nil
	}
	for i := range s.len() {
		k := at[s.at(i)]
		code := from.codes[k]
		if code < 0 {
			code = c.dict.text(from.strings.Value(int(k)))
			from.codes[k] = code
		}
		if c.dict.seen[code] != int32(len(c.chunk.places))+1 {
			c.see(code, from.strings.Value(int(k)))
		}
		c.page.codes = append(c.page.codes, code)
	}
	return nil
}
