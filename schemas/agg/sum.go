package agg

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/column"
)

// sum adds numbers: int64 in 128 bits and decimal(p,s) in 256, which cannot wrap in any
// number of rows that fit a disk; float64 in float64, which may overflow to infinity. The sum
// of nothing is null.
type sum struct{ arg schemas.Type }

func (sum) Name() string   { return "sum" }
func (sum) Version() int   { return 1 }
func (sum) Additive() bool { return false }

// wideType is the type of the sum, without Nullable.
func (f sum) wideType() string {
	switch f.arg.Kind {
	case schemas.Int64:
		return "Int128"
	case schemas.Decimal:
		return fmt.Sprintf("Decimal(76, %d)", f.arg.Scale)
	}
	return "Float64"
}

func (f sum) Columns(name string) []StateColumn {
	col := StateColumn{Name: name, ClickHouse: "SimpleAggregateFunction(sum, " + f.ResultType() + ")", Nullable: true}
	switch f.arg.Kind {
	case schemas.Int64:
		col.Arrow = &arrow.FixedSizeBinaryType{ByteWidth: 16}
	case schemas.Decimal:
		col.Arrow = &arrow.FixedSizeBinaryType{ByteWidth: 32}
	default:
		col.Arrow = arrow.PrimitiveTypes.Float64
	}
	return []StateColumn{col}
}

func (f sum) StateSQL(arg string, nullable bool) []string { return []string{f.RawSQL(arg, nullable)} }
func (sum) MergeSQL(cols []string) []string               { return []string{"sum(" + cols[0] + ")"} }
func (sum) FinishSQL(cols []string) string                { return "sum(" + cols[0] + ")" }
func (f sum) RawSQL(arg string, _ bool) string            { return "sum(" + wide(arg, f.wideType()) + ")" }
func (f sum) ResultType() string                          { return "Nullable(" + f.wideType() + ")" }

func (f sum) New() Column {
	switch f.arg.Kind {
	case schemas.Int64:
		return &intSums{}
	case schemas.Decimal:
		return &decimalSums{}
	}
	return &floatSums{}
}

// An intSum is a 128-bit two's complement integer and whether there was any value.
type intSum struct {
	lo, hi uint64
	any    bool
}

type intSums struct {
	rows
	at []intSum
}

func (c *intSums) Grow(groups int) { c.at = grown(c.at, groups) }
func (c *intSums) Reset()          { c.at = c.at[:0] }
func (c *intSums) Bytes() int64    { return 24*int64(cap(c.at)) + c.bytes() }

func (c *intSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	ints, at := v.Ints, c.at
	for k, row := range sel {
		x, s := ints[row], &at[groups[k]]
		var carry uint64
		s.lo, carry = bits.Add64(s.lo, uint64(x), 0)
		s.hi += uint64(x>>63) + carry
		s.any = true
	}
}

func (c *intSums) Append(order []int32, to []array.Builder) {
	out := to[0].(*array.FixedSizeBinaryBuilder)
	out.Reserve(len(order))
	var b [16]byte
	for _, g := range order {
		s := &c.at[g]
		if !s.any {
			out.AppendNull()
			continue
		}
		binary.LittleEndian.PutUint64(b[:], s.lo)
		binary.LittleEndian.PutUint64(b[8:], s.hi)
		out.Append(b[:])
	}
}

// A decimalSum is a 256-bit two's complement integer, least word first.
type decimalSum struct {
	word [4]uint64
	any  bool
}

type decimalSums struct {
	rows
	at []decimalSum
}

func (c *decimalSums) Grow(groups int) { c.at = grown(c.at, groups) }
func (c *decimalSums) Reset()          { c.at = c.at[:0] }
func (c *decimalSums) Bytes() int64    { return 40*int64(cap(c.at)) + c.bytes() }

func (c *decimalSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	for k, row := range sel {
		x, s := v.Decimals[row], &c.at[groups[k]]
		sign := uint64(x.HighBits() >> 63)
		var carry uint64
		s.word[0], carry = bits.Add64(s.word[0], x.LowBits(), 0)
		s.word[1], carry = bits.Add64(s.word[1], uint64(x.HighBits()), carry)
		s.word[2], carry = bits.Add64(s.word[2], sign, carry)
		s.word[3] += sign + carry
		s.any = true
	}
}

func (c *decimalSums) Append(order []int32, to []array.Builder) {
	out := to[0].(*array.FixedSizeBinaryBuilder)
	out.Reserve(len(order))
	var b [32]byte
	for _, g := range order {
		s := &c.at[g]
		if !s.any {
			out.AppendNull()
			continue
		}
		for i, w := range s.word {
			binary.LittleEndian.PutUint64(b[8*i:], w)
		}
		out.Append(b[:])
	}
}

type floatSum struct {
	sum float64
	any bool
}

type floatSums struct {
	rows
	at []floatSum
}

func (c *floatSums) Grow(groups int) { c.at = grown(c.at, groups) }
func (c *floatSums) Reset()          { c.at = c.at[:0] }
func (c *floatSums) Bytes() int64    { return 16*int64(cap(c.at)) + c.bytes() }

func (c *floatSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	floats, at := v.Floats, c.at
	for k, row := range sel {
		s := &at[groups[k]]
		s.sum += floats[row]
		s.any = true
	}
}

func (c *floatSums) Append(order []int32, to []array.Builder) {
	out := to[0].(*array.Float64Builder)
	out.Reserve(len(order))
	for _, g := range order {
		if s := &c.at[g]; s.any {
			out.UnsafeAppend(s.sum)
		} else {
			out.UnsafeAppendBoolToBitmap(false)
		}
	}
}
