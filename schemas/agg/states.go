package agg

import (
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// together is how many groups are encoded at a time.
const together = 64

// encoded is the array of what write appends for each group. room is the most bytes that it
// appends for some groups: it looks at all of them one behind the other, and the processor
// fetches them side by side, where write would wait for each.
func encoded(order []int32, room func(groups []int32) int, write func(b []byte, g int32) []byte) arrow.Array {
	offsets, data, used := make([]int32, 1, len(order)+1), []byte(nil), 0
	for len(order) > 0 {
		groups := order[:min(together, len(order))]
		need := room(groups)
		data = roomy(data, need, used, func() int { return room(order) })
		order = order[len(groups):]
		used += need
		for _, g := range groups {
			data = write(data, g)
			offsets = addOffset(offsets, len(data))
		}
	}
	return column.Binary(arrow.BinaryTypes.Binary, offsets, slices.Clip(data), nil)
}

// roomy is s with room for need more elements. By how much of what was needed so far is used, the rest is
// made room for too: states are large, and are not to be copied as a slice grows.
func roomy[T any](s []T, need, used int, rest func() int) []T {
	if cap(s)-len(s) >= need {
		return s
	}
	if used > 0 {
		need += int(float64(len(s)) / float64(used) * float64(rest()) * 17 / 16)
	}
	return append(make([]T, 0, len(s)+need), s...)
}

func addOffset(offsets []int32, n int) []int32 {
	if int(int32(n)) != n {
		panic("agg: states of more than 2 GiB in one column: flush a fold before it holds so much")
	}
	return append(offsets, int32(n))
}

func gather[T any](order []int32, values []T) []T {
	out := make([]T, len(order))
	for i, g := range order {
		out[i] = values[g]
	}
	return out
}
