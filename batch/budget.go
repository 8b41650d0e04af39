package batch

import "sync/atomic"

// A budget is the memory that the folds of all workers may take together.
type budget struct {
	limit   int64 // bytes
	workers int64
	held    atomic.Int64
}

// set books that a worker now holds so many bytes, of which it had booked *before. It reports whether the
// worker has to hold less: whether all hold too much, and it its share of that or more. Somebody always
// does, so that what is too much is soon given back.
func (b *budget) set(before *int64, now int64) (over bool) {
	all := b.held.Add(now - *before)
	*before = now
	return all > b.limit && now*b.workers >= b.limit
}
