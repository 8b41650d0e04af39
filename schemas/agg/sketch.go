package agg

import "slices"

const (
	fewBins  = 6  // bins that a sketch holds without a segment
	maxProbe = 64 // slots that are looked at before a table is made larger
	codeBits = 16
)

// A sketch is the counted bins of one group: half a cache line, which is all there is of a few
// bins, and no pointer. A larger one is a table of words in a segment of the arena, placed by
// the lower bits of the code: neighbouring bins, which most sketches consist of, lie side by
// side and do not collide, and a walk from the lowest is in order.
type sketch struct {
	n   uint16 // bins
	log uint8  // of the segment; 0: none
	ref uint32
	few [fewBins]uint32 // code in the upper half, count in the lower
}

type sketches struct {
	at    []sketch
	arena arena[uint64] // 0 is a free slot
	words []uint64
}

func (c *sketches) reset() {
	clear(c.at)
	c.at = c.at[:0]
	c.arena.reset()
}

func (c *sketches) bytes() int64 {
	return 32*int64(cap(c.at)) + c.arena.bytes() + 8*int64(cap(c.words))
}

// count counts a value of a group by its code.
func (c *sketches) count(g int32, code uint32) {
	s := &c.at[g]
	if s.log == 0 {
		full := false
		for i, w := range s.few { // to the end: a loop's end that varies would be guessed wrong
			if w>>16 == code {
				if full = w&0xFFFF == 0xFFFF; full {
					break
				}
				s.few[i] = w + 1
				return
			}
		}
		if s.n < fewBins && !full {
			s.few[s.n] = code<<16 | 1
			s.n++
			return
		}
		c.enlarge(s)
	}
	c.put(s, code, 1)
}

// put counts a code so many times in a sketch that has a segment.
func (c *sketches) put(s *sketch, code uint32, n uint64) {
	seg := c.arena.seg(s.ref, s.log)
	mask := uint32(len(seg) - 1)
	for i := code; ; i++ {
		w := &seg[i&mask]
		if uint32(*w>>codeShift) == code {
			*w += n
			return
		}
		if *w == 0 {
			*w = uint64(code)<<codeShift | n
			if s.n++; int(s.n) > len(seg)-len(seg)/4 || i-code > maxProbe && s.log < codeBits {
				c.enlarge(s)
			}
			return
		}
	}
}

// merge adds the sketches of others, the k-th to that of groups[k].
func (c *sketches) merge(groups []int32, o *sketches) {
	for k, g := range groups {
		s, other := &c.at[g], &o.at[k]
		switch {
		case other.log == 0:
			for _, w := range other.few[:other.n] {
				c.add(s, w>>16, w&0xFFFF)
			}
			continue
		case s.n == 0 && s.log == 0:
			var seg []uint64
			*s = *other
			s.ref, seg = c.arena.get(s.log)
			copy(seg, o.arena.seg(other.ref, other.log))
			continue
		}
		for s.log < other.log {
			c.enlarge(s)
		}
		for _, w := range o.arena.seg(other.ref, other.log) {
			if w != 0 {
				c.put(s, uint32(w>>codeShift), w&countMask)
			}
		}
	}
}

// add counts a code so many times, up to 65,535.
func (c *sketches) add(s *sketch, code, n uint32) {
	if s.log == 0 {
		i := 0
		for i < int(s.n) && s.few[i]>>16 != code {
			i++
		}
		switch {
		case i < int(s.n) && s.few[i]&0xFFFF+n <= 0xFFFF:
			s.few[i] += n
			return
		case i == int(s.n) && i < fewBins:
			s.few[i] = code<<16 | n
			s.n++
			return
		}
		c.enlarge(s)
	}
	c.put(s, code, uint64(n))
}

// enlarge moves a sketch into the next larger segment. One of 1<<codeBits slots has a slot for
// every code.
func (c *sketches) enlarge(s *sketch) {
	log := s.log + 1
	if s.log == 0 {
		log = firstLog
	}
	ref, seg := c.arena.get(log)
	mask := uint32(len(seg) - 1)
	put := func(w uint64) {
		i := uint32(w >> codeShift)
		for seg[i&mask] != 0 {
			i++
		}
		seg[i&mask] = w
	}
	if s.log == 0 {
		for _, w := range s.few {
			if w != 0 {
				put(uint64(w>>16)<<codeShift | uint64(w&0xFFFF))
			}
		}
	} else {
		for _, w := range c.arena.seg(s.ref, s.log) {
			if w != 0 {
				put(w)
			}
		}
		c.arena.put(s.ref, s.log)
	}
	s.ref, s.log = ref, log
}

// room is about how many bytes the sketches of the groups take encoded.
func (c *sketches) room(groups []int32) int {
	n := 0
	for _, g := range groups {
		n += int(c.at[g].n)
	}
	return 10*n + 64*len(groups)
}

// append encodes a group's sketch.
func (c *sketches) append(b []byte, g int32) []byte {
	s := &c.at[g]
	if s.log == 0 {
		var own [fewBins]uint64
		for i, w := range s.few[:s.n] {
			x := uint64(w>>16)<<codeShift | uint64(w&0xFFFF)
			for ; i > 0 && own[i-1] > x; i-- {
				own[i] = own[i-1]
			}
			own[i] = x
		}
		return appendSketch(b, own[:s.n])
	}
	return appendSketch(b, c.sorted(s))
}

// sorted are the words of a sketch that has a segment, ascending, until the next call.
func (c *sketches) sorted(s *sketch) []uint64 {
	// Without a branch: whether a slot is free cannot be foreseen.
	out := sized(c.words, 2*int(s.n)+1)
	n, lowest := 0, 0
	for _, w := range c.arena.seg(s.ref, s.log) {
		out[n] = w
		n += int(one(w != 0))
	}
	for i := 1; i < n; i++ {
		if out[i] < out[i-1] {
			lowest = i
			break
		}
	}
	// The walk from the lowest on is in order, unless the bins are wider than the table.
	copy(out[n:], out[:lowest])
	c.words = out
	if out = out[lowest : lowest+n]; !slices.IsSorted(out) {
		slices.Sort(out)
	}
	return out
}
