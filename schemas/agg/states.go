package agg

import (
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// encoded is the array of what append writes for each group. size is what it came to last
// time and comes to now: states are large, and copying them as a buffer grows took longer than
// writing them.
func encoded(order []int32, size *int, append func(b []byte, g int32) []byte) arrow.Array {
	offsets, data := make([]int32, 1, len(order)+1), make([]byte, 0, *size+*size/8)
	for _, g := range order {
		data = append(data, g)
		offsets = addOffset(offsets, len(data))
	}
	*size = len(data)
	return column.Binary(arrow.BinaryTypes.Binary, offsets, slices.Clip(data), nil)
}

func addOffset(offsets []int32, n int) []int32 {
	if int(int32(n)) != n {
		panic("agg: states of more than 2 GiB in one column: flush a fold before it holds so much")
	}
	return append(offsets, int32(n))
}

// counters is the array of counts.
func counters(order []int32, n []uint64) arrow.Array {
	return column.Fixed(arrow.PrimitiveTypes.Uint64, len(order), arrow.GetBytes(gather(order, n)), nil)
}

func gather[T any](order []int32, values []T) []T {
	out := make([]T, len(order))
	for i, g := range order {
		out[i] = values[g]
	}
	return out
}
