package speed

import (
	"math/bits"
	"unsafe"

	"watershed/schemas/identity"
)

const (
	segments = 1024 // by the fingerprint's first ten bits
	slots    = 5    // of a bucket

	// Besides the tag, the upper bits of bucket.high hold the generation of a slot.
	tagBits = 28
	tagMask = 1<<tagBits - 1
	free    = 0  // what a slot has instead of both
	ages    = 15 // numbers of generations, 1 to 15, that are used in turn
)

// prints is a set of fingerprints with a generation each. One look finds a fingerprint of whatever
// generation, and a generation is dropped as a whole.
//
// It is a hash table in 1,024 segments, each of which grows by itself, so that little is moved or taken twice
// at a time. A bucket is a line of the cache with five fingerprints, of which 92 bits are kept, and
// ten more say in which segment they are. So two different events are taken for the same one with a chance of
// 2^-102: if 10^12 events each meet 10^7 others, below 2^-38, and of a number that the next batch finds and corrects.
//
// A segment grows when nine tenths are in use: to twice the room as long as that is less than half of what it will
// need at most, later by a third, and at last to what as many as most fingerprints take at 87 %: 14.7 bytes each.
type prints struct {
	segment [segments]segment
	count   [ages + 1]int // fingerprints of each generation
	most    int           // buckets of a segment that suffice for as many fingerprints as there are to be
	drops   int
}

type segment struct {
	buckets []bucket
	used    int // slots
}

type bucket struct {
	low  [slots]uint64
	high [slots]uint32
	over uint32 // 1: it was full when another came, so a search goes on behind it
}

// newPrints returns an empty set for so many fingerprints, more or less.
func newPrints(most int) *prints {
	return &prints{most: buckets(most/segments, 87)}
}

// buckets are as many as n fingerprints take, if so many percent of their slots are used.
func buckets(n, percent int) int { return max(1, (100*n+slots*percent-1)/(slots*percent)) }

// add puts a fingerprint in under a generation, unless it is there under one that was not dropped, which it
// says.
func (p *prints) add(print identity.Fingerprint, age uint32) (known bool) {
	s := &p.segment[print.Hi>>54]
	if 10*(s.used+1) > 9*slots*len(s.buckets) {
		p.rebuild(s)
	}
	if s.put(print.Lo, uint32(print.Hi)&tagMask, age) {
		return true
	}
	p.count[age]++
	return false
}

// at is the bucket in which a search begins. It follows from what is kept of a fingerprint.
func (s *segment) at(low uint64) int {
	hi, _ := bits.Mul64(low, uint64(len(s.buckets)))
	return int(hi)
}

// put is add in a segment that has a free slot.
func (s *segment) put(low uint64, tag, age uint32) (known bool) {
	var to *bucket
	at, slot := s.at(low), 0
	for range s.buckets {
		b := &s.buckets[at]
		for j, high := range &b.high {
			if high&tagMask == tag && b.low[j] == low && high != free {
				return true
			}
			if high == free && to == nil {
				to, slot = b, j
			}
		}
		if b.over == 0 {
			if to != nil {
				break
			}
			b.over = 1
		}
		if at++; at == len(s.buckets) {
			at = 0
		}
	}
	to.low[slot], to.high[slot] = low, age<<tagBits|tag
	s.used++
	return false
}

// touch reads where the search for a fingerprint begins, so that the memory of many comes at once.
func (p *prints) touch(print identity.Fingerprint) uint32 {
	s := &p.segment[print.Hi>>54]
	if len(s.buckets) == 0 {
		return 0
	}
	return s.buckets[s.at(print.Lo)].high[0]
}

// rebuild moves a segment: to twice the room while it is small, else to a third more than what is there takes, or
// less if that is all that is ever to be there.
func (p *prints) rebuild(s *segment) {
	size := buckets(s.used+1, 75)
	switch twice := buckets(s.used+1, 45); {
	case twice <= p.most/2:
		size = twice
	case size > p.most && p.most >= buckets(s.used+1, 88):
		size = p.most
	}
	old := s.buckets
	s.buckets, s.used = make([]bucket, size), 0
	for i := range old {
		b := &old[i]
		for j, high := range b.high {
			if high != free {
				s.put(b.low[j], high&tagMask, high>>tagBits)
			}
		}
	}
}

// drop forgets a generation. Buckets stay marked as having been full, which makes searches longer, until
// their segment is moved: every eighth is, at each drop, besides those that are half empty, whose memory is
// given back.
func (p *prints) drop(age uint32) {
	if p.count[age] == 0 {
		return
	}
	p.count[age] = 0
	p.drops++
	for i := range p.segment {
		s := &p.segment[i]
		for i := range s.buckets {
			b := &s.buckets[i]
			for j, high := range &b.high {
				if high>>tagBits == age {
					b.high[j] = 0
					s.used--
				}
			}
		}
		if i%8 == p.drops%8 || len(s.buckets) > 1 && 2*s.used < slots*len(s.buckets) {
			p.rebuild(s)
		}
	}
}

// size is how many fingerprints are there, and the bytes that they take.
func (p *prints) size() (n int, bytes int64) {
	for _, c := range p.count {
		n += c
	}
	bytes = int64(unsafe.Sizeof(*p))
	for i := range p.segment {
		bytes += int64(len(p.segment[i].buckets)) * int64(unsafe.Sizeof(bucket{}))
	}
	return n, bytes
}
