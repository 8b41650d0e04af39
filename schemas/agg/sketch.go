package agg

import "slices"

const (
	fewCodes  = 11 // codes that a sketch lists without a segment
	firstList = 5  // log of the first segment of a list
	lastList  = 12 // and of the last: whoever has more codes counts them
	codeBits  = 16
	maxProbe  = 64 // slots that are looked at before a table of counts is made larger
)

// A word is a code in the upper 16 bits and a count in the lower 48.
const (
	codeShift = 48
	countMask = 1<<codeShift - 1
)

// A sketch is the codes of one group, in half a cache line, which is all there is of a few codes, and
// without a pointer. Most groups have few values, and most values are different: so codes are listed as they
// come, one store each, and counted when the states are made. They are counted at once when there are more
// than 4,096, or when a list gets longer of which half is repetition: so memory goes with the groups, not with
// the values. Counts are in a table of words placed by the lower bits of the code: neighbouring codes, which
// large sketches consist of, lie side by side and do not collide.
type sketch struct {
	n       uint32 // codes listed, or counted
	ref     uint32
	log     uint8 // of the segment; 0: none
	counted bool  // the segment is one of words, else of codes
	few     [fewCodes]uint16
}

type sketches struct {
	at    []sketch
	lists arena[uint16]
	arena arena[uint64] // of words; 0 is a free slot
	codes []uint16      // scratch
	words []uint64
}

func (c *sketches) reset() {
	clear(c.at)
	c.at = c.at[:0]
	c.lists.reset()
	c.arena.reset()
}

func (c *sketches) bytes() int64 {
	return 32*int64(cap(c.at)) + c.lists.bytes() + c.arena.bytes() + 2*int64(cap(c.codes)) + 8*int64(cap(c.words))
}

// count counts a value of a group by its code.
func (c *sketches) count(g int32, code uint16) {
	s := &c.at[g]
	if s.log == 0 {
		if s.n < fewCodes {
			s.few[s.n] = code
			s.n++
			return
		}
		c.lengthen(s)
	}
	if !s.counted {
		if seg := c.lists.seg(s.ref, s.log); int(s.n) < len(seg) {
			seg[s.n] = code
			s.n++
			return
		}
		if c.lengthen(s); !s.counted {
			c.lists.seg(s.ref, s.log)[s.n] = code
			s.n++
			return
		}
	}
	c.put(s, code, 1)
}

// lengthen gives a full list the next larger segment, or counts it.
func (c *sketches) lengthen(s *sketch) {
	log := s.log + 1
	if s.log == 0 {
		log = firstList
	} else if different := c.different(c.list(s)); log > lastList || 2*different <= int(s.n) {
		c.tally(s, different)
		return
	}
	ref, seg := c.lists.get(log)
	copy(seg, c.list(s))
	if s.log > 0 {
		c.lists.put(s.ref, s.log)
	}
	s.ref, s.log = ref, log
}

// different sorts a list of at least one code and returns how many different ones it has.
func (c *sketches) different(list []uint16) int {
	c.codes = sortCodes(list, c.codes)
	n := 1
	for i, code := range list[1:] {
		n += int(one(code != list[i]))
	}
	return n
}

// list is the codes of a sketch that lists them.
func (c *sketches) list(s *sketch) []uint16 {
	if s.log == 0 {
		return s.few[:s.n]
	}
	return c.lists.seg(s.ref, s.log)[:s.n]
}

// tally turns a list of so many different codes into counts.
func (c *sketches) tally(s *sketch, different int) {
	old := *s
	s.n, s.counted, s.log = 0, true, firstLog
	for 4*different >= 3<<s.log {
		s.log++
	}
	s.ref, _ = c.arena.get(s.log)
	for _, code := range c.list(&old) {
		c.put(s, code, 1)
	}
	if old.log > 0 {
		c.lists.put(old.ref, old.log)
	}
}

// put counts a code so many times in a sketch that counts.
func (c *sketches) put(s *sketch, code uint16, n uint64) {
	seg := c.arena.seg(s.ref, s.log)
	mask := uint32(len(seg) - 1)
	for i := uint32(code); ; i++ {
		w := &seg[i&mask]
		if *w == 0 {
			*w = uint64(code)<<codeShift | n
			if s.n++; int(s.n) > len(seg)-len(seg)/4 || i-uint32(code) > maxProbe && s.log < codeBits {
				c.enlarge(s)
			}
			return
		}
		if uint16(*w>>codeShift) == code {
			*w += n
			return
		}
	}
}

// enlarge moves counts into the next larger segment. One of 1<<codeBits slots has a slot for every code.
func (c *sketches) enlarge(s *sketch) {
	ref, seg := c.arena.get(s.log + 1)
	mask := uint32(len(seg) - 1)
	for _, w := range c.arena.seg(s.ref, s.log) {
		if w == 0 {
			continue
		}
		i := uint32(w >> codeShift)
		for seg[i&mask] != 0 {
			i++
		}
		seg[i&mask] = w
	}
	c.arena.put(s.ref, s.log)
	s.ref, s.log = ref, s.log+1
}

// merge adds the sketches of others, the k-th to that of groups[k].
func (c *sketches) merge(groups []int32, o *sketches) {
	for k, g := range groups {
		s, other := &c.at[g], &o.at[k]
		if !other.counted {
			for _, code := range o.list(other) {
				c.count(g, code)
			}
			continue
		}
		if !s.counted {
			c.tally(s, int(s.n))
		}
		for s.log < other.log {
			c.enlarge(s)
		}
		for _, w := range o.arena.seg(other.ref, other.log) {
			if w != 0 {
				c.put(s, uint16(w>>codeShift), w&countMask)
			}
		}
	}
}

// encoded is the sketches of the groups, one behind the other: the codes of each, ascending, and how often
// each of them occurs.
func (c *sketches) encoded(order []int32) (offsets []int32, codes []uint16, counts []uint64) {
	offsets = make([]int32, 1, len(order)+1)
	used := 0
	for len(order) > 0 {
		groups := order[:min(together, len(order))]
		need := c.room(groups)
		codes = roomy(codes, need, used, func() int { return c.room(order) })
		counts = roomy(counts, need, used, func() int { return c.room(order) })
		order = order[len(groups):]
		used += need
		for _, g := range groups {
			if s := &c.at[g]; s.counted {
				codes, counts = c.appendCounted(codes, counts, s)
			} else {
				codes, counts = c.appendListed(codes, counts, c.list(s))
			}
			offsets = addOffset(offsets, len(codes))
		}
	}
	return offsets, codes, counts
}

// room is the most codes that the sketches of the groups have.
func (c *sketches) room(groups []int32) int {
	n := 0
	for _, g := range groups {
		n += int(c.at[g].n)
	}
	return n
}

// appendListed sorts a list and counts what is equal.
func (c *sketches) appendListed(codes []uint16, counts []uint64, list []uint16) ([]uint16, []uint64) {
	if len(list) == 0 {
		return codes, counts
	}
	c.codes = sortCodes(list, c.codes)
	// Without a branch: whether a code is the one before it cannot be foreseen. First where runs of a code
	// end, then how long they are.
	at, n, last := len(codes), 0, len(list)-1
	codes, counts = codes[:at+len(list)], counts[:at+len(list)]
	runs, ends := codes[at:], counts[at:]
	for i, code := range list[:last] {
		runs[n], ends[n] = code, uint64(i+1)
		n += int(one(code != list[i+1]))
	}
	runs[n], ends[n] = list[last], uint64(len(list))
	for i := n; i > 0; i-- {
		ends[i] -= ends[i-1]
	}
	return codes[:at+n+1], counts[:at+n+1]
}

// appendCounted takes the words that are not free, in the order of their codes.
func (c *sketches) appendCounted(codes []uint16, counts []uint64, s *sketch) ([]uint16, []uint64) {
	c.words = sized(c.words, int(s.n)+1)
	n := 0
	for _, w := range c.arena.seg(s.ref, s.log) {
		c.words[n] = w
		n += int(one(w != 0))
	}
	slices.Sort(c.words[:n])
	for _, w := range c.words[:n] {
		codes, counts = append(codes, uint16(w>>codeShift)), append(counts, w&countMask)
	}
	return codes, counts
}

const fewSorted = 40 // up to so many codes are sorted by insertion

// sortCodes sorts codes, of which there are no more than 4,096, and returns its scratch for the next time.
func sortCodes(codes, scratch []uint16) []uint16 {
	if len(codes) <= fewSorted {
		for i := 1; i < len(codes); i++ {
			code, k := codes[i], i
			for ; k > 0 && codes[k-1] > code; k-- {
				codes[k] = codes[k-1]
			}
			codes[k] = code
		}
		return scratch
	}
	var low, high [256]uint16
	for _, code := range codes {
		low[byte(code)]++
		high[code>>8]++
	}
	at, over := uint16(0), uint16(0)
	for i := range low {
		low[i], at = at, at+low[i]
		high[i], over = over, over+high[i]
	}
	scratch = sized(scratch, len(codes))
	for _, code := range codes {
		to := &low[byte(code)]
		scratch[*to] = code
		*to++
	}
	for _, code := range scratch {
		to := &high[code>>8]
		codes[*to] = code
		*to++
	}
	return scratch
}
