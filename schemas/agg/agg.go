// Package agg holds the measures: commutative monoids whose states Go builds out of columns
// and ClickHouse merges. Each measure is one file. A state that Go writes and the state that
// ClickHouse's own aggregate function makes of the same values finish equal, in any order and
// grouping; sums of float64 and what is made of them alone depend on the order, within a stated tolerance (Rounded).
package agg

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
)

// A Func is a measure over one type of argument.
//
// The SQL methods take expressions that are already quoted, and return expressions for the
// SELECT list of a query with a GROUP BY. Null arguments are ignored by every measure.
type Func interface {
	// Name is the measure's name in view files.
	Name() string
	// Version rises when a state or a finished value changes; plan hashes cover it.
	Version() int
	// Additive reports whether the finished value counts events, so that leaving out one
	// event lowers it by 0 or 1. That is so for count alone.
	Additive() bool
	// Columns are the state columns of a measure of that name, in table order.
	Columns(name string) []StateColumn
	// Prepare does once for all groupings what a value needs whatever its group: it turns values
	// of the argument into what Add takes. Measures of one Name and argument share the result.
	Prepare(v column.Vector) column.Vector
	// New returns accumulators, with no groups.
	New() Column
	// StateSQL gives per state column an aggregate over raw rows of the column's ClickHouse
	// type. The argument is empty for count().
	StateSQL(arg string, nullable bool) []string
	// MergeSQL gives per state column the merge of stored states into a state.
	MergeSQL(cols []string) []string
	// FinishSQL is the finished value over stored states.
	FinishSQL(cols []string) string
	// RawSQL is the finished value straight over raw rows: the oracle.
	RawSQL(arg string, nullable bool) string
	// ResultType is the ClickHouse type of the finished value.
	ResultType() string
}

// A Rounded measure is one whose finished value depends on the order of additions: it is within Tolerance,
// times what MagnitudesSQL is over stored states, of any other order's. Empty: it does not depend on it.
type Rounded interface {
	MagnitudesSQL(cols []string) string
}

// A StateColumn is one column of a measure's state.
type StateColumn struct {
	Name       string         // the measure's name, for avg with a suffix
	ClickHouse string         // its type in an AggregatingMergeTree
	Arrow      arrow.DataType // its type in state records
	Nullable   bool           // null stands for "no value yet" and is the monoid's zero
}

// Staged is the ClickHouse type in which states of the column are inserted by clients that
// cannot write aggregate states: String for those, to be cast, the plain type otherwise.
func (c StateColumn) Staged() string {
	if c.Arrow.ID() == arrow.BINARY {
		return "String"
	}
	return plain(c.ClickHouse)
}

// A Column holds the accumulators of one measure for groups numbered from 0. It must not be
// used by two goroutines at once.
type Column interface {
	// Grow makes place for so many groups in all; new ones are empty. It never shrinks.
	Grow(groups int)
	// Add adds rows of a vector that Func.Prepare returned: sel lists them in ascending order
	// (nil: the first len(groups)), groups[k] is the group of the k-th. A measure without argument
	// gets the zero Vector. Nothing of v is kept but its Dict.
	Add(groups, sel []int32, v column.Vector)
	// Merge adds the groups of another column of the same Func, the g-th of them to our groups[g], for all
	// g below len(groups). The other may be reset afterwards, but must not be used otherwise.
	Merge(groups []int32, other Column)
	// Bytes is the memory held, in bytes.
	Bytes() int64
	// States are the states of the groups in that order, one array per state column.
	States(order []int32) []arrow.Array
	// Reset makes every group empty and forgets them, but keeps memory for the next ones.
	Reset()
}

// New returns the measure of that name over arguments of that type. The zero type is "no
// argument", which only count takes. Levels belong to quantiles, and are the bounds of histogram.
func New(name string, arg schemas.Type, levels []float64) (Func, error) {
	bad := func(want string) error { return fmt.Errorf("%s wants %s, not %s", name, want, describe(arg)) }
	numeric := arg.Kind == schemas.Int64 || arg.Kind == schemas.Float64 || arg.Kind == schemas.Decimal
	some := arg.Kind >= schemas.String && arg.Kind <= schemas.Date
	if len(levels) > 0 && name != "quantiles" && name != "histogram" {
		return nil, fmt.Errorf("%s takes no levels", name)
	}
	switch name {
	case "count":
		if arg.Kind != 0 && arg.Kind != schemas.Bool {
			return nil, bad("a condition or nothing")
		}
		return count{cond: arg.Kind != 0}, nil
	case "sum", "avg":
		if !numeric {
			return nil, bad("a number")
		}
		if name == "avg" {
			return avg{sum: sum{arg: arg}}, nil
		}
		return sum{arg: arg}, nil
	case "min", "max":
		if !some {
			return nil, bad("a value")
		}
		return extreme{arg: arg, max: name == "max"}, nil
	case "uniq", "distinct":
		if !some {
			return nil, bad("a value")
		}
		if name == "distinct" {
			return distinct{arg: arg}, nil
		}
		return uniq{arg}, nil
	case "quantiles":
		return newQuantiles(arg, levels)
	case "histogram":
		return newHistogram(arg, levels)
	case "variance", "variance_sample", "stddev", "stddev_sample":
		return newVariance(name, arg)
	}
	return nil, fmt.Errorf("unknown measure %s", name)
}

func describe(t schemas.Type) string {
	if t.Kind == 0 {
		return "nothing"
	}
	return t.String()
}

// same is the Prepare of measures that take values as they are.
type same struct{}

func (same) Prepare(v column.Vector) column.Vector { return v }

// rows is a column's scratch for the rows that it has to look at.
type rows struct {
	groups, sel []int32
}

// pick drops the rows that are null. "All rows" stays nil where no row may be null.
func (r *rows) pick(groups, sel []int32, valid []bool) ([]int32, []int32) {
	if valid == nil {
		return groups, sel
	}
	r.groups = slices.Grow(r.groups[:0], len(groups))[:len(groups)]
	r.sel = slices.Grow(r.sel[:0], len(groups))[:len(groups)]
	n := 0
	for k, g := range groups {
		row := at(sel, k)
		r.groups[n], r.sel[n] = g, row
		if valid[row] {
			n++
		}
	}
	return r.groups[:n], r.sel[:n]
}

func (r *rows) bytes() int64 { return 4 * int64(cap(r.groups)+cap(r.sel)) }

// at is the k-th row of a selection.
func at(sel []int32, k int) int32 {
	if sel == nil {
		return int32(k)
	}
	return sel[k]
}

// grown returns s with n elements, new ones zero.
func grown[T any](s []T, n int) []T {
	old := len(s)
	if n <= old {
		return s
	}
	s = slices.Grow(s, n-old)[:n]
	clear(s[old:])
	return s
}

// sized is a slice of n elements, s if it is long enough.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
