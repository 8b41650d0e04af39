package column_test

import (
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas/column"
)

// Arrays built out of memory equal those that Arrow's builders make, with nulls and without.
func TestArraysAsBuildersMakeThem(t *testing.T) {
	const n = 21
	ints, bools, words := make([]int64, n), make([]bool, n), make([]string, n)
	days := make([]arrow.Date32, n)
	offsets, data := []int32{0}, []byte(nil)
	some := make([]bool, n)
	for i := range n {
		ints[i], days[i], bools[i], some[i] = int64(i*i)-50, arrow.Date32(i*i-50), i%3 == 0, i%5 != 0
		words[i] = "abcdefgh"[:i%9]
		data = append(data, words[i]...)
		offsets = append(offsets, int32(len(data)))
	}
	all := make([]bool, n)
	for i := range all {
		all[i] = true
	}
	for _, valid := range [][]bool{nil, all, some} {
		build := func(typ arrow.DataType, fill func(b array.Builder)) arrow.Array {
			b := array.NewBuilder(memory.DefaultAllocator, typ)
			fill(b)
			return b.NewArray()
		}
		for _, c := range []struct{ got, want arrow.Array }{
			{column.Fixed(arrow.PrimitiveTypes.Int64, n, arrow.GetBytes(ints), valid), build(arrow.PrimitiveTypes.Int64, func(b array.Builder) { b.(*array.Int64Builder).AppendValues(ints, valid) })},
			{column.Integers(arrow.FixedWidthTypes.Date32, ints, valid), build(arrow.FixedWidthTypes.Date32, func(b array.Builder) { b.(*array.Date32Builder).AppendValues(days, valid) })},
			{column.Integers(arrow.PrimitiveTypes.Int64, ints, valid), build(arrow.PrimitiveTypes.Int64, func(b array.Builder) { b.(*array.Int64Builder).AppendValues(ints, valid) })},
			{column.Bits(bools, valid), build(arrow.FixedWidthTypes.Boolean, func(b array.Builder) { b.(*array.BooleanBuilder).AppendValues(bools, valid) })},
			{column.Binary(arrow.BinaryTypes.String, offsets, data, valid), build(arrow.BinaryTypes.String, func(b array.Builder) { b.(*array.StringBuilder).AppendValues(words, valid) })},
		} {
			if !array.Equal(c.got, c.want) || c.got.NullN() != c.want.NullN() {
				t.Errorf("got %s; want %s", c.got, c.want)
			}
			if part, want := array.NewSlice(c.got, 3, 17), array.NewSlice(c.want, 3, 17); !array.Equal(part, want) {
				t.Errorf("a part: got %s; want %s", part, want)
			}
		}
	}
	empty := column.Binary(arrow.BinaryTypes.Binary, []int32{0}, nil, nil)
	if empty.Len() != 0 {
		t.Errorf("an empty array has %d values", empty.Len())
	}
}

// A vector's part has the rows of the part, and its slices only.
func TestSliceOfVector(t *testing.T) {
	v := column.Vector{Ints: []int64{1, 2, 3, 4}, Valid: []bool{true, false, true, true}}
	s := v.Slice(1, 3)
	if len(s.Ints) != 2 || s.Ints[0] != 2 || s.Valid[0] || !s.Valid[1] || s.Floats != nil || s.Codes != nil {
		t.Errorf("got %v; want rows 1 and 2", s)
	}
	if u := (column.Vector{Ints: []int64{1, 2}}).Slice(0, 1); u.Valid != nil {
		t.Errorf("a vector without nulls gets a mask: %v", u.Valid)
	}
}
