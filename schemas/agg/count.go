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
	n    []uint64
}

func (c *counts) Grow(groups int) { c.n = grown(c.n, groups) }
func (c *counts) Reset()          { c.n = c.n[:0] }
func (c *counts) Bytes() int64    { return 8 * int64(cap(c.n)) }

func (c *counts) Add(groups, sel []int32, v column.Vector) {
	n := c.n
	switch {
	case !c.cond:
		for _, g := range groups {
			n[g]++
		}
	case sel == nil && v.Valid == nil:
		bools := v.Bools[:len(groups)]
		for i, g := range groups {
			n[g] += one(bools[i])
		}
	case v.Valid == nil:
		for k, row := range sel {
			n[groups[k]] += one(v.Bools[row])
		}
	default:
		for k, g := range groups {
			row := k
			if sel != nil {
				row = int(sel[k])
			}
			n[g] += one(v.Valid[row] && v.Bools[row])
		}
	}
}

func (c *counts) Merge(groups []int32, other Column) {
	merge(c.n, groups, other.(*counts).n)
}

// merge adds counts.
func merge(n []uint64, groups []int32, other []uint64) {
	for k, g := range groups {
		n[g] += other[k]
	}
}

// one is 1 for true; the compiler makes it a move without a branch.
func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (c *counts) States(order []int32) []arrow.Array { return []arrow.Array{counters(order, c.n)} }
