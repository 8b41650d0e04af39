package view

import "math/bits"

// pairs numbers pairs of numbers from 0 in the order in which they are first seen. While the
// left one has only one value, which is how it is with the day of a date's fold, the right
// number is the pair's. Then they lie in a matrix, in which the pairs of a minute are in one or
// two cache lines; where that would be too sparse, in a table.
type pairs struct {
	n      int
	keys   []uint64 // left<<32 | right, by number; those at the end that are missing have left 0, and their number is right
	matrix []int32  // number + 1 at left<<log + right
	log    uint8
	sparse bool // the pairs are in table
	table  table
}

const (
	leastMatrix = 1 << 14 // slots that a matrix may have in any case
	matrixShare = 16      // slots that it may have for each pair
)

// number replaces each left number by the number of the pair; lefts and rights are how many
// of each there are.
func (p *pairs) number(left, right []int32, lefts, rights int) {
	if lefts == 1 {
		copy(left, right)
		p.n = rights
		return
	}
	if p.prepare(lefts, rights); p.sparse {
		for k, l := range left {
			key := uint64(l)<<32 | uint64(right[k])
			left[k] = p.table.number(key, int32(p.n))
			p.add(left[k], key)
		}
		return
	}
	matrix, log := p.matrix, p.log
	for k, l := range left {
		at := &matrix[int(l)<<log|int(right[k])]
		if *at == 0 {
			p.add(int32(p.n), uint64(l)<<32|uint64(right[k]))
			*at = int32(p.n)
		}
		left[k] = *at - 1
	}
}

// add takes note of a pair if its number is the next.
func (p *pairs) add(number int32, key uint64) {
	if int(number) == p.n {
		p.keys = append(p.keys, key)
		p.n++
	}
}

// prepare makes room for so many numbers on the left and on the right.
func (p *pairs) prepare(lefts, rights int) {
	log := uint8(bits.Len(uint(rights - 1)))
	fits := lefts<<log <= max(leastMatrix, matrixShare*p.n)
	switch {
	case p.sparse && !(fits && p.table.full()), log == p.log && lefts<<log <= len(p.matrix):
		return
	case log == p.log && len(p.matrix) > 0 && fits:
		p.matrix = grown(p.matrix, 1<<bits.Len(uint(lefts<<log-1)))
		return
	}
	for id := len(p.keys); id < p.n; id++ {
		p.keys = append(p.keys, uint64(id))
	}
	if p.sparse = !fits; p.sparse {
		p.table.fill(p.keys)
		p.matrix = p.matrix[:0]
		return
	}
	p.table.reset()
	p.matrix, p.log = sized(p.matrix, 1<<bits.Len(uint(lefts<<log-1))), log
	clear(p.matrix)
	for id, key := range p.keys {
		p.matrix[int(key>>32)<<log|int(uint32(key))] = int32(id) + 1
	}
}

// of is a pair by its number.
func (p *pairs) of(number int32) (left, right int32) {
	if int(number) >= len(p.keys) {
		return 0, number
	}
	return int32(p.keys[number] >> 32), int32(uint32(p.keys[number]))
}

// reset forgets the pairs.
func (p *pairs) reset() {
	p.n, p.keys, p.sparse = 0, p.keys[:0], false
	p.matrix = p.matrix[:0]
	p.table.reset()
}

func (p *pairs) bytes() int64 {
	return 8*int64(cap(p.keys)) + 4*int64(cap(p.matrix)) + p.table.bytes()
}

// grown is s with n elements, the new ones zero.
func grown(s []int32, n int) []int32 {
	old := len(s)
	if cap(s) < n {
		s = append(make([]int32, 0, n), s...)
	}
	s = s[:n]
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
