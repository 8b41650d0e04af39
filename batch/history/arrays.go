package history

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

// dictionaryType is the Arrow type of a string column that is stored with a dictionary.
var dictionaryType = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}

// An arrayMaker turns the pages of one column of a data file into Arrow arrays. Arrays share the memory
// that pages were decoded into, which is never used again.
type arrayMaker struct {
	typ  arrow.DataType
	dict *values         // the dictionary that strings was made of
	text arrow.ArrayData // its Arrow form, one object for all pages that refer to it
}

// make turns a page into an array of its rows.
func (m *arrayMaker) make(p *page) (arrow.Array, error) {
	validity, nulls := bitmap(p.levels), 0
	if p.levels != nil {
		nulls = p.rows - countOnes(p.levels)
	}
	if p.dict != nil && m.typ.ID() == arrow.STRING {
		return m.dictionary(p, validity, nulls)
	}
	var buffers []*memory.Buffer
	v := &p.values
	if p.dict != nil {
		if m.typ.ID() == arrow.BOOL {
			return nil, fmt.Errorf("a dictionary of %s", m.typ)
		}
		numbers := gather(p.dict, p.codes, decimalBytes)
		v = &numbers
	}
	switch m.typ.ID() {
	case arrow.STRING:
		offsets, err := stringOffsets(v, p.levels, p.rows)
		if err != nil {
			return nil, err
		}
		buffers = []*memory.Buffer{buffer(offsets), memory.NewBufferBytes(v.data)}
	case arrow.BOOL:
		buffers = []*memory.Buffer{memory.NewBufferBytes(scatterBits(v.bits, p.levels))}
	case arrow.INT64, arrow.TIMESTAMP:
		buffers = []*memory.Buffer{buffer(scatter(v.int64s, p.levels))}
	case arrow.INT32, arrow.DATE32:
		buffers = []*memory.Buffer{buffer(scatter(v.int32s, p.levels))}
	case arrow.FLOAT64:
		buffers = []*memory.Buffer{buffer(scatter(v.doubles, p.levels))}
	case arrow.DECIMAL128:
		buffers = []*memory.Buffer{buffer(scatter(decimals(v), p.levels))}
	default:
		return nil, fmt.Errorf("unexpected type %s", m.typ)
	}
	return array.MakeFromData(array.NewData(m.typ, p.rows, append([]*memory.Buffer{validity}, buffers...), nil, nulls, 0)), nil
}

func (m *arrayMaker) dictionary(p *page, validity *memory.Buffer, nulls int) (arrow.Array, error) {
	if m.dict != p.dict {
		if len(p.dict.data) > math.MaxInt32 {
			return nil, fmt.Errorf("dictionary of %d bytes", len(p.dict.data))
		}
		m.dict = p.dict
		m.text = array.NewData(arrow.BinaryTypes.String, p.dict.n,
			[]*memory.Buffer{nil, buffer(p.dict.offsets), memory.NewBufferBytes(p.dict.data)}, nil, 0, 0)
	}
	codes := scatter(p.codes, p.levels)
	data := array.NewDataWithDictionary(dictionaryType, p.rows, []*memory.Buffer{validity, buffer(codes)}, nulls, 0, m.text.(*array.Data))
	return array.NewDictionaryData(data), nil
}

// part is n rows of an array. What arrays otherwise find out when they are first asked, their nulls and
// dictionary, is found out now, so that whoever reads the part changes nothing in it.
func part(arr arrow.Array, from, n int) arrow.Array {
	if from > 0 || n < arr.Len() {
		arr = array.NewSlice(arr, int64(from), int64(from+n))
	}
	arr.NullN()
	if d, ok := arr.(*array.Dictionary); ok {
		d.Dictionary()
	}
	return arr
}

// nulls are n nulls of a field's type; of strings, in a dictionary.
func nulls(typ arrow.DataType, n int) arrow.Array {
	if typ.ID() != arrow.STRING {
		return array.MakeArrayOfNull(memory.DefaultAllocator, typ, n)
	}
	// The codes under the nulls are 0, which is an entry for whoever looks codes up before the nulls.
	text := array.NewData(arrow.BinaryTypes.String, 1, []*memory.Buffer{nil, buffer([]uint32{0, 0}), memory.NewBufferBytes(nil)}, nil, 0, 0)
	validity := memory.NewBufferBytes(make([]byte, bitutil.BytesForBits(int64(n))))
	return array.NewDictionaryData(array.NewDataWithDictionary(dictionaryType, n,
		[]*memory.Buffer{validity, buffer(make([]int32, n))}, n, 0, text))
}

// buffer is a slice's memory.
func buffer[T any](s []T) *memory.Buffer {
	if len(s) == 0 {
		return memory.NewBufferBytes(nil)
	}
	var zero T
	return memory.NewBufferBytes(unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(zero))))
}

// bitmap is the validity of levels; nil if every row is valid.
func bitmap(levels []byte) *memory.Buffer {
	if levels == nil {
		return nil
	}
	bits := make([]byte, bitutil.BytesForBits(int64(len(levels))))
	for i, l := range levels {
		bits[i/8] |= l << (i % 8)
	}
	return memory.NewBufferBytes(bits)
}

// scatter puts each value into its row. Without nulls it is the values themselves.
func scatter[T any](values []T, levels []byte) []T {
	if levels == nil {
		return values
	}
	out := make([]T, len(levels))
	k := 0
	for i, l := range levels {
		if l != 0 {
			out[i] = values[k]
			k++
		}
	}
	return out
}

func scatterBits(bits, levels []byte) []byte {
	if levels == nil {
		return bits
	}
	out := make([]byte, bitutil.BytesForBits(int64(len(levels))))
	k := 0
	for i, l := range levels {
		if l != 0 {
			bitutil.SetBitTo(out, i, bitutil.BitIsSet(bits, k))
			k++
		}
	}
	return out
}

// stringOffsets are Arrow's offsets of the rows: a null has length 0.
func stringOffsets(v *values, levels []byte, rows int) ([]uint32, error) {
	if len(v.data) > math.MaxInt32 {
		return nil, fmt.Errorf("page of %d bytes of strings", len(v.data))
	}
	if levels == nil {
		return v.offsets, nil
	}
	out := make([]uint32, rows+1)
	k := 0
	for i, l := range levels {
		k += int(l)
		out[i+1] = v.offsets[k]
	}
	return out, nil
}

// decimalBytes are those of a decimal that is no INT64.
const decimalBytes = 16

func decimals(v *values) []decimal128.Num {
	out := make([]decimal128.Num, v.n)
	if v.int64s != nil {
		for i, x := range v.int64s {
			out[i] = decimal128.FromI64(x)
		}
		return out
	}
	for i := range out {
		b := v.data[decimalBytes*i : decimalBytes*(i+1)]
		out[i] = decimal128.New(int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:]))
	}
	return out
}

// physical is how a field's type is stored in data files.
func physical(t schemas.Type) format.Type {
	switch t.Kind {
	case schemas.String:
		return format.ByteArray
	case schemas.Bool:
		return format.Boolean
	case schemas.Float64:
		return format.Double
	case schemas.Date:
		return format.Int32
	case schemas.Decimal:
		if t.Precision > 18 {
			return format.FixedLenByteArray
		}
	}
	return format.Int64
}
