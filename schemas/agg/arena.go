package agg

import "math/bits"

const (
	pageLen  = 1 << 14 // elements
	pageLog  = 14
	largeLog = 12 // segments of more than 1<<largeLog elements have memory of their own
)

// An arena hands out segments of 1<<log zeroed elements for the sets of many groups, so that
// a group of a few values costs a few words and growing one allocates nothing. Segments are
// known by a number, not by a pointer: the collector has nothing to look at in the groups.
type arena[T uint16 | uint32 | uint64] struct {
	pages [][]T
	page  int // the page being cut up
	used  int // elements handed out of it
	large [][]T
	free  [32][]uint32 // numbers by log
	extra int64        // elements in large
}

// seg is the segment of that number and log.
func (a *arena[T]) seg(ref uint32, log uint8) []T {
	if log > largeLog {
		return a.large[ref]
	}
	at := ref & (pageLen - 1)
	return a.pages[ref>>pageLog][at : at+1<<log]
}

func (a *arena[T]) get(log uint8) (ref uint32, seg []T) {
	switch n := len(a.free[log]); {
	case n > 0:
		ref = a.free[log][n-1]
		a.free[log] = a.free[log][:n-1]
	case log > largeLog:
		a.large = append(a.large, make([]T, 1<<log))
		a.extra += 1 << log
		ref = uint32(len(a.large) - 1)
		return ref, a.large[ref]
	default:
		if a.page < len(a.pages) && a.used+1<<log > pageLen {
			a.page, a.used = a.page+1, 0
		}
		if a.page == len(a.pages) {
			a.pages = append(a.pages, make([]T, pageLen))
		}
		ref = uint32(a.page<<pageLog | a.used)
		a.used += 1 << log
	}
	seg = a.seg(ref, log)
	clear(seg)
	return ref, seg
}

// put takes a segment back.
func (a *arena[T]) put(ref uint32, log uint8) { a.free[log] = append(a.free[log], ref) }

// reset takes back every segment.
func (a *arena[T]) reset() {
	for log := range a.free {
		a.free[log] = a.free[log][:0]
	}
	for ref, s := range a.large {
		a.put(uint32(ref), uint8(bits.Len(uint(len(s)))-1))
	}
	a.page, a.used = 0, 0
}

func (a *arena[T]) bytes() int64 {
	var x T
	width := int64(bits.Len64(uint64(^x)) / 8)
	n := width * (int64(len(a.pages))<<pageLog + a.extra)
	for _, f := range a.free {
		n += 4 * int64(cap(f))
	}
	return n
}
