package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/parquet-go/parquet-go"
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

// at is the record's row of the span's i-th.
func (s span) at(i int) int {
	if s.rows != nil {
		return int(s.rows[i])
	}
	return s.from + i
}

// write appends the span's values of an array to the column, and takes them into its statistics.
func (c *columnWriter) write(arr arrow.Array, s span) error {
	n := s.len()
	if cap(c.values) < n {
		c.values = make([]parquet.Value, pageRows)
	}
	vals := c.values[:n]
	if err := c.mask(arr, s); err != nil {
		return err
	}
	switch a := arr.(type) {
	case *array.Int64:
		fillInts(c, vals, s, a.Int64Values())
	case *array.Timestamp:
		fillInts(c, vals, s, a.TimestampValues())
	case *array.Int32:
		fillInt32s(c, vals, s, a.Int32Values())
	case *array.Date32:
		fillInt32s(c, vals, s, a.Date32Values())
	case *array.Float64:
		c.fillFloats(vals, s, a.Float64Values())
	case *array.Boolean:
		for i := range vals {
			vals[i] = parquet.BooleanValue(a.Value(s.at(i)))
		}
	case *array.Decimal128:
		c.fillDecimals(vals, s, a)
	case *array.String:
		c.fillStrings(vals, s, a)
	case *array.Dictionary:
		if err := c.fillDictionary(vals, s, a); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s: %w", arr.DataType(), errColumnType)
	}
	if c.optional {
		for i := range vals {
			if c.null(i) {
				vals[i] = parquet.Value{}.Level(0, 0, c.index)
			} else {
				vals[i] = vals[i].Level(0, 1, c.index)
			}
		}
	}
	_, err := c.out.WriteRowValues(vals)
	return err
}

// mask notes which values of the span are null.
func (c *columnWriter) mask(arr arrow.Array, s span) error {
	c.nulls = c.nulls[:0]
	if arr.NullN() == 0 {
		return nil
	}
	for i := range s.len() {
		null := arr.IsNull(s.at(i))
		c.nulls = append(c.nulls, null)
		if null {
			c.stats.nulls++
		}
	}
	if c.stats.nulls > 0 && !c.optional {
		return errors.New("null in a field that is not optional")
	}
	return nil
}

func (c *columnWriter) null(i int) bool { return len(c.nulls) > 0 && c.nulls[i] }

func fillInts[T ~int64](c *columnWriter, vals []parquet.Value, s span, from []T) {
	lo, hi, any := c.stats.minInt, c.stats.maxInt, c.stats.any
	for i := range vals {
		v := int64(from[s.at(i)])
		vals[i] = parquet.Int64Value(v)
		if c.null(i) {
			continue
		}
		if !any {
			lo, hi, any = v, v, true
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	c.stats.minInt, c.stats.maxInt, c.stats.any = lo, hi, any
}

func fillInt32s[T ~int32](c *columnWriter, vals []parquet.Value, s span, from []T) {
	for i := range vals {
		v := int32(from[s.at(i)])
		vals[i] = parquet.Int32Value(v)
		if !c.null(i) {
			c.stats.int(int64(v))
		}
	}
}

func (c *columnWriter) fillFloats(vals []parquet.Value, s span, from []float64) {
	for i := range vals {
		v := from[s.at(i)]
		vals[i] = parquet.DoubleValue(v)
		if !c.null(i) {
			c.stats.float(v)
		}
	}
}

func (c *columnWriter) fillDecimals(vals []parquet.Value, s span, a *array.Decimal128) {
	narrow := c.typ.Precision <= 18
	if c.fixed == nil && !narrow {
		c.fixed = make([]byte, 16*pageRows)
	}
	for i := range vals {
		v := a.Value(s.at(i))
		if narrow {
			vals[i] = parquet.Int64Value(int64(v.LowBits()))
		} else {
			b := c.fixed[16*i : 16*i+16 : 16*i+16]
			binary.BigEndian.PutUint64(b, uint64(v.HighBits()))
			binary.BigEndian.PutUint64(b[8:], v.LowBits())
			vals[i] = parquet.FixedLenByteArrayValue(b)
		}
		if !c.null(i) {
			c.stats.decimal(v)
		}
	}
}

func (c *columnWriter) fillStrings(vals []parquet.Value, s span, a *array.String) {
	for i := range vals {
		v := a.Value(s.at(i))
		vals[i] = stringValue(v)
		if !c.null(i) {
			c.stats.text(v)
		}
	}
}

// fillDictionary makes each entry's value once, and counts it once into the statistics.
func (c *columnWriter) fillDictionary(vals []parquet.Value, s span, a *array.Dictionary) error {
	codes, ok := a.Indices().(*array.Int32)
	data, _ := a.Data().Dictionary().(*array.Data)
	if !ok || data == nil || data.DataType().ID() != arrow.STRING {
		return fmt.Errorf("%s: %w", a.DataType(), errColumnType)
	}
	// (Not a.Dictionary(): it is made on the first call, and other writers may hold the same record.)
	if c.dict != data {
		c.dict, c.strings = data, array.NewStringData(data)
		c.entries = make([]parquet.Value, c.strings.Len())
		c.seen = make([]bool, c.strings.Len())
		for k := range c.entries {
			c.entries[k] = stringValue(c.strings.Value(k))
		}
	}
	at := codes.Int32Values()
	for i := range vals {
		if c.null(i) {
			continue
		}
		k := at[s.at(i)]
		vals[i] = c.entries[k]
		if !c.seen[k] {
			c.seen[k] = true
			c.stats.text(c.strings.Value(int(k)))
		}
	}
	return nil
}

// stringValue shares the string's memory: the column writer copies it before write returns.
func stringValue(s string) parquet.Value {
	return parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}
