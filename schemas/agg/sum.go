package agg

import (
	"fmt"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
)

// sum adds numbers: int64 in 128 bits and decimal(p,s) in 256, which cannot wrap in any
// number of rows that fit a disk; float64 in float64, which may overflow to infinity. The sum
// of nothing is null.
type sum struct {
	same
	arg schemas.Type
}

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
	switch {
	case f.arg.Kind == schemas.Int64:
		return &wideSums{width: 16}
	case f.arg.Kind == schemas.Decimal && f.arg.Precision <= 18:
		return &wideSums{width: 32}
	case f.arg.Kind == schemas.Decimal:
		return &decimalSums{}
	}
	return &floatSums{}
}

// A wideSum is a 128-bit two's complement integer. That many rows of int64, or of decimals of
// up to 18 digits, there are not.
type wideSum struct{ lo, hi uint64 }

func (s *wideSum) add(lo, hi uint64) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi += hi + carry
}

type wideSums struct {
	rows
	width int // bytes of a state
	at    []wideSum
	some  []bool // whether there was any value
}

func (c *wideSums) Grow(groups int) { c.at, c.some = grown(c.at, groups), grown(c.some, groups) }
func (c *wideSums) Reset()          { c.at, c.some = c.at[:0], c.some[:0] }
func (c *wideSums) Bytes() int64    { return 16*int64(cap(c.at)) + int64(cap(c.some)) + c.bytes() }

func (c *wideSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	switch {
	case v.Kind == schemas.Decimal && sel == nil:
		for k, x := range v.Decimals[:len(groups)] {
			g := groups[k]
			c.at[g].add(x.LowBits(), uint64(x.HighBits()))
			c.some[g] = true
		}
	case v.Kind == schemas.Decimal:
		for k, row := range sel {
			x, g := v.Decimals[row], groups[k]
			c.at[g].add(x.LowBits(), uint64(x.HighBits()))
			c.some[g] = true
		}
	default:
		for k, g := range groups {
			x := v.Ints[at(sel, k)]
			c.at[g].add(uint64(x), uint64(x>>63))
			c.some[g] = true
		}
	}
}

func (c *wideSums) Merge(groups []int32, other Column) {
	o := other.(*wideSums)
	for k, g := range groups {
		c.at[g].add(o.at[k].lo, o.at[k].hi)
		c.some[g] = c.some[g] || o.some[k]
	}
}

func (c *wideSums) States(order []int32) []arrow.Array {
	words := c.width / 8
	out := make([]uint64, words*len(order))
	for i, g := range order {
		s, to := c.at[g], out[words*i:words*i+words]
		to[0], to[1] = s.lo, s.hi
		for k := 2; k < len(to); k++ {
			to[k] = uint64(int64(s.hi) >> 63)
		}
	}
	return wideArray(c.width, out, gather(order, c.some))
}

// wideArray is the array of integers of so many bytes, least word first.
func wideArray(width int, words []uint64, some []bool) []arrow.Array {
	return []arrow.Array{column.Fixed(&arrow.FixedSizeBinaryType{ByteWidth: width}, len(some), arrow.GetBytes(words), some)}
}

// A decimalSum is a 256-bit two's complement integer, least word first.
type decimalSum [4]uint64

func (s *decimalSum) add(x decimalSum) {
	var carry uint64
	s[0], carry = bits.Add64(s[0], x[0], 0)
	s[1], carry = bits.Add64(s[1], x[1], carry)
	s[2], carry = bits.Add64(s[2], x[2], carry)
	s[3] += x[3] + carry
}

type decimalSums struct {
	rows
	at   []decimalSum
	some []bool
}

func (c *decimalSums) Grow(groups int) { c.at, c.some = grown(c.at, groups), grown(c.some, groups) }
func (c *decimalSums) Reset()          { c.at, c.some = c.at[:0], c.some[:0] }
func (c *decimalSums) Bytes() int64    { return 32*int64(cap(c.at)) + int64(cap(c.some)) + c.bytes() }

func (c *decimalSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	for k, g := range groups {
		x := v.Decimals[at(sel, k)]
		sign := uint64(x.HighBits() >> 63)
		c.at[g].add(decimalSum{x.LowBits(), uint64(x.HighBits()), sign, sign})
		c.some[g] = true
	}
}

func (c *decimalSums) Merge(groups []int32, other Column) {
	o := other.(*decimalSums)
	for k, g := range groups {
		c.at[g].add(o.at[k])
		c.some[g] = c.some[g] || o.some[k]
	}
}

func (c *decimalSums) States(order []int32) []arrow.Array {
	out := make([]uint64, 0, 4*len(order))
	for _, g := range order {
		out = append(out, c.at[g][:]...)
	}
	return wideArray(32, out, gather(order, c.some))
}

type floatSums struct {
	rows
	at   []float64
	some []bool
}

func (c *floatSums) Grow(groups int) { c.at, c.some = grown(c.at, groups), grown(c.some, groups) }
func (c *floatSums) Reset()          { c.at, c.some = c.at[:0], c.some[:0] }
func (c *floatSums) Bytes() int64    { return 8*int64(cap(c.at)) + int64(cap(c.some)) + c.bytes() }

func (c *floatSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	if sel == nil {
		for k, x := range v.Floats[:len(groups)] {
			c.at[groups[k]] += x
			c.some[groups[k]] = true
		}
		return
	}
	for k, row := range sel {
		c.at[groups[k]] += v.Floats[row]
		c.some[groups[k]] = true
	}
}

func (c *floatSums) Merge(groups []int32, other Column) {
	o := other.(*floatSums)
	for k, g := range groups {
		c.at[g] += o.at[k]
		c.some[g] = c.some[g] || o.some[k]
	}
}

func (c *floatSums) States(order []int32) []arrow.Array {
	return []arrow.Array{column.Fixed(arrow.PrimitiveTypes.Float64, len(order), arrow.GetBytes(gather(order, c.at)), gather(order, c.some))}
}
