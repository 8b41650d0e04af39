package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
)

// Arrow's types, as its schemas number them.
const (
	tagNull      = 1
	tagInt       = 2
	tagFloat     = 3
	tagBinary    = 4
	tagUtf8      = 5
	tagBool      = 6
	tagDecimal   = 7
	tagDate      = 8
	tagTime      = 9
	tagTimestamp = 10
	tagDuration  = 18
	tagLargeBin  = 19
	tagLargeUtf8 = 20
)

// A source is one column of a stream, and its part of the batch at hand.
type source struct {
	name []byte
	to   int // the decoder's column, -1 if it is ignored
	tag  int
	wide int // bits of a value, of an index if it is coded
	sign bool
	unit int64 // timestamps: units in a second
	// A coded column has numbers of a dictionary's entries.
	coded bool
	dict  int64
	known []int32 // numbers that the decoder gave to entries, plus 1

	valid  []byte // bitmap, nil if all are
	values []byte
	texts  *texts
}

// texts are those of a column or of a dictionary.
type texts struct {
	offsets []byte
	wide    bool // 64 bits each
	data    []byte
	n       int
}

func (t *texts) at(i int) []byte {
	if t.wide {
		return t.data[binary.LittleEndian.Uint64(t.offsets[8*i:]):binary.LittleEndian.Uint64(t.offsets[8*i+8:])]
	}
	return t.data[binary.LittleEndian.Uint32(t.offsets[4*i:]):binary.LittleEndian.Uint32(t.offsets[4*i+4:])]
}

// texts takes the offsets and the bytes of texts. All offsets are checked.
func (b *batch) texts(wide bool) (*texts, error) {
	size := 4
	if wide {
		size = 8
	}
	least := size * (b.rows + 1)
	if b.rows == 0 {
		least = 0 // some writers leave it out
	}
	t := &texts{offsets: b.buffer(least), wide: wide, data: b.buffer(0), n: b.rows}
	if b.err != nil || b.rows == 0 {
		return t, b.err
	}
	last := uint64(0)
	for i := range b.rows + 1 {
		var v uint64
		if wide {
			v = binary.LittleEndian.Uint64(t.offsets[8*i:])
		} else {
			v = uint64(binary.LittleEndian.Uint32(t.offsets[4*i:]))
		}
		if v < last || v > uint64(len(t.data)) {
			return nil, errBuffers
		}
		last = v
	}
	return t, nil
}

// schema matches the stream's columns with the decoder's.
func (s *stream) schema(head *flat, table int) error {
	if head.short(table, 0, 0) != 0 {
		return errors.New("a big-endian Arrow stream")
	}
	at, n := head.vector(table, 1, 4)
	if n > maxColumns {
		return fmt.Errorf("%d columns: at most %d are read", n, maxColumns)
	}
	s.columns = make([]source, n)
	for i := range n {
		c := &s.columns[i]
		if err := s.column(head, head.to(at+4*i), c); err != nil {
			return err
		}
		if head.broken {
			return errMetadata
		}
		if c.to < 0 {
			continue
		}
		if s.sources[c.to] != nil {
			return fmt.Errorf("field %s: comes twice", c.name)
		}
		s.sources[c.to] = c
	}
	if head.broken {
		return errMetadata
	}
	for i, c := range s.d.cols {
		if !c.optional && s.sources[i] == nil {
			return fmt.Errorf("field %s: missing", c.name)
		}
	}
	return nil
}

// column reads a column's declaration.
func (s *stream) column(head *flat, field int, c *source) error {
	c.name, c.tag = head.text(field, 0), head.byte(field, 2)
	typ, dict := head.child(field, 3), head.child(field, 4)
	i, declared := s.d.index[string(c.name)]
	c.to = i
	if !declared {
		if c.to = -1; !s.d.event.IgnoreUnknown {
			return fmt.Errorf("field %s: not declared", clip(c.name))
		}
	}
	precision, scale := 0, 0
	switch c.tag {
	case tagInt:
		c.wide, c.sign = head.int(typ, 0, 0), head.byte(typ, 1) != 0
	case tagFloat:
		c.wide = 16 << min(head.short(typ, 0, 0), 8)
	case tagDecimal:
		precision, scale, c.wide = head.int(typ, 0, 0), head.int(typ, 1, 0), head.int(typ, 2, 128)
	case tagDate:
		c.wide = 32 << min(head.short(typ, 0, 1), 1)
	case tagTimestamp:
		c.wide, c.unit = 64, [...]int64{1, 1e3, 1e6, 1e9}[head.short(typ, 0, 0)&3]
	case tagBool:
		c.wide = 1
	case tagTime, tagDuration:
		c.wide = 0 // no field can be one: it is passed by, whatever its width
	case tagUtf8, tagLargeUtf8, tagBinary, tagLargeBin, tagNull:
	default:
		return fmt.Errorf("field %s: a nested or unknown Arrow type (%d)", clip(c.name), c.tag)
	}
	if dict > 0 {
		c.coded, c.dict, c.wide, c.sign = true, head.long(dict, 0), 32, true
		if index := head.child(dict, 1); index > 0 {
			c.wide, c.sign = head.int(index, 0, 0), head.byte(index, 1) != 0
		}
	}
	if c.to < 0 {
		return nil
	}
	want := s.d.cols[i].typ
	fits := false
	switch want.Kind {
	case schemas.String:
		fits = (c.tag == tagUtf8 || c.tag == tagLargeUtf8) && (!c.coded || isIntWidth(c.wide))
	case schemas.Bool:
		fits = c.tag == tagBool && !c.coded
	case schemas.Int64:
		fits = c.tag == tagInt && !c.coded && isIntWidth(c.wide)
	case schemas.Float64:
		fits = c.tag == tagFloat && !c.coded && (c.wide == 32 || c.wide == 64)
	case schemas.Decimal:
		fits = c.tag == tagDecimal && !c.coded && c.wide == 128 && scale == want.Scale
	case schemas.Timestamp:
		fits = c.tag == tagTimestamp && !c.coded
	case schemas.Date:
		fits = c.tag == tagDate && !c.coded && c.wide == 32
	}
	if !fits {
		return fmt.Errorf("field %s: want %s, got an Arrow column of %s", c.name, want.Arrow(), c.describe(precision, scale))
	}
	return nil
}

func isIntWidth(n int) bool { return n == 8 || n == 16 || n == 32 || n == 64 }

// describe is the column's type, for messages.
func (c *source) describe(precision, scale int) string {
	name := map[int]string{tagNull: "nulls", tagBinary: "binary", tagUtf8: "utf8", tagBool: "bool", tagTime: "time", tagTimestamp: "timestamp",
		tagDuration: "duration", tagLargeBin: "large binary", tagLargeUtf8: "large utf8"}[c.tag]
	switch {
	case c.tag == tagDecimal:
		name = fmt.Sprintf("decimal%d(%d, %d)", c.wide, precision, scale)
	case c.coded:
		name = fmt.Sprintf("a dictionary with indexes of %d bits", c.wide)
	case c.tag == tagInt && !c.sign:
		name = fmt.Sprintf("uint%d", c.wide)
	case c.tag == tagInt:
		name = fmt.Sprintf("int%d", c.wide)
	case c.tag == tagFloat:
		name = fmt.Sprintf("float%d", c.wide)
	case c.tag == tagDate:
		name = fmt.Sprintf("date%d", c.wide)
	}
	return name
}

// take takes the column's buffers from a batch.
func (c *source) take(b *batch) error {
	nulls := b.node()
	if c.tag == tagNull && !c.coded {
		return b.err // it has no buffers
	}
	c.valid = b.buffer(0)
	if len(c.valid) == 0 && nulls > 0 || len(c.valid) > 0 && nulls > 0 && len(c.valid) < (b.rows+7)/8 {
		return errBuffers
	}
	if nulls == 0 {
		c.valid = nil
	}
	if !c.coded && (c.tag == tagUtf8 || c.tag == tagLargeUtf8 || c.tag == tagBinary || c.tag == tagLargeBin) {
		if c.to < 0 {
			b.buffer(0)
			b.buffer(0)
			return b.err
		}
		var err error
		c.texts, err = b.texts(c.tag == tagLargeUtf8)
		return err
	}
	c.values = b.buffer(0)
	if c.to < 0 || b.err != nil {
		return b.err
	}
	if len(c.values) < (b.rows*c.wide+7)/8 {
		return errBuffers
	}
	return nil
}

func (c *source) isNull(r int) bool { return c.valid != nil && c.valid[r/8]>>(r%8)&1 == 0 }

// integer is the value of a row of integers, indexes, dates or timestamps; not ok if it is beyond 64 bits.
func (c *source) integer(r int) (v int64, ok bool) {
	switch b := c.values; {
	case c.wide == 64:
		u := binary.LittleEndian.Uint64(b[8*r:])
		return int64(u), c.sign || c.tag == tagTimestamp || u <= math.MaxInt64
	case c.wide == 32 && (c.sign || c.tag == tagDate):
		return int64(int32(binary.LittleEndian.Uint32(b[4*r:]))), true
	case c.wide == 32:
		return int64(binary.LittleEndian.Uint32(b[4*r:])), true
	case c.wide == 16 && c.sign:
		return int64(int16(binary.LittleEndian.Uint16(b[2*r:]))), true
	case c.wide == 16:
		return int64(binary.LittleEndian.Uint16(b[2*r:])), true
	case c.sign:
		return int64(int8(b[r])), true
	default:
		return int64(b[r]), true
	}
}

func (c *source) float(r int) float64 {
	if c.wide == 32 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(c.values[4*r:])))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(c.values[8*r:]))
}

func (c *source) decimal(r int) decimal128.Num {
	return decimal128.New(int64(binary.LittleEndian.Uint64(c.values[16*r+8:])), binary.LittleEndian.Uint64(c.values[16*r:]))
}

// micros is a timestamp in microseconds, rounded down; not ok if that is beyond 64 bits.
func (c *source) micros(r int) (int64, bool) {
	v, _ := c.integer(r)
	if by := int64(1e6) / max(c.unit, 1); by >= 1 {
		return v * by, v <= math.MaxInt64/by && v >= math.MinInt64/by
	}
	by := c.unit / 1e6
	q := v / by
	if v%by < 0 {
		q--
	}
	return q, true
}

// fitsIn reports that a decimal has at most p digits.
func fitsIn(v decimal128.Num, p int) bool {
	if v.Sign() < 0 {
		v = v.Negate()
	}
	hi, lo := uint64(0), uint64(1) // 10^p
	for range p {
		over, low := bits.Mul64(lo, 10)
		hi, lo = hi*10+over, low
	}
	_, borrow := bits.Sub64(v.LowBits(), lo, 0)
	_, borrow = bits.Sub64(uint64(v.HighBits()), hi, borrow)
	return borrow == 1
}
