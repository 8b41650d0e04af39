package column

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Fixed is the Arrow array of n values of a fixed width whose memory is data, which the array
// keeps. valid says which rows have a value; nil: all.
func Fixed(typ arrow.DataType, n int, data []byte, valid []bool) arrow.Array {
	bits, nulls := bitmap(valid)
	return build(typ, n, nulls, bits, memory.NewBufferBytes(data))
}

// Integers is the Arrow array of integers, of a type of 64 bits or of 32.
func Integers(typ arrow.DataType, values []int64, valid []bool) arrow.Array {
	if typ.ID() != arrow.DATE32 && typ.ID() != arrow.INT32 {
		return Fixed(typ, len(values), arrow.GetBytes(values), valid)
	}
	narrow := make([]int32, len(values))
	for i, x := range values {
		narrow[i] = int32(x)
	}
	return Fixed(typ, len(values), arrow.GetBytes(narrow), valid)
}

// Binary is the Arrow array of strings or byte strings that lie in data one behind the other:
// value i from offsets[i] to offsets[i+1]. The array keeps the memory of both.
func Binary(typ arrow.DataType, offsets []int32, data []byte, valid []bool) arrow.Array {
	bits, nulls := bitmap(valid)
	return build(typ, len(offsets)-1, nulls, bits, memory.NewBufferBytes(arrow.GetBytes(offsets)), memory.NewBufferBytes(data))
}

// Map is the Arrow array of maps whose entries lie one behind the other: those of map i from offsets[i] to
// offsets[i+1]. It keeps the memory of all three.
func Map[K, V arrow.FixedWidthType](typ *arrow.MapType, offsets []int32, keys []K, values []V) arrow.Array {
	entries := array.NewData(typ.Elem(), len(keys), []*memory.Buffer{nil}, []arrow.ArrayData{
		array.NewData(typ.KeyType(), len(keys), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.GetBytes(keys))}, nil, 0, 0),
		array.NewData(typ.ItemType(), len(keys), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.GetBytes(values))}, nil, 0, 0),
	}, 0, 0)
	return array.MakeFromData(array.NewData(typ, len(offsets)-1, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.GetBytes(offsets))},
		[]arrow.ArrayData{entries}, 0, 0))
}

// List is the Arrow array of lists whose values lie one behind the other: those of list i from offsets[i] to
// offsets[i+1]. It keeps the memory of offsets.
func List(typ arrow.DataType, offsets []int32, values arrow.Array) arrow.Array {
	return array.MakeFromData(array.NewData(arrow.ListOfNonNullable(typ), len(offsets)-1,
		[]*memory.Buffer{nil, memory.NewBufferBytes(arrow.GetBytes(offsets))}, []arrow.ArrayData{values.Data()}, 0, 0))
}

// Bits is the Arrow array of bools.
func Bits(values, valid []bool) arrow.Array {
	bits, nulls := bitmap(valid)
	return build(arrow.FixedWidthTypes.Boolean, len(values), nulls, bits, memory.NewBufferBytes(packed(values)))
}

func build(typ arrow.DataType, n, nulls int, buffers ...*memory.Buffer) arrow.Array {
	data := array.NewData(typ, n, buffers, nil, nulls, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

func bitmap(valid []bool) (*memory.Buffer, int) {
	nulls := 0
	for _, ok := range valid {
		if !ok {
			nulls++
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	return memory.NewBufferBytes(packed(valid)), nulls
}

// packed has bit i%8 of byte i/8 set where values[i].
func packed(values []bool) []byte {
	bits := make([]byte, (len(values)+7)/8)
	for i, on := range values {
		if on {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bits
}
