package agg

import (
	"cmp"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/column"
)

// extreme is min or max of any type. Strings compare by bytes, false is below true, and the
// extreme of nothing is null.
type extreme struct {
	same
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
		c := &extremes[float64]{width: 8, sign: sign}
		c.add = func(of []held[float64], groups, sel []int32, v column.Vector) {
			ordered(of, groups, sel, v.Floats, f.max)
		}
		c.cmp = cmp.Compare[float64]
		c.array = func(x []float64, some []bool) arrow.Array {
			for i := range x {
				x[i] += 0 // zero has no sign
			}
			return column.Fixed(f.arg.Arrow(), len(x), arrow.GetBytes(x), some)
		}
		return c
	case schemas.Decimal:
		c := &extremes[decimal128.Num]{width: 16, sign: sign, cmp: decimal128.Num.Cmp}
		c.add = func(of []held[decimal128.Num], groups, sel []int32, v column.Vector) {
			compared(of, groups, sel, sign, func(row int32) decimal128.Num { return v.Decimals[row] }, decimal128.Num.Cmp)
		}
		c.array = func(x []decimal128.Num, some []bool) arrow.Array {
			return column.Fixed(f.arg.Arrow(), len(x), arrow.GetBytes(x), some)
		}
		return c
	case schemas.String:
		c := &extremes[string]{width: 16, sign: sign, cmp: strings.Compare}
		c.add = func(of []held[string], groups, sel []int32, v column.Vector) {
			texts(of, groups, sel, sign, v)
		}
		c.array, c.size = textArray, func(x string) int64 { return int64(len(x)) }
		return c
	case schemas.Bool:
		c := &extremes[bool]{width: 1, sign: sign, cmp: falseFirst, array: column.Bits}
		c.add = func(of []held[bool], groups, sel []int32, v column.Vector) {
			compared(of, groups, sel, sign, func(row int32) bool { return v.Bools[row] }, falseFirst)
		}
		return c
	}
	c := &extremes[int64]{width: 8, sign: sign}
	c.add = func(of []held[int64], groups, sel []int32, v column.Vector) {
		ordered(of, groups, sel, v.Ints, f.max)
	}
	c.cmp = cmp.Compare[int64]
	c.array = func(x []int64, some []bool) arrow.Array { return column.Integers(f.arg.Arrow(), x, some) }
	return c
}

func falseFirst(a, b bool) int { return int(one(a)) - int(one(b)) }

func textArray(x []string, some []bool) arrow.Array {
	offsets, data := make([]int32, 1, len(x)+1), []byte(nil)
	for _, s := range x {
		data = append(data, s...)
		offsets = addOffset(offsets, len(data))
	}
	return column.Binary(arrow.BinaryTypes.String, offsets, data, some)
}

// held is the extreme of one group so far.
type held[T any] struct {
	x   T
	any bool
}

type extremes[T any] struct {
	rows
	of    []held[T]
	width int64 // bytes of a T
	sign  int   // 1 for min, -1 for max
	cmp   func(a, b T) int
	add   func(of []held[T], groups, sel []int32, v column.Vector)
	array func(x []T, some []bool) arrow.Array
	size  func(T) int64 // what a T points to; nil: nothing
}

func (c *extremes[T]) Grow(groups int) { c.of = grown(c.of, groups) }

func (c *extremes[T]) Reset() {
	clear(c.of) // lets go of strings
	c.of = c.of[:0]
}

func (c *extremes[T]) Bytes() int64 {
	n := 2*c.width*int64(cap(c.of)) + c.bytes()
	if c.size != nil {
		for _, h := range c.of {
			n += c.size(h.x)
		}
	}
	return n
}

func (c *extremes[T]) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	c.add(c.of, groups, sel, v)
}

func (c *extremes[T]) Merge(groups []int32, other Column) {
	o := other.(*extremes[T]).of
	for k, g := range groups {
		if h := &c.of[g]; o[k].any && (!h.any || c.sign*c.cmp(o[k].x, h.x) < 0) {
			*h = o[k]
		}
	}
}

func (c *extremes[T]) States(order []int32) []arrow.Array {
	x, some := make([]T, len(order)), make([]bool, len(order))
	for i, g := range order {
		x[i], some[i] = c.of[g].x, c.of[g].any
	}
	return []arrow.Array{c.array(x, some)}
}

// ordered is the kernel for machine numbers.
func ordered[T int64 | float64](of []held[T], groups, sel []int32, values []T, max bool) {
	if max {
		for k, g := range groups {
			if x, h := values[at(sel, k)], &of[g]; x > h.x || !h.any {
				h.x, h.any = x, true
			}
		}
		return
	}
	for k, g := range groups {
		if x, h := values[at(sel, k)], &of[g]; x < h.x || !h.any {
			h.x, h.any = x, true
		}
	}
}

// compared is the kernel for the rest; sign is 1 for min, -1 for max.
func compared[T any](of []held[T], groups, sel []int32, sign int, value func(int32) T, cmp func(a, b T) int) {
	for k, g := range groups {
		if x, h := value(at(sel, k)), &of[g]; !h.any || sign*cmp(x, h.x) < 0 {
			h.x, h.any = x, true
		}
	}
}

// texts copies a string that it keeps: the dictionary's memory is the record's.
func texts(of []held[string], groups, sel []int32, sign int, v column.Vector) {
	for k, g := range groups {
		x, h := v.Dict.Strings[v.Codes[at(sel, k)]], &of[g]
		if !h.any || sign*strings.Compare(x, h.x) < 0 {
			h.x, h.any = strings.Clone(x), true
		}
	}
}
