package agg

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// avg is the mean: the state is the sum, as sum keeps it, and the number of values, in two
// columns; the finished value is their quotient in float64, null over nothing.
type avg struct {
	same
	sum sum
}

func (avg) Name() string   { return "avg" }
func (avg) Version() int   { return 1 }
func (avg) Additive() bool { return false }

func (f avg) Columns(name string) []StateColumn {
	return append(f.sum.Columns(name+"__sum"),
		StateColumn{name + "__n", "SimpleAggregateFunction(sum, UInt64)", arrow.PrimitiveTypes.Uint64, false})
}

func (f avg) StateSQL(arg string, nullable bool) []string {
	return append(f.sum.StateSQL(arg, nullable), "count("+arg+")")
}

func (avg) MergeSQL(cols []string) []string {
	return []string{"sum(" + cols[0] + ")", "sum(" + cols[1] + ")"}
}

func (avg) FinishSQL(cols []string) string {
	return fmt.Sprintf("toFloat64(sum(%s)) / nullIf(sum(%s), 0)", cols[0], cols[1])
}

func (f avg) RawSQL(arg string, nullable bool) string {
	state := f.StateSQL(arg, nullable)
	return fmt.Sprintf("toFloat64(%s) / nullIf(%s, 0)", state[0], state[1])
}

func (avg) ResultType() string { return "Nullable(Float64)" }

func (f avg) New() Column { return &avgs{sum: f.sum.New()} }

type avgs struct {
	rows
	sum Column
	n   []uint64
}

func (c *avgs) Grow(groups int) { c.sum.Grow(groups); c.n = grown(c.n, groups) }
func (c *avgs) Reset()          { c.sum.Reset(); c.n = c.n[:0] }
func (c *avgs) Bytes() int64    { return c.sum.Bytes() + 8*int64(cap(c.n)) + c.bytes() }

func (c *avgs) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	v.Valid = nil
	c.sum.Add(groups, sel, v)
	for _, g := range groups {
		c.n[g]++
	}
}

func (c *avgs) Merge(groups []int32, other Column) {
	o := other.(*avgs)
	c.sum.Merge(groups, o.sum)
	merge(c.n, groups, o.n)
}

func (c *avgs) States(order []int32) []arrow.Array {
	return append(c.sum.States(order), counters(order, c.n))
}
