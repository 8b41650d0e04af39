// Package column is the form in which expressions and measures see a block of events: typed
// slices with one validity mask. A Block reads the columns of an Arrow record on demand, once
// for all plans that fold it, and remembers the vectors of shared sub-expressions.
package column

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
)

// A Vector holds one value per row of a block. Which slice is set follows from Kind. The
// value at an invalid row is unspecified. Vectors share memory with the record that they were
// read from and with each other: they are read only, and valid as long as the record.
type Vector struct {
	Kind     schemas.Kind
	Ints     []int64          // Int64; Timestamp in microseconds; Date in days
	Floats   []float64        // Float64
	Bools    []bool           // Bool
	Decimals []decimal128.Num // Decimal, unscaled
	Codes    []int32          // String: Dict[Codes[i]]
	Dict     *Dict            // String
	Valid    []bool           // nil: every row is valid
}

// Slice is the vector of rows from..to.
func (v Vector) Slice(from, to int) Vector {
	v.Ints, v.Floats, v.Bools = part(v.Ints, from, to), part(v.Floats, from, to), part(v.Bools, from, to)
	v.Decimals, v.Codes, v.Valid = part(v.Decimals, from, to), part(v.Codes, from, to), part(v.Valid, from, to)
	return v
}

func part[T any](s []T, from, to int) []T {
	if s == nil {
		return nil
	}
	return s[from:to]
}

// A Dict is the dictionary of a string vector. It may hold a string more than once. A Dict is
// immutable, and blocks that share a dictionary share the pointer: what is computed per entry
// can be kept by it.
type Dict struct {
	Strings []string
}

// A Reader makes Blocks of the records of one stream, and keeps dictionaries over them. It
// must not be used by two goroutines at once; its Blocks may, once their vectors are read.
type Reader struct {
	dicts map[string]dictEntry // by field: the dictionary seen last
}

type dictEntry struct {
	data arrow.ArrayData // kept, so that its address is not used again
	dict *Dict
}

// NewReader returns a Reader.
func NewReader() *Reader { return &Reader{dicts: make(map[string]dictEntry)} }

// Block wraps a record. The record must outlive the block.
func (r *Reader) Block(rec arrow.Record) *Block {
	return &Block{reader: r, rec: rec, memo: make(map[string]Vector)}
}

// A Block is a record of events whose columns are read as vectors.
type Block struct {
	reader *Reader
	rec    arrow.Record
	memo   map[string]Vector
}

// Len is the number of rows.
func (b *Block) Len() int { return int(b.rec.NumRows()) }

// Memo returns the vector that compute made for the key before, or makes it now. Keys of
// expressions are their canonical text, so that plans share equal sub-expressions.
func (b *Block) Memo(key string, compute func() (Vector, error)) (Vector, error) {
	if v, ok := b.memo[key]; ok {
		return v, nil
	}
	v, err := compute()
	if err == nil {
		b.memo[key] = v
	}
	return v, err
}

// Field returns the vector of the record's column of that name.
func (b *Block) Field(name string) (Vector, error) {
	return b.Memo("\x00"+name, func() (Vector, error) {
		at := b.rec.Schema().FieldIndices(name)
		if len(at) != 1 {
			return Vector{}, fmt.Errorf("record has %d columns named %s", len(at), name)
		}
		v, err := b.reader.read(name, b.rec.Column(at[0]))
		if err != nil {
			return Vector{}, fmt.Errorf("column %s: %w", name, err)
		}
		return v, nil
	})
}

func (r *Reader) read(name string, arr arrow.Array) (Vector, error) {
	v := Vector{Valid: validity(arr)}
	switch a := arr.(type) {
	case *array.Int64:
		v.Kind, v.Ints = schemas.Int64, a.Int64Values()
	case *array.Int32:
		v.Kind, v.Ints = schemas.Int64, widen(a.Int32Values())
	case *array.Timestamp:
		v.Kind, v.Ints = schemas.Timestamp, arrow.Int64Traits.CastFromBytes(arrow.TimestampTraits.CastToBytes(a.TimestampValues()))
	case *array.Date32:
		v.Kind, v.Ints = schemas.Date, widen(a.Date32Values())
	case *array.Float64:
		v.Kind, v.Floats = schemas.Float64, a.Float64Values()
	case *array.Decimal128:
		v.Kind, v.Decimals = schemas.Decimal, a.Values()
	case *array.Boolean:
		v.Kind, v.Bools = schemas.Bool, make([]bool, a.Len())
		for i := range v.Bools {
			v.Bools[i] = a.Value(i)
		}
	case *array.String:
		v.Kind, v.Codes, v.Dict = schemas.String, make([]int32, a.Len()), &Dict{Strings: make([]string, a.Len())}
		for i := range v.Codes {
			v.Codes[i], v.Dict.Strings[i] = int32(i), a.Value(i)
		}
	case *array.Dictionary:
		return r.dictionary(name, a, v)
	default:
		return Vector{}, fmt.Errorf("unexpected Arrow type %s", arr.DataType())
	}
	return v, nil
}

func (r *Reader) dictionary(name string, a *array.Dictionary, v Vector) (Vector, error) {
	codes, ok1 := a.Indices().(*array.Int32)
	values, ok2 := a.Dictionary().(*array.String)
	if !ok1 || !ok2 {
		return Vector{}, fmt.Errorf("unexpected Arrow type %s", a.DataType())
	}
	v.Kind, v.Codes = schemas.String, codes.Int32Values()
	data := a.Data().Dictionary()
	if e, ok := r.dicts[name]; ok && e.data == data {
		v.Dict = e.dict
		return v, nil
	}
	v.Dict = &Dict{Strings: make([]string, values.Len())}
	for i := range v.Dict.Strings {
		v.Dict.Strings[i] = values.Value(i)
	}
	r.dicts[name] = dictEntry{data, v.Dict}
	return v, nil
}

func validity(arr arrow.Array) []bool {
	if arr.NullN() == 0 {
		return nil
	}
	valid := make([]bool, arr.Len())
	for i := range valid {
		valid[i] = arr.IsValid(i)
	}
	return valid
}

func widen[T ~int32](in []T) []int64 {
	out := make([]int64, len(in))
	for i, x := range in {
		out[i] = int64(x)
	}
	return out
}
