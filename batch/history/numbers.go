package history

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/parquet-go/parquet-go/format"
)

// A numberDictionary numbers the integers or floats of a column chunk, told apart by their bits, in the order in which they
// come first.
type numberDictionary struct {
	table  []numberSlot // open addressing; a power of two, at most half full
	values []uint64
	out    []byte // scratch
}

// A numberSlot is taken if its code, plus one, is not zero.
type numberSlot struct {
	value uint64
	code  int32
}

func newNumberDictionary() *numberDictionary {
	return &numberDictionary{table: make([]numberSlot, firstSlots)}
}

func (d *numberDictionary) reset() {
	clear(d.table)
	d.values = d.values[:0]
}

// code is the number of a value.
func (d *numberDictionary) code(v uint64) int32 {
	for i := d.home(v); ; i = (i + 1) & (len(d.table) - 1) {
		s := &d.table[i]
		if s.code == 0 {
			d.values = append(d.values, v)
			code := int32(len(d.values))
			*s = numberSlot{v, code}
			if 2*len(d.values) > len(d.table) {
				d.grow()
			}
			return code - 1
		}
		if s.value == v {
			return s.code - 1
		}
	}
}

// home is the slot where the search for a value begins: the upper bits of its product with an odd number close to 2^64 by the
// golden ratio, in which all lower bits have a part.
func (d *numberDictionary) home(v uint64) int {
	return int((v ^ v>>32) * 0x9e3779b97f4a7c15 >> (64 - bits.TrailingZeros(uint(len(d.table)))))
}

func (d *numberDictionary) grow() {
	old := d.table
	d.table = make([]numberSlot, 2*len(old))
	for _, s := range old {
		if s.code == 0 {
			continue
		}
		i := d.home(s.value)
		for d.table[i].code != 0 {
			i = (i + 1) & (len(d.table) - 1)
		}
		d.table[i] = s
	}
}

// plain is the body of the dictionary page.
func (d *numberDictionary) plain(of format.Type) []byte {
	d.out = d.out[:0]
	for _, v := range d.values {
		if of == format.Int32 {
			d.out = binary.LittleEndian.AppendUint32(d.out, uint32(v))
		} else {
			d.out = binary.LittleEndian.AppendUint64(d.out, v)
		}
	}
	return d.out
}

// codeNumbers makes codes of the page's numbers. If the dictionary becomes too large by that, it stays as it was before, and
// this page and the rest of the row group go on without it.
func (c *columnWriter) codeNumbers() (coded bool) {
	p, d := &c.page, c.numbers
	before := len(d.values)
	p.codes = p.codes[:0]
	for _, v := range p.int64s {
		p.codes = append(p.codes, d.code(uint64(v)))
	}
	for _, v := range p.int32s {
		p.codes = append(p.codes, d.code(uint64(v)))
	}
	for _, v := range p.doubles {
		p.codes = append(p.codes, d.code(math.Float64bits(v)))
	}
	if 8*len(d.values) > maxDictBytes {
		d.values, c.dictFull = d.values[:before], true
		return false
	}
	return true
}
