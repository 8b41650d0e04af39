package batch

import "sync/atomic"

// A budget is the memory that states may take: the folds of all workers, and what waits to be inserted.
// Either may take one half in any case, and folds what the others leave of their half.
type budget struct {
	limit   int64 // bytes
	workers int64
	folds   atomic.Int64
	waiting atomic.Int64
}

// set books that a worker now holds so many bytes, of which it had booked *before. It reports whether the
// worker has to hold less: whether all hold too much, and it its share of that or more. Somebody always
// does, so that what is too much is soon given back.
func (b *budget) set(before *int64, now int64) (over bool) {
	all, limit := b.folds.Add(now-*before), b.limit-min(b.waiting.Load(), b.limit/2)
	*before = now
	return all > limit && now*b.workers >= limit
}
