package view

import (
	"math"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/column"
)

// A key numbers the values of one dimension from 0 in the order in which they are first seen.
type key struct {
	typ  schemas.Type
	null int32 // number of null; -1: not seen yet
	n    int32 // values seen, with null

	words table   // of all types but strings and decimals
	of    []int32 // number by the table's number, which does not count null

	texts  map[string]int32
	nums   map[decimal128.Num]int32
	values []value // by number: of strings and decimals

	dict  *column.Dict // the dictionary seen last
	codes []int32      // number + 1 of its entries; 0: not looked up yet

	held int64 // bytes of strings
}

type value struct {
	text string
	num  decimal128.Num
}

func newKey(typ schemas.Type) *key {
	k := &key{typ: typ, null: -1}
	switch typ.Kind {
	case schemas.String:
		k.texts = make(map[string]int32)
	case schemas.Decimal:
		k.nums = make(map[decimal128.Num]int32)
	}
	return k
}

// number writes the numbers of the rows' values into out.
func (k *key) number(v column.Vector, rows, out []int32) {
	switch k.typ.Kind {
	case schemas.String:
		k.strings(v, rows, out)
	case schemas.Decimal:
		each(k, v.Valid, rows, out, func(row int32) int32 { return k.decimal(v.Decimals[row]) })
	case schemas.Float64:
		each(k, v.Valid, rows, out, func(row int32) int32 { return k.word(math.Float64bits(v.Floats[row] + 0)) })
	case schemas.Bool:
		each(k, v.Valid, rows, out, func(row int32) int32 {
			if v.Bools[row] {
				return k.word(1)
			}
			return k.word(0)
		})
	default:
		k.ints(v, rows, out)
	}
}

func each(k *key, valid []bool, rows, out []int32, number func(row int32) int32) {
	for i, row := range rows {
		if valid != nil && !valid[row] {
			out[i] = k.ofNull()
		} else {
			out[i] = number(row)
		}
	}
}

// ints looks a value up only where it differs from the row before: events come mostly in the
// order of time, so that buckets of time make long runs.
func (k *key) ints(v column.Vector, rows, out []int32) {
	last, number, known := int64(0), int32(0), false
	for i, row := range rows {
		if v.Valid != nil && !v.Valid[row] {
			out[i] = k.ofNull()
			continue
		}
		if x := v.Ints[row]; x != last || !known {
			last, number, known = x, k.word(uint64(x)), true
		}
		out[i] = number
	}
}

// strings looks each entry of a dictionary up once.
func (k *key) strings(v column.Vector, rows, out []int32) {
	if k.dict != v.Dict {
		k.dict = v.Dict
		k.codes = sized(k.codes, len(v.Dict.Strings))
		clear(k.codes)
	}
	codes := k.codes
	for i, row := range rows {
		if v.Valid != nil && !v.Valid[row] {
			out[i] = k.ofNull()
			continue
		}
		at := v.Codes[row]
		if codes[at] == 0 {
			codes[at] = k.text(v.Dict.Strings[at]) + 1
		}
		out[i] = codes[at] - 1
	}
}

func (k *key) next() int32 { k.n++; return k.n - 1 }

func (k *key) ofNull() int32 {
	if k.null < 0 {
		k.null = k.next()
		if k.texts != nil || k.nums != nil {
			k.values = append(k.values, value{})
		}
	}
	return k.null
}

func (k *key) word(x uint64) int32 {
	w := k.words.number(x)
	if int(w) == len(k.of) {
		k.of = append(k.of, k.next())
	}
	return k.of[w]
}

// text numbers a string; a new one is copied, for the dictionary's memory is the record's.
func (k *key) text(s string) int32 {
	n, ok := k.texts[s]
	if !ok {
		s, n = strings.Clone(s), k.next()
		k.texts[s] = n
		k.values = append(k.values, value{text: s})
		k.held += int64(len(s))
	}
	return n
}

func (k *key) decimal(x decimal128.Num) int32 {
	n, ok := k.nums[x]
	if !ok {
		n = k.next()
		k.nums[x] = n
		k.values = append(k.values, value{num: x})
	}
	return n
}

func (k *key) reset() {
	k.null, k.n, k.held, k.dict = -1, 0, 0, nil
	k.words.reset()
	k.of = k.of[:0]
	clear(k.texts)
	clear(k.nums)
	clear(k.values)
	k.values = k.values[:0]
}

// bytes is an estimate where maps are concerned: 32 bytes an entry.
func (k *key) bytes() int64 {
	return k.words.bytes() + 4*int64(cap(k.of)+cap(k.codes)) + 32*int64(cap(k.values)) + 32*int64(len(k.texts)+len(k.nums)) + k.held
}

// flat is the values of types that fit a word, by number.
func (k *key) flat() []uint64 {
	words := make([]uint64, k.n)
	for w, n := range k.of {
		words[n] = k.words.keys[w]
	}
	return words
}

func float(word uint64) float64 { return math.Float64frombits(word) }

// append writes the values of the numbers.
func (k *key) append(numbers []int32, to array.Builder) {
	to.Reserve(len(numbers))
	words := k.flat()
	for _, n := range numbers {
		if n == k.null {
			to.AppendNull()
			continue
		}
		switch to := to.(type) {
		case *array.StringBuilder:
			to.Append(k.values[n].text)
		case *array.Decimal128Builder:
			to.Append(k.values[n].num)
		case *array.Int64Builder:
			to.Append(int64(words[n]))
		case *array.TimestampBuilder:
			to.Append(arrow.Timestamp(words[n]))
		case *array.Date32Builder:
			to.Append(arrow.Date32(int64(words[n])))
		case *array.Float64Builder:
			to.Append(float(words[n]))
		case *array.BooleanBuilder:
			to.Append(words[n] == 1)
		}
	}
}

// sized is a slice of n elements, s if it is long enough.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
