package view

import (
	"math"
	"strings"

	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/column"
)

// A key numbers the values of one dimension from 0 in the order in which they are first seen.
type key struct {
	typ  schemas.Type
	null int32 // number of null; -1: not seen yet
	n    int32 // values seen, with null

	words  []uint64 // by number: of all types but strings and decimals
	near   nearInts // their numbers, while they are integers of a small range,
	far    bool     // else
	table  table
	late   []int32 // scratch
	texts  map[string]int32
	nums   map[decimal128.Num]int32
	values []value // by number: of strings and decimals

	dict  *column.Dict // the dictionary seen last
	codes []int32      // number + 1 of its entries; 0: not looked up yet

	block strings.Builder // strings are kept in blocks; this is the last
	held  int64           // bytes of all blocks
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
	case schemas.Int64, schemas.Date:
	default:
		k.far = true // times are far apart, floats anyhow
	}
	return k
}

// number writes the numbers of the rows' values into out; rows is nil for the first len(out).
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
	for i := range out {
		row := at(rows, i)
		if valid != nil && !valid[row] {
			out[i] = k.ofNull()
		} else {
			out[i] = number(row)
		}
	}
}

// at is the i-th of the listed rows.
func at(rows []int32, i int) int32 {
	if rows == nil {
		return int32(i)
	}
	return rows[i]
}

// ints looks a value up only where it differs from the row before: events come mostly in the
// order of time, so that buckets of time make long runs.
//
// Values that have no number yet are put off until all others are looked up. Whether one has cannot be foreseen, and a wrong
// guess costs what the look-up waits for memory, which those of a chunk otherwise do side by side: a date of
// a million events by 400,000 users of a million took 43 to 46 ns an event, and takes 36 to 43 like this (whole folds by
// day and user, in turns, least of four, on a machine with twenty other processes to a core).
func (k *key) ints(v column.Vector, rows, out []int32) {
	k.late = sized(k.late, len(out))
	last, number, known, late := int64(0), int32(0), false, 0
	for i := range out {
		row := at(rows, i)
		if v.Valid != nil && !v.Valid[row] {
			out[i] = k.ofNull()
			continue
		}
		if x := v.Ints[row]; x != last || !known {
			last, number, known = x, k.near.get(x), true
		}
		out[i] = number
		k.late[late] = int32(i)
		late += int(uint32(number) >> 31) // those below 0
	}
	for n, i := range k.late[:late] {
		x := v.Ints[at(rows, int(i))]
		if n == 0 || x != last {
			if last, number = x, k.near.get(x); number < 0 {
				number = k.word(uint64(x))
			}
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
	for i := range out {
		row := at(rows, i)
		if v.Valid != nil && !v.Valid[row] {
			out[i] = k.ofNull()
			continue
		}
		code := v.Codes[row]
		if codes[code] == 0 {
			codes[code] = k.text(v.Dict.Strings[code]) + 1
		}
		out[i] = codes[code] - 1
	}
}

func (k *key) ofNull() int32 {
	if k.null < 0 {
		k.null = k.n
		k.n++
		if k.texts != nil || k.nums != nil {
			k.values = append(k.values, value{})
		} else {
			k.words = append(k.words, 0)
		}
	}
	return k.null
}

// word numbers a value that is not near.
func (k *key) word(x uint64) int32 {
	if !k.far {
		if k.near.put(int64(x), k.n) {
			k.words = append(k.words, x)
			k.n++
			return k.n - 1
		}
		k.far = true
		for n, w := range k.words {
			if int32(n) != k.null {
				k.table.number(w, int32(n))
			}
		}
		k.near = nearInts{}
	}
	if k.table.full() && (k.typ.Kind == schemas.Int64 || k.typ.Kind == schemas.Date) && k.near.hold(k.words, k.null) {
		k.far = false
		k.table.reset()
		if n := k.near.get(int64(x)); n >= 0 {
			return n
		}
		return k.word(x)
	}
	n := k.table.number(x, k.n)
	if n == k.n {
		k.words = append(k.words, x)
		k.n++
	}
	return n
}

// text numbers a string; a new one is copied, for the dictionary's memory is the record's.
func (k *key) text(s string) int32 {
	n, ok := k.texts[s]
	if !ok {
		s, n = k.keep(s), k.n
		k.n++
		k.texts[s] = n
		k.values = append(k.values, value{text: s})
	}
	return n
}

const maxBlock = 64 << 10

// keep copies a string into a block: with an allocation of its own for each, a fold by 10,000
// pages took a tenth longer.
func (k *key) keep(s string) string {
	if k.block.Cap()-k.block.Len() < len(s) {
		k.block.Reset()
		k.block.Grow(max(len(s), min(maxBlock, 256+int(k.held))))
		k.held += int64(k.block.Cap())
	}
	from := k.block.Len()
	k.block.WriteString(s)
	return k.block.String()[from:]
}

func (k *key) decimal(x decimal128.Num) int32 {
	n, ok := k.nums[x]
	if !ok {
		n = k.n
		k.n++
		k.nums[x] = n
		k.values = append(k.values, value{num: x})
	}
	return n
}

func (k *key) reset() {
	k.null, k.n, k.held, k.dict = -1, 0, 0, nil
	k.words = k.words[:0]
	k.near.reset()
	k.table.reset()
	clear(k.texts)
	clear(k.nums)
	clear(k.values)
	k.values = k.values[:0]
	k.block.Reset()
}

// bytes is an estimate where maps are concerned: 32 bytes an entry.
func (k *key) bytes() int64 {
	return k.table.bytes() + k.near.bytes() + 8*int64(cap(k.words)) + 4*int64(cap(k.codes)+cap(k.late)) + 32*int64(cap(k.values)) +
		32*int64(len(k.texts)+len(k.nums)) + k.held
}
