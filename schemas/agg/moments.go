package agg

import (
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
)

// wideBytes is the type of integers of 256 bits in state records.
var wideBytes = &arrow.FixedSizeBinaryType{ByteWidth: 32}

// A moment is how many integers there are, their sum and the sum of their squares.
type moment struct {
	n       uint64
	sum     wideSum
	squares decimalSum
}

func (m *moment) add(x int64) {
	m.n++
	m.sum.add(uint64(x), uint64(x>>63))
	size := uint64(x)
	if x < 0 {
		size = -size
	}
	hi, lo := bits.Mul64(size, size)
	m.squares.add(decimalSum{lo, hi})
}

// moments are those of int64, and of the digits of decimals that have up to 18.
type moments struct {
	rows
	width int // bytes of a sum
	at    []moment
}

func (c *moments) Grow(groups int) { c.at = grown(c.at, groups) }
func (c *moments) Reset()          { c.at = c.at[:0] }
func (c *moments) Bytes() int64    { return 56*int64(cap(c.at)) + c.bytes() }

func (c *moments) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	if v.Kind == schemas.Decimal {
		for k, g := range groups {
			c.at[g].add(int64(v.Decimals[at(sel, k)].LowBits()))
		}
		return
	}
	for k, g := range groups {
		c.at[g].add(v.Ints[at(sel, k)])
	}
}

func (c *moments) Merge(groups []int32, other Column) {
	for k, from := range other.(*moments).at {
		m := &c.at[groups[k]]
		m.n += from.n
		m.sum.add(from.sum.lo, from.sum.hi)
		m.squares.add(from.squares)
	}
}

func (c *moments) States(order []int32) []arrow.Array {
	sums, squares := make([]uint64, 0, c.width/8*len(order)), make([]uint64, 0, 4*len(order))
	n, some := make([]uint64, len(order)), make([]bool, len(order))
	for i, g := range order {
		m := &c.at[g]
		sums = m.sum.append(sums, c.width)
		squares = append(squares, m.squares[:]...)
		n[i], some[i] = m.n, m.n > 0
	}
	return []arrow.Array{
		wideArray(c.width, sums, some)[0],
		column.Fixed(arrow.PrimitiveTypes.Uint64, len(n), arrow.GetBytes(n), nil),
		wideArray(32, squares, some)[0],
	}
}

// append appends the sum in so many bytes, the least word first.
func (s wideSum) append(words []uint64, width int) []uint64 {
	words = append(words, s.lo, s.hi)
	for range width/8 - 2 {
		words = append(words, uint64(int64(s.hi)>>63))
	}
	return words
}

// A floatMoment is that of float64.
type floatMoment struct {
	n            uint64
	sum, squares floatSum
}

type floatMoments struct {
	rows
	at []floatMoment
}

func (c *floatMoments) Grow(groups int) { c.at = grown(c.at, groups) }
func (c *floatMoments) Reset()          { c.at = c.at[:0] }
func (c *floatMoments) Bytes() int64    { return 56*int64(cap(c.at)) + c.bytes() }

func (c *floatMoments) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	for k, g := range groups {
		m, x := &c.at[g], v.Floats[at(sel, k)]
		m.n++
		m.sum.add(x)
		m.squares.add(x * x)
	}
}

func (c *floatMoments) Merge(groups []int32, other Column) {
	for k, from := range other.(*floatMoments).at {
		m := &c.at[groups[k]]
		m.n += from.n
		m.sum.merge(from.sum)
		m.squares.merge(from.squares)
	}
}

func (c *floatMoments) States(order []int32) []arrow.Array {
	sums, squares := make([]float64, len(order)), make([]float64, len(order))
	n, some := make([]uint64, len(order)), make([]bool, len(order))
	for i, g := range order {
		m := &c.at[g]
		sums[i], squares[i], n[i], some[i] = m.sum.value(), m.squares.value(), m.n, m.n > 0
	}
	return []arrow.Array{
		column.Fixed(arrow.PrimitiveTypes.Float64, len(n), arrow.GetBytes(sums), some),
		column.Fixed(arrow.PrimitiveTypes.Uint64, len(n), arrow.GetBytes(n), nil),
		column.Fixed(arrow.PrimitiveTypes.Float64, len(n), arrow.GetBytes(squares), some),
	}
}
