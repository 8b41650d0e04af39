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
//
// A sum of float64 depends on the order of its additions, by how much the sum itself does not tell: where
// values cancel, what is left may be all rounding. So its state has Σ|x| beside it, in a column that no
// finished value shows: in whatever order and grouping, the sum is within Tolerance·Σ|x| of the true one's.
type sum struct {
	same
	arg schemas.Type
}

func (sum) Name() string { return "sum" }
func (f sum) Version() int {
	if f.arg.Kind == schemas.Float64 {
		return 2 // has magnitudes
	}
	return 1
}
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
	return append([]StateColumn{col}, f.magnitudes(name)...)
}

// magnitudes is the column of Σ|x|, of float64 alone.
func (f sum) magnitudes(name string) []StateColumn {
	if f.arg.Kind != schemas.Float64 {
		return nil
	}
	return []StateColumn{{name + "__abs", "SimpleAggregateFunction(sum, Float64)", arrow.PrimitiveTypes.Float64, false}}
}

func (f sum) StateSQL(arg string, nullable bool) []string {
	return append([]string{f.RawSQL(arg, nullable)}, f.magnitudesSQL(arg)...)
}

func (f sum) magnitudesSQL(arg string) []string {
	if f.arg.Kind != schemas.Float64 {
		return nil
	}
	return []string{"ifNull(sum(abs(" + wide(arg, "Float64") + ")), 0.)"}
}

func (sum) MergeSQL(cols []string) []string { return merged(cols) }

// merged adds up columns.
func merged(cols []string) []string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = "sum(" + c + ")"
	}
	return out
}

func (f sum) MagnitudesSQL(cols []string) string { return magnitudesOf(f, cols) }

// magnitudesOf is Σ|x| over stored states, whose last column it is; empty if they have none.
func magnitudesOf(f sum, cols []string) string {
	if f.arg.Kind != schemas.Float64 {
		return ""
	}
	return "sum(" + cols[len(cols)-1] + ")"
}

func (sum) FinishSQL(cols []string) string     { return "sum(" + cols[0] + ")" }
func (f sum) RawSQL(arg string, _ bool) string { return "sum(" + wide(arg, f.wideType()) + ")" }
func (f sum) ResultType() string               { return "Nullable(" + f.wideType() + ")" }

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

// wideArray is the array of integers of so many bytes, least word first; some says which are values, nil: all.
func wideArray(width int, words []uint64, some []bool) []arrow.Array {
	return []arrow.Array{column.Fixed(&arrow.FixedSizeBinaryType{ByteWidth: width}, len(words)/(width/8), arrow.GetBytes(words), some)}
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
