package history

import (
	"hash/maphash"
	"math"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A rowSum stands for a set of rows, in whatever order: their number, and the sum of their hashes.
type rowSum struct {
	rows int64
	hash uint64
}

// add adds some of the rows of those hashes.
func (s *rowSum) add(hashes []uint64, rows []int32) {
	s.rows += int64(len(rows))
	for _, i := range rows {
		s.hash += hashes[i]
	}
}

func (s *rowSum) addAll(hashes []uint64) {
	s.rows += int64(len(hashes))
	for _, h := range hashes {
		s.hash += h
	}
}

// A rowHasher hashes rows by their values. The hash depends neither on the order of the columns, nor on
// whether a definition has a field that is null, nor on how strings are stored; two hashers differ.
type rowHasher struct {
	seed maphash.Seed
	out  []uint64
}

func newRowHasher() *rowHasher { return &rowHasher{seed: maphash.MakeSeed()} }

// rows are the hashes of a record's rows, with _seq and _row. They are good until the next call.
func (h *rowHasher) rows(rec arrow.Record) []uint64 { return h.hash(rec, int(rec.NumCols())) }

// events are the hashes of a record's rows but for _seq and _row, which are the last columns.
func (h *rowHasher) events(rec arrow.Record) []uint64 { return h.hash(rec, int(rec.NumCols())-2) }

func (h *rowHasher) hash(rec arrow.Record, columns int) []uint64 {
	n := int(rec.NumRows())
	if cap(h.out) < n {
		h.out = make([]uint64, n)
	}
	h.out = h.out[:n]
	clear(h.out)
	for k := range columns {
		h.column(maphash.String(h.seed, rec.ColumnName(k)), rec.Column(k))
	}
	for i, sum := range h.out { // so that rows cannot exchange values
		h.out[i] = mix(sum)
	}
	return h.out
}

// column adds a column's values to the hashes of their rows.
func (h *rowHasher) column(name uint64, col arrow.Array) {
	add := func(i int, value uint64) {
		if !col.IsNull(i) {
			h.out[i] += mix(name ^ mix(value))
		}
	}
	switch a := col.(type) {
	case *array.Int64:
		for i, v := range a.Int64Values() {
			add(i, uint64(v))
		}
	case *array.Timestamp:
		for i, v := range a.TimestampValues() {
			add(i, uint64(v))
		}
	case *array.Int32:
		for i, v := range a.Int32Values() {
			add(i, uint64(v))
		}
	case *array.Date32:
		for i, v := range a.Date32Values() {
			add(i, uint64(v))
		}
	case *array.Dictionary:
		words := a.Dictionary().(*array.String)
		known := make([]uint64, words.Len()) // 0: not hashed yet
		for i := range a.Len() {
			if a.IsNull(i) {
				continue
			}
			word := a.GetValueIndex(i)
			if known[word] == 0 {
				known[word] = maphash.String(h.seed, words.Value(word))
			}
			add(i, known[word])
		}
	default:
		for i := range col.Len() {
			if !col.IsNull(i) {
				add(i, h.value(col, i))
			}
		}
	}
}

func (h *rowHasher) value(col arrow.Array, i int) uint64 {
	switch a := col.(type) {
	case *array.String:
		return maphash.String(h.seed, a.Value(i))
	case *array.Float64:
		return maphash.Comparable(h.seed, math.Float64bits(a.Value(i)))
	case *array.Boolean:
		return maphash.Comparable(h.seed, a.Value(i))
	case *array.Decimal128:
		return maphash.Comparable(h.seed, a.Value(i))
	}
	return 0
}

// mix spreads each bit of x over all 64.
func mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo ^ bits.RotateLeft64(x, 29)
}
