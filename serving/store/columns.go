package store

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A wired column is its values in ClickHouse's Native format, which for most types is Arrow's:
// numbers are their memory, little-endian; a Decimal is an integer of 4, 8, 16 or 32 bytes; a
// Bool is a byte; a String has its length before it; Nullable is a byte for each row, 1 where it
// is null, and then the values; an AggregateFunction is its states, one behind the other; a Map is
// where the entries of each row end, then all keys, then all values, and an Array likewise. The
// chunks are sent as they are, from the memory that they lie in.
//
// ClickHouse makes an object of each AggregateFunction state to write it again: that of uniq over a few values
// takes it 0.5 to 1 µs a row, all columns of numbers together 0.4, a Map of 15 entries 0.25.
// As strings, in a column SimpleAggregateFunction(groupArrayArray, Array(String)) that merges keep whole, they would
// take a quarter of that to insert: 0.1 s instead of 0.4 for 100,000 states of 90 values, 0.35 instead of 0.8 for
// 690,000 of 14 with the columns beside them. But whoever reads them has to cast them: 0.15 µs more for each state and
// reading, which is 10 to 17 % of merging them by group and 35 % of merging all into one. States are read more often
// than they are written, so they stay what they are.
type wired struct {
	typ    string
	rows   int
	chunks [][]byte
}

// smallChunk is up to where copying a chunk costs less than an entry in the list of what is written.
const smallChunk = 4 << 10

func (c wired) Type() proto.ColumnType { return proto.ColumnType(c.typ) }
func (c wired) Rows() int              { return c.rows }

func (c wired) EncodeColumn(b *proto.Buffer) {
	for _, chunk := range c.chunks {
		b.Buf = append(b.Buf, chunk...)
	}
}

func (c wired) WriteColumn(w *proto.Writer) {
	for _, chunk := range c.chunks {
		if len(chunk) > smallChunk {
			w.ChainWrite(chunk)
			continue
		}
		w.ChainBuffer(func(b *proto.Buffer) { b.Buf = append(b.Buf, chunk...) })
	}
}

// bytesOf is the memory of numbers or bools. ClickHouse and every machine that Arrow's Go
// library reads Parquet on are little-endian.
func bytesOf[T uint8 | bool | uint16 | int32 | int64 | uint64 | float64](values []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*int(unsafe.Sizeof(one)))
}

// wireArrays makes a column of arrays, one after the other.
func wireArrays(col column, arrays []arrow.Array) (wired, error) {
	out := wired{typ: col.typ}
	for _, a := range arrays {
		out.rows += a.Len()
		if a.NullN() > 0 && !col.nullable {
			return wired{}, fmt.Errorf("null in a column of %s", col.typ)
		}
	}
	if col.arrow.ID() == arrow.MAP {
		err := out.maps(col, arrays)
		return out, err
	}
	if col.arrow.ID() == arrow.LIST {
		err := out.lists(col, arrays)
		return out, err
	}
	if col.nullable {
		mask := make([]byte, 0, out.rows)
		for _, a := range arrays {
			mask = appendNulls(mask, a)
		}
		out.chunks = append(out.chunks, mask)
	}
	for _, a := range arrays {
		if a.Len() == 0 {
			continue
		}
		chunk, err := wireValues(col, a)
		if err != nil {
			return wired{}, err
		}
		out.chunks = append(out.chunks, chunk)
	}
	return out, nil
}

// maps adds the chunks of maps from codes to counts. Their offsets begin anew in each array.
func (c *wired) maps(col column, arrays []arrow.Array) error {
	ends, entries := make([]uint64, 0, c.rows), uint64(0)
	var keys, values [][]byte
	for _, arr := range arrays {
		a, ok := arr.(*array.Map)
		if !ok || !arrow.TypeEqual(a.DataType(), col.arrow) {
			return fmt.Errorf("no encoding of Arrow's %s as %s", arr.DataType(), col.typ)
		}
		if a.Len() == 0 {
			continue
		}
		offsets := a.Offsets()[a.Data().Offset():][:a.Len()+1]
		from, to := offsets[0], offsets[a.Len()]
		for _, end := range offsets[1:] {
			ends = append(ends, entries+uint64(end-from))
		}
		entries += uint64(to - from)
		keys = append(keys, bytesOf(a.Keys().(*array.Uint16).Uint16Values()[from:to]))
		values = append(values, bytesOf(a.Items().(*array.Uint64).Uint64Values()[from:to]))
	}
	c.chunks = append(append([][]byte{bytesOf(ends)}, keys...), values...)
	return nil
}

// lists adds the chunks of arrays: where each row's values end, then all values.
func (c *wired) lists(col column, arrays []arrow.Array) error {
	ends, entries := make([]uint64, 0, c.rows), uint64(0)
	var values []arrow.Array
	for _, arr := range arrays {
		a, ok := arr.(*array.List)
		if !ok || !arrow.TypeEqual(a.DataType(), col.arrow) {
			return fmt.Errorf("no encoding of Arrow's %s as %s", arr.DataType(), col.typ)
		}
		if a.Len() == 0 {
			continue
		}
		offsets := a.Offsets()[a.Data().Offset():][:a.Len()+1]
		from, to := offsets[0], offsets[a.Len()]
		for _, end := range offsets[1:] {
			ends = append(ends, entries+uint64(end-from))
		}
		entries += uint64(to - from)
		values = append(values, array.NewSlice(a.ListValues(), int64(from), int64(to)))
	}
	inner, err := wireArrays(column{typ: col.typ, arrow: col.arrow.(*arrow.ListType).Elem()}, values)
	c.chunks = append([][]byte{bytesOf(ends)}, inner.chunks...)
	return err
}

func appendNulls(mask []byte, a arrow.Array) []byte {
	start := len(mask)
	mask = append(mask, make([]byte, a.Len())...)
	if a.NullN() > 0 {
		for i := range a.Len() {
			if a.IsNull(i) {
				mask[start+i] = 1
			}
		}
	}
	return mask
}

// wireValues are an array's values; what is below a null is unspecified.
func wireValues(col column, arr arrow.Array) ([]byte, error) {
	switch a := arr.(type) {
	case *array.Dictionary:
		if words, ok := a.Dictionary().(*array.String); ok && col.arrow.ID() == arrow.STRING {
			return dictionaryTexts(a, words), nil
		}
	default:
		if arr.DataType().ID() != col.arrow.ID() {
			break
		}
		switch a := arr.(type) {
		case *array.Int64:
			return bytesOf(a.Int64Values()), nil
		case *array.Uint64:
			return bytesOf(a.Uint64Values()), nil
		case *array.Float64:
			return bytesOf(a.Float64Values()), nil
		case *array.Date32:
			return arrow.Date32Traits.CastToBytes(a.Date32Values()), nil
		case *array.Timestamp:
			return arrow.TimestampTraits.CastToBytes(a.TimestampValues()), nil
		case *array.Decimal128:
			return decimals(a, col.arrow.(*arrow.Decimal128Type).Precision), nil
		case *array.FixedSizeBinary:
			width := a.DataType().(*arrow.FixedSizeBinaryType).ByteWidth
			if width == col.arrow.(*arrow.FixedSizeBinaryType).ByteWidth {
				from := a.Data().Offset() * width
				return a.Data().Buffers()[1].Bytes()[from : from+a.Len()*width], nil
			}
		case *array.Boolean:
			return bools(a), nil
		case *array.String:
			return texts(a), nil
		case *array.Binary:
			return aggregates(a)
		}
	}
	return nil, fmt.Errorf("no encoding of Arrow's %s as %s", arr.DataType(), col.typ)
}

// decimals are the low bytes of Arrow's 16: as many as ClickHouse has for the precision.
func decimals(a *array.Decimal128, precision int32) []byte {
	wide := arrow.Decimal128Traits.CastToBytes(a.Values())
	switch {
	case precision <= 9:
		out := make([]byte, 0, 4*a.Len())
		for i := 0; i < len(wide); i += 16 {
			out = append(out, wide[i:i+4]...)
		}
		return out
	case precision <= 18:
		out := make([]byte, 0, 8*a.Len())
		for i := 0; i < len(wide); i += 16 {
			out = append(out, wide[i:i+8]...)
		}
		return out
	}
	return wide
}

func bools(a *array.Boolean) []byte {
	out := make([]byte, a.Len())
	for i := range out {
		if a.Value(i) {
			out[i] = 1
		}
	}
	return out
}

func texts(a *array.String) []byte {
	offsets, data := a.ValueOffsets(), a.ValueBytes()
	out := make([]byte, 0, len(data)+2*a.Len())
	for i := range a.Len() {
		from, to := offsets[i]-offsets[0], offsets[i+1]-offsets[0]
		out = appendWord(out, data[from:to])
	}
	return out
}

func appendWord[T string | []byte](out []byte, s T) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// dictionaryTexts encodes each word once and copies it wherever its code stands.
func dictionaryTexts(a *array.Dictionary, words *array.String) []byte {
	encoded := make([][]byte, words.Len())
	for i := range encoded {
		encoded[i] = appendWord(nil, words.Value(i))
	}
	var out []byte
	for i := range a.Len() {
		if a.IsNull(i) {
			out = append(out, 0)
			continue
		}
		out = append(out, encoded[a.GetValueIndex(i)]...)
	}
	return out
}

// aggregates are states one behind the other, as Arrow has them. A state tells its end itself, so
// an empty one would be read from the bytes of the next.
func aggregates(a *array.Binary) ([]byte, error) {
	offsets := a.ValueOffsets()
	for i := range a.Len() {
		if offsets[i] == offsets[i+1] {
			return nil, fmt.Errorf("state %d of %d has no bytes", i, a.Len())
		}
	}
	return a.ValueBytes(), nil
}
