package agg

import (
	"math"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/column"
)

// tallies are counts by group. They take 4 bytes a group until more values have come, in all, than 32 bits count:
// where groups are in no cache, time goes with the bytes.
type tallies struct {
	near []uint32
	far  bool // wide is used instead
	wide []uint64
	all  uint64 // that no count is above
}

func (t *tallies) bytes() int64 { return 4*int64(cap(t.near)) + 8*int64(cap(t.wide)) }
func (t *tallies) reset()       { t.near, t.wide, t.far, t.all = t.near[:0], t.wide[:0], false, 0 }

func (t *tallies) grow(groups int) {
	if t.far {
		t.wide = grown(t.wide, groups)
	} else {
		t.near = grown(t.near, groups)
	}
}

// expect makes sure that counts can rise by n.
func (t *tallies) expect(n uint64) {
	if t.all += n; t.all <= math.MaxUint32 || t.far {
		return
	}
	t.wide, t.far = grown(t.wide, len(t.near)), true
	for g, n := range t.near {
		t.wide[g] = uint64(n)
	}
	t.near = t.near[:0]
}

// add counts a value for each of the groups, of which as many were expected.
func (t *tallies) add(groups []int32) {
	if t.far {
		increment(t.wide, groups)
	} else {
		increment(t.near, groups)
	}
}

func increment[T uint32 | uint64](n []T, groups []int32) {
	for _, g := range groups {
		n[g]++
	}
}

// merge adds the counts of another, the k-th to that of groups[k].
func (t *tallies) merge(groups []int32, o *tallies) {
	t.expect(o.all)
	switch {
	case !t.far: // nor is the other
		addTo(t.near, groups, o.near)
	case o.far:
		addTo(t.wide, groups, o.wide)
	default:
		addTo(t.wide, groups, o.near)
	}
}

func addTo[T, U uint32 | uint64](n []T, groups []int32, other []U) {
	for k, g := range groups {
		n[g] += T(other[k])
	}
}

// array is the array of the groups' counts.
func (t *tallies) array(order []int32) arrow.Array {
	var out []uint64
	if t.far {
		out = gather(order, t.wide)
	} else {
		out = make([]uint64, len(order))
		for i, g := range order {
			out[i] = uint64(t.near[g])
		}
	}
	return column.Fixed(arrow.PrimitiveTypes.Uint64, len(order), arrow.GetBytes(out), nil)
}
