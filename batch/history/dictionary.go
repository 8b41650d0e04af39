package history

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/apache/arrow/go/v15/arrow/array"
)

// A dictionary numbers the strings of a column chunk in the order in which they come first, so that equal rows make equal
// bytes.
type dictionary struct {
	seed  maphash.Seed
	table []dictSlot // open addressing; a power of two, at most three quarters full
	data  []byte     // strings, end to end
	ends  []uint32
	seen  []int32 // by entry: the page, plus one, whose statistics have it
	out   []byte  // scratch
}

// A dictSlot is taken if its code, plus one, is not zero.
type dictSlot struct {
	hash uint32
	code int32
}

const firstSlots = 256

func newDictionary() *dictionary {
	return &dictionary{seed: maphash.MakeSeed(), table: make([]dictSlot, firstSlots)}
}

func (d *dictionary) reset() {
	clear(d.table)
	d.data, d.ends, d.seen = d.data[:0], d.ends[:0], d.seen[:0]
}

func (d *dictionary) n() int { return len(d.seen) }

// bytes is the size of the dictionary page, uncompressed.
func (d *dictionary) bytes() int { return len(d.data) + 4*len(d.ends) }

func (d *dictionary) entry(code int32) []byte {
	from := uint32(0)
	if code > 0 {
		from = d.ends[code-1]
	}
	return d.data[from:d.ends[code]]
}

// text is the code of a string.
func (d *dictionary) text(v string) int32 {
	h := uint32(maphash.String(d.seed, v))
	for i := int(h) & (len(d.table) - 1); ; i = (i + 1) & (len(d.table) - 1) {
		s := &d.table[i]
		if s.code == 0 {
			d.data = append(d.data, v...)
			d.ends = append(d.ends, uint32(len(d.data)))
			return d.put(s, h)
		}
		if s.hash == h && string(d.entry(s.code-1)) == v {
			return s.code - 1
		}
	}
}

func (d *dictionary) put(s *dictSlot, h uint32) int32 {
	d.seen = append(d.seen, 0)
	code := int32(len(d.seen))
	*s = dictSlot{h, code}
	if 4*int(code) > 3*len(d.table) {
		d.grow()
	}
	return code - 1
}

func (d *dictionary) grow() {
	old := d.table
	d.table = make([]dictSlot, 2*len(old))
	for _, s := range old {
		if s.code == 0 {
			continue
		}
		i := int(s.hash) & (len(d.table) - 1)
		for d.table[i].code != 0 {
			i = (i + 1) & (len(d.table) - 1)
		}
		d.table[i] = s
	}
}

// plain is the body of the dictionary page.
func (d *dictionary) plain() []byte {
	d.out = d.out[:0]
	for code := range d.ends {
		e := d.entry(int32(code))
		d.out = binary.LittleEndian.AppendUint32(d.out, uint32(len(e)))
		d.out = append(d.out, e...)
	}
	return d.out
}

// A dictionarySource is the Arrow dictionary that codes come from, and what they are in ours; -1: not yet known.
type dictionarySource struct {
	data    *array.Data
	strings *array.String
	codes   []int32
}
