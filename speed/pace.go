package speed

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	partsEvery = 2 * time.Second
	fewParts   = 20
	manyParts  = 50
	slowest    = 5 * time.Second // the longest interval that parts lead to
)

// A pace is how often lanes flush. Every flush is a part for every plan, and ClickHouse has to merge
// them. The interval is at least twice what the inserts took, so that half of the time ClickHouse
// has its processors for merges and queries; and it doubles as long as an epoch of a plan has many
// parts, and halves when it has few. Lanes share it.
//
// 50 views, a minute, 100 ms as configured, on two processors that eight other loads shared: an epoch
// of a view had 1 to 6 parts at a fixed interval and 1 to 5 with this; its inserts took 1 to 6 s and
// 1.5 to 3 s. There it is the inserts' time that sets the interval. Parts set it when ClickHouse falls
// behind with merges (TestFlushIntervalFollowsTheParts).
type pace struct {
	every  time.Duration // as configured
	longer atomic.Int64  // the interval that parts lead to, in nanoseconds; 0: every
}

// next is how long to wait until the next flush, if the last took so long.
func (p *pace) next(took time.Duration) time.Duration {
	return max(p.every, time.Duration(p.longer.Load()), 2*took)
}

// parts changes the interval by how many parts there are.
func (p *pace) parts(n int) {
	now := max(p.every, time.Duration(p.longer.Load()))
	switch {
	case n > manyParts:
		now = max(p.every, min(2*now, slowest))
	case n < fewParts:
		now = max(p.every, now/2)
	}
	p.longer.Store(int64(now))
}

// keepPace looks at the parts as long as the session lasts.
func (s *session) keepPace(ctx context.Context) error {
	look := time.NewTicker(partsEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
		n, err := s.w.sink.Parts(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at the parts in ClickHouse: %w", err)
		}
		s.pace.parts(n)
		s.w.stats.parts.Store(uint64(n))
		s.w.stats.interval.Store(s.pace.longer.Load())
	}
}
