package agg

import (
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/column"
)

// extreme is min or max of any type. Strings compare by bytes, false is below true, and the
// extreme of nothing is null.
type extreme struct {
	arg schemas.Type
	max bool
}

func (extreme) Version() int   { return 1 }
func (extreme) Additive() bool { return false }

func (f extreme) Name() string {
	if f.max {
		return "max"
	}
	return "min"
}

func (f extreme) Columns(name string) []StateColumn {
	return []StateColumn{{name, "SimpleAggregateFunction(" + f.Name() + ", " + f.ResultType() + ")", f.arg.Arrow(), true}}
}

// over is the aggregate of an expression of the argument's type. Timestamps go through their
// microseconds: compiled to machine code, which ClickHouse does to a query's third run, its
// min and max of DateTime64 compare unsigned, and 1969 comes out later than 1970.
func (f extreme) over(x string) string {
	if f.arg.Kind == schemas.Timestamp {
		return "fromUnixTimestamp64Micro(" + f.Name() + "(toUnixTimestamp64Micro(" + x + ")), 'UTC')"
	}
	return f.Name() + "(" + x + ")"
}

func (f extreme) StateSQL(arg string, nullable bool) []string {
	return []string{f.RawSQL(arg, nullable)}
}
func (f extreme) MergeSQL(cols []string) []string { return []string{f.over(cols[0])} }
func (f extreme) FinishSQL(cols []string) string  { return f.over(cols[0]) }
func (f extreme) ResultType() string              { return "Nullable(" + f.arg.ClickHouse() + ")" }

func (f extreme) RawSQL(arg string, _ bool) string {
	return f.over(wide(value(arg, f.arg), f.arg.ClickHouse()))
}

func (f extreme) New() Column {
	sign := 1
	if f.max {
		sign = -1
	}
	switch f.arg.Kind {
	case schemas.Float64:
		c := &extremes[float64]{width: 8}
		c.add = func(at []held[float64], groups, sel []int32, v column.Vector) {
			ordered(at, groups, sel, v.Floats, f.max)
		}
		c.put = func(b array.Builder, x float64) { b.(*array.Float64Builder).Append(x + 0) }
		return c
	case schemas.Decimal:
		c := &extremes[decimal128.Num]{width: 16}
		c.add = func(at []held[decimal128.Num], groups, sel []int32, v column.Vector) {
			compared(at, groups, sel, sign, func(row int32) decimal128.Num { return v.Decimals[row] }, decimal128.Num.Cmp)
		}
		c.put = func(b array.Builder, x decimal128.Num) { b.(*array.Decimal128Builder).Append(x) }
		return c
	case schemas.String:
		c := &extremes[string]{width: 16}
		c.add = func(at []held[string], groups, sel []int32, v column.Vector) {
			texts(at, groups, sel, sign, v)
		}
		c.put = func(b array.Builder, x string) { b.(*array.StringBuilder).Append(x) }
		c.size = func(x string) int64 { return int64(len(x)) }
		return c
	case schemas.Bool:
		c := &extremes[bool]{width: 1}
		c.add = func(at []held[bool], groups, sel []int32, v column.Vector) {
			compared(at, groups, sel, sign, func(row int32) bool { return v.Bools[row] }, func(a, b bool) int {
				return int(one(a)) - int(one(b))
			})
		}
		c.put = func(b array.Builder, x bool) { b.(*array.BooleanBuilder).Append(x) }
		return c
	}
	c := &extremes[int64]{width: 8}
	c.add = func(at []held[int64], groups, sel []int32, v column.Vector) {
		ordered(at, groups, sel, v.Ints, f.max)
	}
	switch f.arg.Kind {
	case schemas.Timestamp:
		c.put = func(b array.Builder, x int64) { b.(*array.TimestampBuilder).Append(arrow.Timestamp(x)) }
	case schemas.Date:
		c.put = func(b array.Builder, x int64) { b.(*array.Date32Builder).Append(arrow.Date32(x)) }
	default:
		c.put = func(b array.Builder, x int64) { b.(*array.Int64Builder).Append(x) }
	}
	return c
}

// held is the extreme of one group so far.
type held[T any] struct {
	x   T
	any bool
}

type extremes[T any] struct {
	rows
	at    []held[T]
	width int64 // bytes of a T
	add   func(at []held[T], groups, sel []int32, v column.Vector)
	put   func(array.Builder, T)
	size  func(T) int64 // what a T points to; nil: nothing
}

func (c *extremes[T]) Grow(groups int) { c.at = grown(c.at, groups) }

func (c *extremes[T]) Reset() {
	clear(c.at) // lets go of strings
	c.at = c.at[:0]
}

func (c *extremes[T]) Bytes() int64 {
	n := 2*c.width*int64(cap(c.at)) + c.bytes()
	if c.size != nil {
		for _, h := range c.at {
			n += c.size(h.x)
		}
	}
	return n
}

func (c *extremes[T]) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	c.add(c.at, groups, sel, v)
}

func (c *extremes[T]) Append(order []int32, to []array.Builder) {
	to[0].Reserve(len(order))
	for _, g := range order {
		if h := &c.at[g]; h.any {
			c.put(to[0], h.x)
		} else {
			to[0].AppendNull()
		}
	}
}

// ordered is the kernel for machine numbers.
func ordered[T int64 | float64](at []held[T], groups, sel []int32, values []T, max bool) {
	if max {
		for k, row := range sel {
			if x, h := values[row], &at[groups[k]]; x > h.x || !h.any {
				h.x, h.any = x, true
			}
		}
		return
	}
	for k, row := range sel {
		if x, h := values[row], &at[groups[k]]; x < h.x || !h.any {
			h.x, h.any = x, true
		}
	}
}

// compared is the kernel for the rest; sign is 1 for min, -1 for max.
func compared[T any](at []held[T], groups, sel []int32, sign int, value func(int32) T, cmp func(a, b T) int) {
	for k, row := range sel {
		if x, h := value(row), &at[groups[k]]; !h.any || sign*cmp(x, h.x) < 0 {
			h.x, h.any = x, true
		}
	}
}

// texts copies a string that it keeps: the dictionary's memory is the record's.
func texts(at []held[string], groups, sel []int32, sign int, v column.Vector) {
	for k, row := range sel {
		x, h := v.Dict.Strings[v.Codes[row]], &at[groups[k]]
		if !h.any || sign*strings.Compare(x, h.x) < 0 {
			h.x, h.any = strings.Clone(x), true
		}
	}
}
