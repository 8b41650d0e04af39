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
		for i := range s.few {
			w := s.few[i]
			if w>>16 == code {
				if w&0xFFFF == 0xFFFF {
					break
				}
				s.few[i] = w + 1
				return
			}
			if w == 0 {
				s.few[i] = code<<16 | 1
				s.n++
				return
			}
		}
		c.enlarge(s)
	}
	seg := c.arena.seg(s.ref, s.log)
	mask := uint32(len(seg) - 1)
	for i := code; ; i++ {
		w := &seg[i&mask]
		if uint32(*w>>codeShift) == code {
			*w++
			return
		}
		if *w == 0 {
			*w = uint64(code)<<codeShift | 1
			if s.n++; int(s.n) > len(seg)-len(seg)/4 || i-code > maxProbe && s.log < codeBits {
				c.enlarge(s)
			}
			return
		}
	}
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

// sorted are the words of a group, ascending, until the next call.
func (c *sketches) sorted(g int32) []uint64 {
	s := &c.at[g]
	out := c.words[:0]
	if s.log == 0 {
		for _, w := range s.few[:s.n] {
			out = append(out, uint64(w>>16)<<codeShift|uint64(w&0xFFFF))
			for k := len(out) - 1; k > 0 && out[k] < out[k-1]; k-- {
				out[k], out[k-1] = out[k-1], out[k]
			}
		}
		c.words = out
		return out
	}
	seg := c.arena.seg(s.ref, s.log)
	low := 0
	for i, w := range seg {
		if w != 0 && (seg[low] == 0 || w < seg[low]) {
			low = i
		}
	}
	for _, part := range [2][]uint64{seg[low:], seg[:low]} {
		for _, w := range part {
			if w != 0 {
				out = append(out, w)
			}
		}
	}
	if !slices.IsSorted(out) { // wider than the table
		slices.Sort(out)
	}
	c.words = out
	return out
}
