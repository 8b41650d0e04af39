package view

import "math/bits"

// nearInts numbers integers of a small range by an array over the range: status codes, days,
// and the ids of users as well once there are enough of them. Of 180,000
// ids of a million a look-up takes 7 ns, in a table, most of which is in no cache, 136 ns; and there
// is nothing to sort.
type nearInts struct {
	base    int64
	numbers []int32 // number + 1 of base+i
	n       int
}

const (
	leastNear = 1 << 12 // the range that is small in any case
	nearShare = 16      // and the range for each integer
)

// get is the number of an integer, -1 if it has none here.
func (a *nearInts) get(x int64) int32 {
	if i := uint64(x - a.base); i < uint64(len(a.numbers)) {
		return a.numbers[i] - 1
	}
	return -1
}

// put gives a new integer a number, unless the range gets too large.
func (a *nearInts) put(x int64, number int32) bool {
	if uint64(x-a.base) >= uint64(len(a.numbers)) && !a.stretch(x, x) {
		return false
	}
	a.numbers[x-a.base] = number + 1
	a.n++
	return true
}

// stretch makes the range reach from low to high, and somewhat beyond.
func (a *nearInts) stretch(low, high int64) bool {
	old := *a
	if len(old.numbers) > 0 {
		low, high = min(low, old.base), max(high, old.base+int64(len(old.numbers))-1)
	}
	limit := uint64(max(leastNear, nearShare*a.n))
	width := uint64(high) - uint64(low)
	if width >= limit { // also where it is more than an int64 holds
		return false
	}
	size := int64(1) << bits.Len64(width)
	if base := low &^ (size - 1); high-base < size && base <= low {
		low = base
	}
	a.base, a.numbers = low, make([]int32, size)
	if len(old.numbers) > 0 {
		copy(a.numbers[old.base-low:], old.numbers)
	}
	return true
}

// hold numbers the integers by their indexes, without the one at null, if their range allows.
func (a *nearInts) hold(words []uint64, null int32) bool {
	*a = nearInts{n: len(words)}
	low, high, any := int64(0), int64(0), false
	for n, w := range words {
		if x := int64(w); int32(n) != null {
			if !any {
				low, high, any = x, x, true
			}
			low, high = min(low, x), max(high, x)
		}
	}
	if !any || !a.stretch(low, high) {
		*a = nearInts{}
		return false
	}
	for n, w := range words {
		if int32(n) != null {
			a.numbers[int64(w)-a.base] = int32(n) + 1
		}
	}
	return true
}

// ascending calls fn with the numbers in the order of their integers.
func (a *nearInts) ascending(fn func(number int32)) {
	for _, n := range a.numbers {
		if n > 0 {
			fn(n - 1)
		}
	}
}

// reset forgets the integers, and the range if it was large for them.
func (a *nearInts) reset() {
	if len(a.numbers) > max(leastNear, 2*nearShare*a.n) {
		*a = nearInts{}
	}
	clear(a.numbers)
	a.n = 0
}

func (a *nearInts) bytes() int64 { return 4 * int64(cap(a.numbers)) }
