package agg

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// avg is the mean: the state is the sum and the number of values, in two columns, and of float64 the sum
// of magnitudes, as sum keeps it, in a third; the finished value is a quotient in float64, null over nothing.
type avg struct {
	same
	sum sum
}

func (avg) Name() string   { return "avg" }
func (f avg) Version() int { return f.sum.Version() }
func (avg) Additive() bool { return false }

func (f avg) Columns(name string) []StateColumn {
	return append([]StateColumn{f.sum.Columns(name + "__sum")[0], {name + "__n", "SimpleAggregateFunction(sum, UInt64)", arrow.PrimitiveTypes.Uint64, false}},
		f.sum.magnitudes(name)...)
}

func (f avg) StateSQL(arg string, nullable bool) []string {
	return append([]string{f.sum.RawSQL(arg, nullable), "count(" + arg + ")"}, f.sum.magnitudesSQL(arg)...)
}

func (avg) MergeSQL(cols []string) []string { return merged(cols) }

// MagnitudesSQL is that of the sum over the number of values.
func (f avg) MagnitudesSQL(cols []string) string {
	of := magnitudesOf(f.sum, cols)
	if of == "" {
		return ""
	}
	return fmt.Sprintf("%s / greatest(sum(%s), 1)", of, cols[1])
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
	n   tallies
}

func (c *avgs) Grow(groups int) { c.sum.Grow(groups); c.n.grow(groups) }
func (c *avgs) Reset()          { c.sum.Reset(); c.n.reset() }
func (c *avgs) Bytes() int64    { return c.sum.Bytes() + c.n.bytes() + c.bytes() }

func (c *avgs) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	v.Valid = nil
	c.sum.Add(groups, sel, v)
	c.n.expect(uint64(len(groups)))
	c.n.add(groups)
}

func (c *avgs) Merge(groups []int32, other Column) {
	o := other.(*avgs)
	c.sum.Merge(groups, o.sum)
	c.n.merge(groups, &o.n)
}

func (c *avgs) States(order []int32) []arrow.Array {
	states := c.sum.States(order)
	return slices.Insert(states, 1, c.n.array(order))
}
