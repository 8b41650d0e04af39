// Package agg holds the measures: commutative monoids whose states Go builds out of columns
// and ClickHouse merges. Each measure is one file. A state that Go writes and the state that
// ClickHouse's own aggregate function makes of the same values finish equal, in any order and
// grouping; sums of float64 alone depend on the order, within 1e-9 of the sum of magnitudes.
package agg

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

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
	// Add adds rows: sel lists them in ascending order (nil: all rows of v), groups[k] is the
	// group of the k-th. A measure without argument gets the zero Vector. Nothing of v is kept
	// but its Dict.
	Add(groups, sel []int32, v column.Vector)
	// Bytes is the memory held, in bytes.
	Bytes() int64
	// Append writes the states of the groups in that order, one builder per state column.
	Append(order []int32, to []array.Builder)
	// Reset makes every group empty and forgets them, but keeps memory for the next ones.
	Reset()
}

// New returns the measure of that name over arguments of that type. The zero type is "no
// argument", which only count takes. Levels belong to quantiles alone.
func New(name string, arg schemas.Type, levels []float64) (Func, error) {
	bad := func(want string) error { return fmt.Errorf("%s wants %s, not %s", name, want, describe(arg)) }
	numeric := arg.Kind == schemas.Int64 || arg.Kind == schemas.Float64 || arg.Kind == schemas.Decimal
	some := arg.Kind >= schemas.String && arg.Kind <= schemas.Date
	if len(levels) > 0 && name != "quantiles" {
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
			return avg{sum{arg}}, nil
		}
		return sum{arg}, nil
	case "min", "max":
		if !some {
			return nil, bad("a value")
		}
		return extreme{arg, name == "max"}, nil
	case "uniq":
		if !some {
			return nil, bad("a value")
		}
		return uniq{arg}, nil
	case "quantiles":
		return newQuantiles(arg, levels)
	}
	return nil, fmt.Errorf("unknown measure %s: want count, sum, min, max, avg, uniq or quantiles", name)
}

func describe(t schemas.Type) string {
	if t.Kind == 0 {
		return "nothing"
	}
	return t.String()
}

// rows is a column's scratch for the rows that it has to look at.
type rows struct {
	all, groups, sel []int32
}

// pick drops the rows that are null and turns "all rows" into a list.
func (r *rows) pick(groups, sel []int32, valid []bool) ([]int32, []int32) {
	if sel == nil {
		for len(r.all) < len(groups) {
			r.all = append(r.all, int32(len(r.all)))
		}
		sel = r.all[:len(groups)]
	}
	if valid == nil {
		return groups, sel
	}
	r.groups = slices.Grow(r.groups[:0], len(sel))[:len(sel)]
	r.sel = slices.Grow(r.sel[:0], len(sel))[:len(sel)]
	n := 0
	for k, row := range sel {
		r.groups[n], r.sel[n] = groups[k], row
		if valid[row] {
			n++
		}
	}
	return r.groups[:n], r.sel[:n]
}

func (r *rows) bytes() int64 { return 4 * int64(cap(r.all)+cap(r.groups)+cap(r.sel)) }

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
