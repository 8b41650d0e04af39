package view

import "math/bits"

// A table holds the numbers of 64-bit keys: open addressing with the key beside its number,
// one cache line a look-up.
type table struct {
	slots []entry
	shift uint8 // 64 - log2(len(slots))
	n     int   // keys held
}

type entry struct {
	key uint64
	id  int32 // number + 1; 0: free
}

const smallTable = 1 << 8

// number is the number of a key; one that is new gets next.
func (t *table) number(key uint64, next int32) int32 {
	if t.full() {
		t.resize(max(smallTable, 2*len(t.slots)))
	}
	mask := len(t.slots) - 1
	for i := int(key * 0x9E3779B97F4A7C15 >> t.shift); ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.id == 0 {
			*s = entry{key, next + 1}
			t.n++
			return next
		}
		if s.key == key {
			return s.id - 1
		}
	}
}

// full reports whether the next new key makes the table larger.
func (t *table) full() bool { return 4*t.n >= 3*len(t.slots) }

func (t *table) resize(size int) {
	old := t.slots
	t.slots, t.n, t.shift = make([]entry, size), 0, uint8(64-bits.Len(uint(size-1)))
	for _, s := range old {
		if s.id != 0 {
			t.number(s.key, s.id-1)
		}
	}
}

// fill holds the keys, whose numbers are their indexes, and no others.
func (t *table) fill(keys []uint64) {
	size := max(smallTable, len(t.slots))
	for 4*len(keys) >= 3*size {
		size *= 2
	}
	t.reset()
	if size != len(t.slots) {
		t.resize(size)
	}
	for id, key := range keys {
		t.number(key, int32(id))
	}
}

// reset forgets the keys. A table that was far too large gives half of its slots back, so that
// one big fold does not slow all later ones.
func (t *table) reset() {
	if len(t.slots) > smallTable && 16*t.n < len(t.slots) {
		t.slots, t.shift = make([]entry, len(t.slots)/2), t.shift+1
	} else {
		clear(t.slots)
	}
	t.n = 0
}

func (t *table) bytes() int64 { return 16 * int64(cap(t.slots)) }
