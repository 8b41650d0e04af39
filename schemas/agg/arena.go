package agg

import "math/bits"

const (
	pageLen  = 1 << 14 // elements
	pageLog  = 14
	largeLog = 12 // segments of more than 1<<largeLog elements have memory of their own
)

// An arena hands out segments of 1<<log zeroed elements for the sets of many groups, so that
// a group of a few values costs a few words and growing one allocates nothing.
type arena[T uint32 | uint64] struct {
	pages [][]T
	page  int // the page being cut up
	used  int // elements handed out of it
	free  [32][][]T
	large int64 // elements in segments of their own, free ones included
}

func (a *arena[T]) get(log int) []T {
	if n := len(a.free[log]); n > 0 {
		s := a.free[log][n-1]
		a.free[log] = a.free[log][:n-1]
		clear(s)
		return s
	}
	size := 1 << log
	if log > largeLog {
		a.large += int64(size)
		return make([]T, size)
	}
	if a.page < len(a.pages) && a.used+size > pageLen {
		a.page, a.used = a.page+1, 0
	}
	if a.page == len(a.pages) {
		a.pages = append(a.pages, make([]T, pageLen))
	}
	s := a.pages[a.page][a.used : a.used+size : a.used+size]
	a.used += size
	clear(s)
	return s
}

// put takes a segment back.
func (a *arena[T]) put(s []T) {
	if len(s) > 0 {
		log := bits.Len(uint(len(s))) - 1
		a.free[log] = append(a.free[log], s)
	}
}

// reset takes back every segment of the pages; large ones must have been put before.
func (a *arena[T]) reset() {
	for log := range a.free[:largeLog+1] {
		a.free[log] = a.free[log][:0]
	}
	a.page, a.used = 0, 0
}

func (a *arena[T]) bytes() int64 {
	var x T
	width := int64(bits.Len64(uint64(^x)) / 8)
	return width * (int64(len(a.pages))<<pageLog + a.large)
}

// spread is where a key starts in an open-addressing table of 1<<log slots: Fibonacci
// hashing, which also spreads neighbouring keys evenly.
func spread(key uint32, log int) uint32 { return (key * 0x9E3779B1) >> (32 - log) }
