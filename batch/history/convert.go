package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

// Instants and dates that history takes: 1900-01-01 up to and including 2299-12-31, as the log does.
const (
	minDay = -25567
	maxDay = 120529
	minUS  = minDay * 86_400_000_000
	maxUS  = (maxDay+1)*86_400_000_000 - 1
)

// check tells whether a column's type can hold the field's values.
func (c *sourceColumn) check() error {
	if c.leaf.MaxRepetitionLevel != 0 || c.leaf.MaxDefinitionLevel > 1 {
		return errors.New("is nested")
	}
	ok := false
	switch kind := c.typ.Kind(); c.field.Type.Kind {
	case schemas.String:
		ok = kind == parquet.ByteArray
	case schemas.Bool:
		ok = kind == parquet.Boolean
	case schemas.Int64:
		ok = (kind == parquet.Int32 || kind == parquet.Int64) && plainInteger(c.typ)
	case schemas.Float64:
		ok = kind == parquet.Double || kind == parquet.Float || kind == parquet.Int32 && plainInteger(c.typ)
	case schemas.Timestamp:
		_, _, ok = timeUnit(c.typ)
	case schemas.Date:
		ok = kind == parquet.Int32 && isDate(c.typ)
	case schemas.Decimal:
		scale, decimal := decimalScale(c.typ)
		ok = decimal && scale <= c.field.Type.Scale && (kind == parquet.Int32 || kind == parquet.Int64 ||
			kind == parquet.FixedLenByteArray && c.typ.Length() <= 16)
	}
	if !ok {
		return fmt.Errorf("is %s, which does not fit the field %s %s", c.typ, c.field.Name, c.field.Type)
	}
	return nil
}

// plainInteger tells an integer from what is only stored as one.
func plainInteger(t parquet.Type) bool {
	if l := t.LogicalType(); l != nil && l.Value != nil {
		_, ok := l.Value.(*format.IntType)
		return ok
	}
	return true
}

func unsigned(t parquet.Type) bool {
	if l := t.LogicalType(); l != nil {
		i, ok := l.Value.(*format.IntType)
		return ok && !i.IsSigned
	}
	return false
}

// timeUnit is by what an instant is multiplied and divided to give microseconds.
func timeUnit(t parquet.Type) (mul, div int64, ok bool) {
	if t.Kind() != parquet.Int64 {
		return 0, 0, false
	}
	if l := t.LogicalType(); l != nil {
		if ts, isTime := l.Value.(*format.TimestampType); isTime {
			switch ts.Unit.Value.(type) {
			case *format.MilliSeconds:
				return 1000, 1, true
			case *format.MicroSeconds:
				return 1, 1, true
			case *format.NanoSeconds:
				return 1, 1000, true
			}
		}
	}
	if c := t.ConvertedType(); c != nil {
		switch *c {
		case deprecated.TimestampMillis:
			return 1000, 1, true
		case deprecated.TimestampMicros:
			return 1, 1, true
		}
	}
	return 0, 0, false
}

func isDate(t parquet.Type) bool {
	if l := t.LogicalType(); l != nil {
		if _, ok := l.Value.(*format.DateType); ok {
			return true
		}
	}
	c := t.ConvertedType()
	return c != nil && *c == deprecated.Date
}

func decimalScale(t parquet.Type) (int, bool) {
	if l := t.LogicalType(); l != nil {
		if d, ok := l.Value.(*format.DecimalType); ok {
			return int(d.Scale), true
		}
	}
	return 0, t.Kind() != parquet.FixedLenByteArray && plainInteger(t) && !unsigned(t)
}

// A valueError says which of a page's values does not fit.
type valueError struct {
	at  int // among the values that are there
	err error
}

func (e *valueError) Error() string { return e.err.Error() }

// convert makes a page of foreign values one of ours. Its errors name the row.
func (c *sourceColumn) convert(p *page) error {
	if p.levels != nil && !c.field.Optional {
		row := c.loaded
		for _, l := range p.levels {
			if l == 0 {
				break
			}
			row++
		}
		return fmt.Errorf("row %d: null, but the field %s is not optional", row, c.field.Name)
	}
	v := &p.values
	if p.dict != nil && c.typ.Kind() == parquet.ByteArray {
		if c.dict != p.dict {
			c.dict, c.conv = p.dict, p.dict
			if err := c.values(c.conv); err != nil {
				return fmt.Errorf("behind row %d: %w", c.loaded, err)
			}
		}
		return nil
	}
	if p.dict != nil {
		*v = gather(p.dict, p.codes, c.typ.Length())
		p.dict, p.codes = nil, nil
	}
	err := c.values(v)
	var bad *valueError
	if errors.As(err, &bad) {
		row := c.loaded
		for _, l := range p.levels { // find the row of that value
			if l == 1 {
				if bad.at == 0 {
					break
				}
				bad.at--
			}
			row++
		}
		return fmt.Errorf("row %d: %w", row+int64(bad.at), bad.err)
	}
	return err
}

// gather looks values up in a dictionary, for types that we do not keep as one.
func gather(dict *values, codes []int32, width int) values {
	v := values{n: len(codes)}
	v.int32s = pick(dict.int32s, codes)
	v.int64s = pick(dict.int64s, codes)
	v.floats = pick(dict.floats, codes)
	v.doubles = pick(dict.doubles, codes)
	if dict.data != nil {
		for _, k := range codes {
			v.data = append(v.data, dict.data[int(k)*width:(int(k)+1)*width]...)
		}
	}
	return v
}

func pick[T any](from []T, codes []int32) []T {
	if from == nil {
		return nil
	}
	out := make([]T, len(codes))
	for i, k := range codes {
		out[i] = from[k]
	}
	return out
}

// values converts values in place into the form in which history stores the field's type.
func (c *sourceColumn) values(v *values) error {
	switch c.field.Type.Kind {
	case schemas.String:
		return checkText(v)
	case schemas.Int64:
		return widen(v, unsigned(c.typ))
	case schemas.Float64:
		return toDoubles(v)
	case schemas.Timestamp:
		mul, div, _ := timeUnit(c.typ)
		return toMicros(v.int64s, mul, div)
	case schemas.Date:
		for i, d := range v.int32s {
			if d < minDay || d > maxDay {
				return &valueError{i, fmt.Errorf("day %d lies outside of 1900 to 2299", d)}
			}
		}
	case schemas.Decimal:
		return c.toDecimals(v)
	}
	return nil
}

func checkText(v *values) error {
	for i := range v.n {
		if !utf8.Valid(v.data[v.offsets[i]:v.offsets[i+1]]) {
			return &valueError{i, errors.New("is not valid UTF-8")}
		}
	}
	return nil
}

func widen(v *values, unsigned bool) error {
	if v.int64s == nil {
		v.int64s = make([]int64, len(v.int32s))
		for i, x := range v.int32s {
			v.int64s[i] = int64(x)
			if unsigned {
				v.int64s[i] = int64(uint32(x))
			}
		}
		v.int32s = nil
		return nil
	}
	if unsigned {
		for i, x := range v.int64s {
			if x < 0 {
				return &valueError{i, fmt.Errorf("%d does not fit 64 bits with a sign", uint64(x))}
			}
		}
	}
	return nil
}

func toDoubles(v *values) error {
	for _, x := range v.floats {
		v.doubles = append(v.doubles, float64(x))
	}
	for _, x := range v.int32s {
		v.doubles = append(v.doubles, float64(x))
	}
	v.floats, v.int32s = nil, nil
	for i, x := range v.doubles {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return &valueError{i, fmt.Errorf("is %v", x)}
		}
		v.doubles[i] = x + 0 // makes -0 0
	}
	return nil
}

func toMicros(v []int64, mul, div int64) error {
	for i, x := range v {
		us := floorDiv(x, div)
		if us < minUS/mul-1 || us > maxUS/mul || us*mul < minUS {
			return &valueError{i, errors.New("the instant lies outside of 1900 to 2299")}
		}
		v[i] = us * mul
	}
	return nil
}

// toDecimals brings decimals to the field's scale and storage.
func (c *sourceColumn) toDecimals(v *values) error {
	t := c.field.Type
	scale, _ := decimalScale(c.typ)
	factor := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale-scale)), nil)
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Precision)), nil)
	out := values{n: v.n}
	for i := range v.n {
		x := v.decimal(i, c.typ)
		x.Mul(x, factor)
		if x.CmpAbs(limit) >= 0 {
			return &valueError{i, fmt.Errorf("has more digits than %s", t)}
		}
		if t.Precision <= 18 {
			out.int64s = append(out.int64s, x.Int64())
			continue
		}
		n := decimal128.FromBigInt(x)
		out.data = binary.BigEndian.AppendUint64(out.data, uint64(n.HighBits()))
		out.data = binary.BigEndian.AppendUint64(out.data, n.LowBits())
	}
	*v = out
	return nil
}

func (v *values) decimal(i int, t parquet.Type) *big.Int {
	switch {
	case v.int64s != nil:
		return big.NewInt(v.int64s[i])
	case v.int32s != nil:
		return big.NewInt(int64(v.int32s[i]))
	}
	b := v.data[i*t.Length() : (i+1)*t.Length()]
	x := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		x.Sub(x, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return x
}

func appendRowID(b []byte, name string, row int64) []byte {
	b = append(b, name...)
	b = append(b, '#')
	return strconv.AppendInt(b, row, 10)
}
