package speed

import "time"

// A pace is how often a lane flushes.
type pace struct {
	every time.Duration // as configured
	took  time.Duration // the last flush's inserts
}

// next is how long to wait until the next flush of so many plans.
func (p *pace) next(int) time.Duration { return max(p.every, 2*p.took) }
