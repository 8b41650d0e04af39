package agg

import (
	"math"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// Tolerance, times Σ|x|, is how far two sums of the same float64 values may be apart, over whatever ways
// they came to be: added to states by folds, and states added up by ClickHouse.
//
// With u = 2⁻⁵³, a sum in which each value goes through at most h additions is within h·u·Σ|x| of the true
// one (to first order; Higham, Accuracy and Stability of Numerical Algorithms, 4.2). A fold is within 2u·Σ|x|
// whatever it adds up, as it keeps what additions lose. So h is 2 and the number of states that are added up
// one after the other, at most all of a group's; and two sums are less than 1e-9·Σ|x| apart while these are
// fewer than 1e-9/2u, four and a half million. A group would have that many if it was in every flush of
// the speed layer for five days and no batch ran. Where ClickHouse makes states of events itself, by a plain
// sum, h counts events; there the bound is the worst case, of which rounding that is not all to one side stays
// far below.
const Tolerance = 1e-9

// A floatSum is a sum that keeps what its additions lose.
type floatSum struct {
	sum  float64
	lost float64 // what rounding took from sum (Knuth's TwoSum, added up)
	abs  float64 // Σ|x|
}

func (s *floatSum) add(x float64) {
	t := s.sum + x
	z := t - s.sum
	s.lost += (s.sum - (t - z)) + (x - z)
	s.sum = t
	s.abs += math.Abs(x)
}

// merge adds the values of another sum.
func (s *floatSum) merge(from floatSum) {
	abs := s.abs + from.abs
	s.add(from.sum)
	s.lost += from.lost
	s.abs = abs
}

// value is the sum, rounded once. Where the sum has overflowed, what was lost is not a number.
func (s *floatSum) value() float64 {
	if v := s.sum + s.lost; !math.IsNaN(v) {
		return v
	}
	return s.sum
}

type floatSums struct {
	rows
	at   []floatSum
	some []bool
}

func (c *floatSums) Grow(groups int) { c.at, c.some = grown(c.at, groups), grown(c.some, groups) }
func (c *floatSums) Reset()          { c.at, c.some = c.at[:0], c.some[:0] }
func (c *floatSums) Bytes() int64    { return 24*int64(cap(c.at)) + int64(cap(c.some)) + c.bytes() }

func (c *floatSums) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	if sel == nil {
		for k, x := range v.Floats[:len(groups)] {
			c.at[groups[k]].add(x)
			c.some[groups[k]] = true
		}
		return
	}
	for k, row := range sel {
		c.at[groups[k]].add(v.Floats[row])
		c.some[groups[k]] = true
	}
}

func (c *floatSums) Merge(groups []int32, other Column) {
	o := other.(*floatSums)
	for k, g := range groups {
		c.at[g].merge(o.at[k])
		c.some[g] = c.some[g] || o.some[k]
	}
}

func (c *floatSums) States(order []int32) []arrow.Array {
	sums, abs := make([]float64, len(order)), make([]float64, len(order))
	for i, g := range order {
		sums[i], abs[i] = c.at[g].value(), c.at[g].abs
	}
	return []arrow.Array{
		column.Fixed(arrow.PrimitiveTypes.Float64, len(order), arrow.GetBytes(sums), gather(order, c.some)),
		column.Fixed(arrow.PrimitiveTypes.Float64, len(order), arrow.GetBytes(abs), nil),
	}
}
