package agg

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// count counts rows, or those on which a condition is true; null is not true.
type count struct {
	same
	cond bool
}

func (count) Name() string   { return "count" }
func (count) Version() int   { return 1 }
func (count) Additive() bool { return true }

func (count) Columns(name string) []StateColumn {
	return []StateColumn{{name, "SimpleAggregateFunction(sum, UInt64)", arrow.PrimitiveTypes.Uint64, false}}
}

func (f count) StateSQL(arg string, nullable bool) []string { return []string{f.RawSQL(arg, nullable)} }
func (count) MergeSQL(cols []string) []string               { return []string{"sum(" + cols[0] + ")"} }
func (count) FinishSQL(cols []string) string                { return "sum(" + cols[0] + ")" }
func (count) ResultType() string                            { return "UInt64" }

func (f count) RawSQL(arg string, nullable bool) string {
	if !f.cond {
		return "count()"
	}
	if nullable {
		arg = fmt.Sprintf("ifNull(%s, false)", arg)
	}
	return fmt.Sprintf("countIf(%s)", arg)
}

func (f count) New() Column { return &counts{cond: f.cond} }

type counts struct {
	cond bool
	n    tallies
}

func (c *counts) Grow(groups int) { c.n.grow(groups) }
func (c *counts) Reset()          { c.n.reset() }
func (c *counts) Bytes() int64    { return c.n.bytes() }

func (c *counts) Add(groups, sel []int32, v column.Vector) {
	c.n.expect(uint64(len(groups)))
	switch {
	case !c.cond:
		c.n.add(groups)
	case c.n.far:
		countTrue(c.n.wide, groups, sel, v)
	default:
		countTrue(c.n.near, groups, sel, v)
	}
}

// countTrue is the kernel for conditions.
func countTrue[T uint32 | uint64](n []T, groups, sel []int32, v column.Vector) {
	switch {
	case sel == nil && v.Valid == nil:
		bools := v.Bools[:len(groups)]
		for i, g := range groups {
			n[g] += T(one(bools[i]))
		}
	case v.Valid == nil:
		for k, row := range sel {
			n[groups[k]] += T(one(v.Bools[row]))
		}
	default:
		for k, g := range groups {
			row := at(sel, k)
			n[g] += T(one(v.Valid[row] && v.Bools[row]))
		}
	}
}

func (c *counts) Merge(groups []int32, other Column) { c.n.merge(groups, &other.(*counts).n) }

// one is 1 for true; the compiler makes it a move without a branch.
func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (c *counts) States(order []int32) []arrow.Array { return []arrow.Array{c.n.array(order)} }
