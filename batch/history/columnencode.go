package history

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/format"
)

// encodeLevels says by row whether there is a value; nothing for a column that always has one.
func (c *columnWriter) encodeLevels() ([]byte, error) {
	p := &c.page
	if !c.optional {
		return nil, nil
	}
	if p.stats.nulls == 0 { // one run
		return append(binary.AppendUvarint(nil, uint64(p.rows)<<1), 1), nil
	}
	return (&rle.Encoding{BitWidth: 1}).EncodeLevels(nil, p.levels)
}

// encode leaves the page's values in c.raw, and returns their encoding.
func (c *columnWriter) encode() (format.Encoding, error) {
	p, enc, err := &c.page, c.withoutDictionary(), error(nil)
	if !c.dictFull && (c.dict != nil || c.numbers != nil && c.codeNumbers()) {
		c.raw, err = parquet.RLEDictionary.EncodeInt32(c.raw, p.codes)
		return format.RLEDictionary, err
	}
	switch plain := enc == format.Plain; {
	case !plain && enc != format.DeltaBinaryPacked && enc != format.DeltaLengthByteArray && enc != format.DeltaByteArray:
		return 0, fmt.Errorf("encoding %s is not written", enc)
	case !plain && (c.physical == format.Double || c.physical == format.FixedLenByteArray || c.physical == format.Boolean):
		return 0, fmt.Errorf("encoding %s of %s is not written", enc, c.physical)
	case c.physical == format.ByteArray:
		return enc, c.encodeStrings(enc)
	case c.physical == format.Int64 && !plain:
		c.raw, err = parquet.DeltaBinaryPacked.EncodeInt64(c.raw, p.int64s)
	case c.physical == format.Int32 && !plain:
		c.raw, err = parquet.DeltaBinaryPacked.EncodeInt32(c.raw, p.int32s)
	case c.physical == format.Int64:
		c.raw = append(c.raw[:0], bytesOf(p.int64s)...)
	case c.physical == format.Int32:
		c.raw = append(c.raw[:0], bytesOf(p.int32s)...)
	case c.physical == format.Double:
		c.raw = append(c.raw[:0], bytesOf(p.doubles)...)
	case c.physical == format.FixedLenByteArray:
		c.raw = append(c.raw[:0], p.fixed...)
	case c.physical == format.Boolean:
		c.raw = c.raw[:0]
		for i, b := range p.bits {
			if i%8 == 0 {
				c.raw = append(c.raw, 0)
			}
			c.raw[i/8] |= b << (i % 8)
		}
	default:
		return 0, fmt.Errorf("%s is not written", c.physical)
	}
	return enc, err
}

// bytesOf is the memory of numbers, which Parquet's plain encoding is on a little-endian machine.
func bytesOf[T int32 | int64 | float64](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}

func (c *columnWriter) encodeStrings(enc format.Encoding) (err error) {
	p := &c.page
	if enc == format.Plain {
		c.raw = c.raw[:0]
		from := uint32(0)
		for _, end := range p.ends {
			c.raw = binary.LittleEndian.AppendUint32(c.raw, end-from)
			c.raw = append(c.raw, p.data[from:end]...)
			from = end
		}
		return nil
	}
	c.lengths = c.lengths[:0]
	if enc == format.DeltaLengthByteArray {
		from := uint32(0)
		for _, end := range p.ends {
			c.lengths = append(c.lengths, int32(end-from))
			from = end
		}
		if c.raw, err = parquet.DeltaBinaryPacked.EncodeInt32(c.raw, c.lengths); err == nil {
			c.raw = append(c.raw, p.data...)
		}
		return err
	}
	return c.encodePrefixed()
}

// encodePrefixed stores of each string how much of its beginning is that of the one before, and the rest.
func (c *columnWriter) encodePrefixed() (err error) {
	p := &c.page
	c.shared, c.extra = c.shared[:0], c.extra[:0]
	var before []byte
	from := uint32(0)
	for _, end := range p.ends {
		v := p.data[from:end:end]
		n := sharedPrefix(before, v)
		c.shared = append(c.shared, int32(n))
		c.lengths = append(c.lengths, int32(len(v)-n))
		c.extra = append(c.extra, v[n:]...)
		before, from = v, end
	}
	var lengths []byte
	if c.raw, err = parquet.DeltaBinaryPacked.EncodeInt32(c.raw, c.shared); err != nil {
		return err
	}
	if lengths, err = parquet.DeltaBinaryPacked.EncodeInt32(c.packed, c.lengths); err != nil {
		return err
	}
	c.packed = lengths
	c.raw = append(append(c.raw, lengths...), c.extra...)
	return nil
}

// sharedPrefix is how many bytes two strings begin with alike, looked at eight at a time.
func sharedPrefix(a, b []byte) int {
	n := 0
	for len(a)-n >= 8 && len(b)-n >= 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
