package agg

import "math/bits"

const (
	uniqMax    = 65536 // hashes that a set may hold
	few        = 5     // hashes that a set holds without a segment
	firstLog   = 4     // of the first segment
	longestLog = 14    // of the last segment of a list: whoever has more hashes has a table
)

// A hashSet is the set of one group: half a cache line, which is all there is of a set of a
// few hashes, and no pointer. Most hashes that come are new, so a larger one lists them as they
// come, one store each, in few and then in a segment of the arena; equal ones are found when the state
// is made. It becomes a table when a list gets longer of which half is repetition, or is of the longest:
// so memory goes with the hashes, not with the values. A table is a segment, too: open addressing by the
// upper bits of the hashes, which are as good as random, so that it is nearly in their order.
type hashSet struct {
	n     uint32 // hashes held, other than 0; of a list, equal ones as well
	ref   uint32
	log   uint8 // of the segment; 0: none
	skip  uint8 // of a table
	table bool  // the segment is a table, else the rest of a list
	zero  bool  // hash 0 is in the set
	few   [few]uint32
}

// size is how many hashes a table has.
func (s *hashSet) size() uint32 { return s.n + uint32(one(s.zero)) }

type hashSets struct {
	of      []hashSet
	arena   arena[uint32] // 0 is a free slot of a table
	sorted  []uint32
	scratch []uint32 // of different, zero between uses, as are the next two
	starts  []uint16 // of spread
	marks   []uint64 // of various
	seen    uint32   // keeps insertAll's looking from being left out
}

func (c *hashSets) reset() {
	clear(c.of)
	c.of = c.of[:0]
	c.arena.reset()
}

func (c *hashSets) bytes() int64 {
	return 32*int64(cap(c.of)) + c.arena.bytes() + 4*int64(cap(c.sorted)+cap(c.scratch)) + 2*int64(cap(c.starts)) + 8*int64(cap(c.marks))
}

// insert puts a hash into a group's set.
func (c *hashSets) insert(g int32, h uint32) {
	s := &c.of[g]
	if h == 0 {
		s.zero = true
		c.thin(s)
		return
	}
	if s.log == 0 {
		// All are compared, how many there are: a loop's end would be guessed wrong.
		switch f := &s.few; h {
		case f[0], f[1], f[2], f[3], f[4]:
			return
		}
		if s.n < few {
			s.few[s.n] = h
			s.n++
			return
		}
		c.lengthen(s)
	}
	if !s.table && s.n == few+1<<s.log {
		c.lengthen(s)
	}
	if s.table {
		c.put(s, h)
		return
	}
	c.arena.seg(s.ref, s.log)[s.n-few] = h
	s.n++
}

// put puts a hash other than 0 into a table.
func (c *hashSets) put(s *hashSet, h uint32) {
	if h&(1<<s.skip-1) != 0 {
		return
	}
	seg := c.arena.seg(s.ref, s.log)
	if !place(seg, s.log, h) {
		return
	}
	if s.n++; int(s.n) > len(seg)-len(seg)/4 {
		c.rebuild(s, s.log+1)
	}
	c.thin(s)
}

// thin raises the skip degree of a table until it has no more hashes than it may. A list never has more.
func (c *hashSets) thin(s *hashSet) {
	for s.size() > uniqMax {
		s.skip++
		c.rebuild(s, s.log)
	}
}

// lengthen gives a full list the next larger segment, or makes a table of it.
func (c *hashSets) lengthen(s *hashSet) {
	if s.log == 0 {
		s.log = firstLog
		s.ref, _ = c.arena.get(firstLog)
		return
	}
	if s.log == longestLog || 2*c.various(s) <= int(s.n) {
		c.tabulate(s, c.different(s))
		return
	}
	ref, seg := c.arena.get(s.log + 1)
	copy(seg, c.arena.seg(s.ref, s.log))
	c.arena.put(s.ref, s.log)
	s.ref, s.log = ref, s.log+1
}

// rest is what a list has in its segment.
func (c *hashSets) rest(s *hashSet) []uint32 {
	if s.log == 0 {
		return nil
	}
	return c.arena.seg(s.ref, s.log)[:s.n-few]
}

// various is about how many different hashes are listed, a tenth too few at worst where they are spread evenly. It marks each
// in a row of bits that is 8 to 16 times as long as the list: no place has to be looked for. Counted in a table, as before,
// the million users of a date's 10,000 pages took 25 to 34 ns an event, and take 20 to 25 so; in turns, least of four, on a
// machine with twenty other processes to a core.
func (c *hashSets) various(s *hashSet) (n int) {
	log := bits.Len(uint(s.n-1)) + 3
	c.marks = sized(c.marks, 1<<(longestLog+4-6))
	marks := c.marks[:max(1, 1<<log>>6)]
	mark := func(h uint32) {
		at := h >> (32 - log)
		w := &marks[at>>6]
		n += int(^*w >> (at & 63) & 1)
		*w |= 1 << (at & 63)
	}
	for _, h := range s.few[:min(s.n, few)] {
		mark(h)
	}
	for _, h := range c.rest(s) {
		mark(h)
	}
	clear(marks)
	return n
}

// different is how many different hashes are listed.
func (c *hashSets) different(s *hashSet) int {
	log := tableLog(int(s.n))
	c.scratch = sized(c.scratch, 1<<log)
	table := c.scratch
	n := c.fill(table, log, s)
	clear(table)
	return int(n)
}

// fill puts what is listed into a table.
func (c *hashSets) fill(table []uint32, log uint8, s *hashSet) (n uint32) {
	for _, h := range s.few[:min(s.n, few)] {
		n += uint32(one(place(table, log, h)))
	}
	for _, h := range c.rest(s) {
		n += uint32(one(place(table, log, h)))
	}
	return n
}

// tableLog is the log of a table for n hashes.
func tableLog(n int) uint8 {
	return max(firstLog, uint8(bits.Len(uint(max(n, 1)+n/3-1))))
}

// tabulate makes a table of a list of so many different hashes.
func (c *hashSets) tabulate(s *hashSet, different int) {
	log := tableLog(different)
	ref, seg := c.arena.get(log)
	n := c.fill(seg, log, s)
	if s.log > 0 {
		c.arena.put(s.ref, s.log)
	}
	s.n, s.ref, s.log, s.table = n, ref, log, true
}

// ahead is how many slots are looked at before the first of them is needed.
const ahead = 32

// insertAll inserts hashes[k] into the set of groups[k]. It looks at the slots of some hashes
// one behind the other first, so that the processor fetches them side by side: where sets are
// large and many, an insertion waits for memory most of its time.
func (c *hashSets) insertAll(groups, hashes []int32) {
	for len(groups) > 0 {
		n := min(ahead, len(groups))
		for k, g := range groups[:n] {
			if s := &c.of[g]; s.table {
				c.seen += c.arena.seg(s.ref, s.log)[uint32(hashes[k])>>(32-s.log)]
			}
		}
		for k, g := range groups[:n] {
			c.insert(g, uint32(hashes[k]))
		}
		groups, hashes = groups[n:], hashes[n:]
	}
}

// place puts a hash other than 0 into a table and reports whether it is new.
func place(seg []uint32, log uint8, h uint32) bool {
	mask := uint32(len(seg) - 1)
	for i := h >> (32 - log); ; i = (i + 1) & mask {
		switch seg[i&mask] {
		case 0:
			seg[i&mask] = h
			return true
		case h:
			return false
		}
	}
}

// rebuild moves a table into another segment, without what its skip degree excludes.
func (c *hashSets) rebuild(s *hashSet, log uint8) {
	ref, seg := c.arena.get(log)
	old, oldLog := s.ref, s.log
	s.n = 0
	for _, h := range c.arena.seg(old, oldLog) {
		if h != 0 && h&(1<<s.skip-1) == 0 {
			place(seg, log, h)
			s.n++
		}
	}
	s.ref, s.log = ref, log
	c.arena.put(old, oldLog)
}
