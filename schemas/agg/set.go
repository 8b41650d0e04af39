package agg

import "encoding/binary"

const (
	uniqMax  = 65536 // hashes that a set may hold
	few      = 5     // hashes that a set holds without a segment
	firstLog = 4     // of the first segment
)

// A hashSet is the set of one group: half a cache line, which is all there is of a set of a
// few hashes, and no pointer. A larger one is a table in a segment of the arena: open
// addressing by the upper bits of the hashes, which are as good as random, so that the table
// is nearly in their order.
type hashSet struct {
	n    uint32 // hashes held, other than 0
	ref  uint32
	log  uint8 // of the segment; 0: none
	skip uint8
	zero bool // hash 0 is in the set
	few  [few]uint32
}

func (s *hashSet) size() uint32 { return s.n + uint32(one(s.zero)) }

type hashSets struct {
	of     []hashSet
	arena  arena[uint32] // 0 is a free slot
	sorted []uint32
	seen   uint32 // keeps insertAll's looking from being left out
}

func (c *hashSets) reset() {
	clear(c.of)
	c.of = c.of[:0]
	c.arena.reset()
}

func (c *hashSets) bytes() int64 {
	return 32*int64(cap(c.of)) + c.arena.bytes() + 4*int64(cap(c.sorted))
}

// insert puts a hash into a group's set.
func (c *hashSets) insert(g int32, h uint32) {
	s := &c.of[g]
	if s.log == 0 {
		// All are compared, how many there are: a loop's end would be guessed wrong.
		switch f := &s.few; h {
		case 0:
			s.zero = true
			return
		case f[0], f[1], f[2], f[3], f[4]:
			return
		}
		if s.n < few {
			s.few[s.n] = h
			s.n++
			return
		}
		c.enlarge(s)
	}
	if h&(1<<s.skip-1) != 0 {
		return
	}
	if h == 0 {
		s.zero = true
	} else {
		seg := c.arena.seg(s.ref, s.log)
		if !place(seg, s.log, h) {
			return
		}
		if s.n++; int(s.n) > len(seg)-len(seg)/4 {
			c.enlarge(s)
		}
	}
	for s.size() > uniqMax {
		s.skip++
		c.rebuild(s, s.log)
	}
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
			if s := &c.of[g]; s.log > firstLog {
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

func (c *hashSets) enlarge(s *hashSet) {
	if s.log > 0 {
		c.rebuild(s, s.log+1)
		return
	}
	var seg []uint32
	s.log = firstLog
	s.ref, seg = c.arena.get(firstLog)
	for _, h := range s.few[:s.n] {
		place(seg, firstLog, h)
	}
}

// rebuild moves a set into another segment, without what its skip degree excludes.
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

// merge adds the sets of others, the k-th to that of groups[k]. The degree that excludes least and
// leaves no more than uniqMax of all hashes is the same in whatever order they come.
func (c *hashSets) merge(groups []int32, o *hashSets) {
	for k, g := range groups {
		s, other := &c.of[g], &o.of[k]
		if other.log == 0 {
			for _, h := range other.few[:other.n] {
				c.insert(g, h)
			}
			if other.zero {
				c.insert(g, 0)
			}
			continue
		}
		from := o.arena.seg(other.ref, other.log)
		if s.size() == 0 && s.log == 0 {
			var seg []uint32
			*s = *other
			s.ref, seg = c.arena.get(s.log)
			copy(seg, from)
			continue
		}
		c.prepare(s, other)
		for _, h := range from {
			if h != 0 {
				c.insert(g, h)
			}
		}
		if other.zero {
			c.insert(g, 0)
		}
	}
}

// prepare makes room in a set for those of another one. What comes in the order of its table must not
// crowd the front of a small one.
func (c *hashSets) prepare(s, other *hashSet) {
	if s.log == 0 {
		c.enlarge(s)
	}
	log := max(s.log, other.log)
	for 4*(s.n+other.n) > 3<<log {
		log++
	}
	if other.skip > s.skip || log > s.log {
		s.skip = max(s.skip, other.skip)
		c.rebuild(s, log)
	}
}

// room is the most bytes that the sets of the groups take encoded.
func (c *hashSets) room(groups []int32) int {
	n := uint32(0)
	for _, g := range groups {
		n += c.of[g].n
	}
	return 4*int(n) + 10*len(groups)
}

// append encodes a group's set as ClickHouse's UniquesHashSet. The hashes are in ascending
// order: what makes equal sets equal bytes costs little, for tables are nearly in order.
func (c *hashSets) append(b []byte, g int32) []byte {
	s := &c.of[g]
	b = binary.AppendUvarint(append(b, s.skip), uint64(s.size()))
	if s.zero {
		b = append(b, 0, 0, 0, 0)
	}
	var own [few]uint32
	var sorted []uint32
	if s.log == 0 {
		own = s.few
		sorted = own[:s.n]
	} else {
		if cap(c.sorted) <= int(s.n) {
			c.sorted = make([]uint32, 1<<s.log)
		}
		// Without a branch: whether a slot is free cannot be foreseen.
		sorted = c.sorted[:s.n+1]
		n := 0
		for _, h := range c.arena.seg(s.ref, s.log) {
			sorted[n] = h
			n += int(one(h != 0))
		}
		sorted = sorted[:n]
	}
	for i := 1; i < len(sorted); i++ {
		h, k := sorted[i], i
		for ; k > 0 && sorted[k-1] > h; k-- {
			sorted[k] = sorted[k-1]
		}
		sorted[k] = h
	}
	at := len(b)
	b = b[:at+4*len(sorted)]
	for i, h := range sorted {
		binary.LittleEndian.PutUint32(b[at+4*i:], h)
	}
	return b
}
