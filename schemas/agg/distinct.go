package agg

import (
	"cmp"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/column"
)

// distinct is the number of different values, exact however many there are. The state is the values
// themselves, each once: memory, disk and merges go with how many there are, where uniq's stop at 65,536.
type distinct struct {
	same
	arg schemas.Type
}

func (distinct) Name() string       { return "distinct" }
func (distinct) Version() int       { return 1 }
func (distinct) Additive() bool     { return false }
func (distinct) ResultType() string { return "UInt64" }

func (f distinct) Columns(name string) []StateColumn {
	return []StateColumn{{name, "SimpleAggregateFunction(groupUniqArrayArray, Array(" + f.arg.ClickHouse() + "))", arrow.ListOfNonNullable(f.arg.Arrow()), false}}
}

func (f distinct) StateSQL(arg string, nullable bool) []string {
	return []string{present("groupUniqArray", "", arg, nullable, f.arg, "")}
}

func (distinct) MergeSQL(cols []string) []string {
	return []string{"groupUniqArrayArray(" + cols[0] + ")"}
}
func (distinct) FinishSQL(cols []string) string { return "uniqExactArray(" + cols[0] + ")" }

func (f distinct) RawSQL(arg string, nullable bool) string {
	return present("uniqExact", "", arg, nullable, f.arg, "")
}

func (f distinct) New() Column {
	typ := f.arg.Arrow()
	switch f.arg.Kind {
	case schemas.Float64:
		return &distincts[float64]{typ: typ, width: 8, cmp: cmp.Compare[float64],
			value: func(v column.Vector, row int32) float64 { return v.Floats[row] + 0 },
			array: func(x []float64) arrow.Array { return column.Fixed(typ, len(x), arrow.GetBytes(x), nil) }}
	case schemas.Bool:
		return &distincts[bool]{typ: typ, width: 1, cmp: falseFirst,
			value: func(v column.Vector, row int32) bool { return v.Bools[row] },
			array: func(x []bool) arrow.Array { return column.Bits(x, nil) }}
	case schemas.String:
		return &distincts[string]{typ: typ, width: 16, cmp: strings.Compare,
			value: func(v column.Vector, row int32) string { return v.Dict.Strings[v.Codes[row]] },
			own:   strings.Clone,
			array: func(x []string) arrow.Array { return textArray(x, nil) }}
	case schemas.Decimal:
		return &distincts[decimal128.Num]{typ: typ, width: 16, cmp: decimal128.Num.Cmp,
			value: func(v column.Vector, row int32) decimal128.Num { return v.Decimals[row] },
			array: func(x []decimal128.Num) arrow.Array { return column.Fixed(typ, len(x), arrow.GetBytes(x), nil) }}
	}
	return &distincts[int64]{typ: typ, width: 8, cmp: cmp.Compare[int64],
		value: func(v column.Vector, row int32) int64 { return v.Ints[row] },
		array: func(x []int64) arrow.Array { return column.Integers(typ, x, nil) }}
}

// A member is a value of a group's set.
type member[T comparable] struct {
	group int32
	x     T
}

// distincts holds the sets of all groups in one table.
type distincts[T comparable] struct {
	rows
	typ   arrow.DataType
	width int64 // bytes of a T
	cmp   func(a, b T) int
	value func(v column.Vector, row int32) T
	own   func(T) T // of what points to the record's memory; nil: it does not
	array func([]T) arrow.Array
	set   map[member[T]]struct{}
	n     []int32 // how many a group has
	texts int64   // bytes that strings point to
	most  int     // members that the table has had room for
}

func (c *distincts[T]) Grow(groups int) {
	c.n = grown(c.n, groups)
	if c.set == nil {
		c.set = make(map[member[T]]struct{})
	}
}

func (c *distincts[T]) Reset() {
	clear(c.set)
	c.n, c.texts = c.n[:0], 0
}

// Bytes counts a member twice: tables of Go's maps are from 7/16 to 7/8 full, and have a byte a slot.
func (c *distincts[T]) Bytes() int64 {
	return int64(c.most)*2*(c.width+9) + 4*int64(cap(c.n)) + c.texts + c.rows.bytes()
}

func (c *distincts[T]) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	for k, g := range groups {
		c.insert(g, c.value(v, at(sel, k)), c.own)
	}
}

func (c *distincts[T]) insert(g int32, x T, own func(T) T) {
	if _, ok := c.set[member[T]{g, x}]; ok {
		return
	}
	if own != nil {
		x = own(x)
	}
	if s, ok := any(x).(string); ok {
		c.texts += int64(len(s))
	}
	c.set[member[T]{g, x}] = struct{}{}
	c.n[g]++
	c.most = max(c.most, len(c.set))
}

func (c *distincts[T]) Merge(groups []int32, other Column) {
	for m := range other.(*distincts[T]).set {
		c.insert(groups[m.group], m.x, nil)
	}
}

// States lists the values of each group in ascending order, so that equal sets are equal bytes.
func (c *distincts[T]) States(order []int32) []arrow.Array {
	offsets := make([]int32, 1, len(order)+1)
	next := make([]int32, len(c.n))
	for _, g := range order {
		next[g] = offsets[len(offsets)-1]
		offsets = addOffset(offsets, int(next[g])+int(c.n[g]))
	}
	values := make([]T, len(c.set))
	for m := range c.set {
		values[next[m.group]] = m.x
		next[m.group]++
	}
	for i := range order {
		slices.SortFunc(values[offsets[i]:offsets[i+1]], c.cmp)
	}
	return []arrow.Array{column.List(c.typ, offsets, c.array(values))}
}
