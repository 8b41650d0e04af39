package view

import "math/bits"

// A table numbers 64-bit keys from 0 in the order in which they are first seen: open
// addressing with the key beside its number, one cache line a look-up.
type table struct {
	slots []entry
	shift uint8    // 64 - log2(len(slots))
	keys  []uint64 // by number
}

type entry struct {
	key uint64
	id  int32 // number + 1; 0: free
}

const smallTable = 1 << 8

// number is the number of a key.
func (t *table) number(key uint64) int32 {
	if 4*len(t.keys) >= 3*len(t.slots) {
		t.grow()
	}
	mask := len(t.slots) - 1
	for i := int(key * 0x9E3779B97F4A7C15 >> t.shift); ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.id == 0 {
			t.keys = append(t.keys, key)
			*s = entry{key, int32(len(t.keys))}
			return s.id - 1
		}
		if s.key == key {
			return s.id - 1
		}
	}
}

func (t *table) grow() {
	size := max(smallTable, 2*len(t.slots))
	t.slots = make([]entry, size)
	t.fill()
}

// fill puts the keys into free slots.
func (t *table) fill() {
	mask := len(t.slots) - 1
	t.shift = uint8(64 - bits.Len(uint(mask)))
	for id, key := range t.keys {
		i := int(key*0x9E3779B97F4A7C15>>t.shift) & mask
		for t.slots[i].id != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = entry{key, int32(id) + 1}
	}
}

// reset forgets the keys. A table that was far too large gives half of its slots back, so that
// one big fold does not slow all later ones.
func (t *table) reset() {
	if len(t.slots) > smallTable && 16*len(t.keys) < len(t.slots) {
		t.slots = make([]entry, len(t.slots)/2)
	}
	t.keys = t.keys[:0]
	clear(t.slots)
	if len(t.slots) > 0 {
		t.fill()
	}
}

func (t *table) bytes() int64 { return 16*int64(cap(t.slots)) + 8*int64(cap(t.keys)) }
