package agg

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/go-faster/city"

	"watershed/schemas"
	"watershed/schemas/column"
)

// uniq is the number of different values: exact up to 65,536, beyond that an estimate that is
// the same in every order and grouping. The state is ClickHouse's UniquesHashSet:
//
//	byte skip degree · uvarint count · if hash 0 is present: four zero bytes · the others,
//	uint32 little-endian (here ascending)
//
// holding the 32-bit hashes divisible by 2^skip; skip rises while there are more than 65,536.
type uniq struct{ arg schemas.Type }

func (uniq) Name() string        { return "uniq" }
func (uniq) Version() int        { return 1 }
func (uniq) Additive() bool      { return false }
func (uniq) ResultType() string  { return "UInt64" }
func (f uniq) stateType() string { return "AggregateFunction(uniq, " + f.arg.ClickHouse() + ")" }
func (f uniq) New() Column       { return &uniqs{} }

func (f uniq) Columns(name string) []StateColumn {
	return []StateColumn{{name, f.stateType(), arrow.BinaryTypes.Binary, false}}
}

func (f uniq) StateSQL(arg string, nullable bool) []string {
	return []string{present("uniqState", "", arg, nullable, f.arg, "")}
}

func (uniq) MergeSQL(cols []string) []string { return []string{"uniqMergeState(" + cols[0] + ")"} }
func (uniq) FinishSQL(cols []string) string  { return "uniqMerge(" + cols[0] + ")" }

// RawSQL finishes a state: plain uniq over an injective function of a column is rewritten by
// ClickHouse into uniq over the column, whose other hashes give other estimates.
func (f uniq) RawSQL(arg string, nullable bool) string {
	return "finalizeAggregation(" + f.StateSQL(arg, nullable)[0] + ")"
}

// mix is the 64-bit finaliser of MurmurHash3, with which ClickHouse's default hash ends.
func mix(x uint64) uint32 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return uint32(x)
}

// Prepare hashes as ClickHouse does for the argument's type (found by trial, held by test):
// integers, dates and bools mixed after sign extension, floats by their bits, strings mixed
// after CityHash64; decimals and timestamps, which ClickHouse sees as raw bytes of 4, 8 or 16
// according to the precision, by CityHash64 alone. Strings are hashed by Add, once an entry of
// a dictionary.
func (f uniq) Prepare(v column.Vector) column.Vector {
	var out []int32
	var b [16]byte
	switch f.arg.Kind {
	case schemas.Int64, schemas.Date:
		out = make([]int32, len(v.Ints))
		for i, x := range v.Ints {
			out[i] = int32(mix(uint64(x)))
		}
	case schemas.Float64:
		out = make([]int32, len(v.Floats))
		for i, x := range v.Floats {
			out[i] = int32(mix(math.Float64bits(x + 0)))
		}
	case schemas.Bool:
		out = make([]int32, len(v.Bools))
		for i, x := range v.Bools {
			out[i] = int32(mix(one(x)))
		}
	case schemas.Timestamp:
		out = make([]int32, len(v.Ints))
		for i, x := range v.Ints {
			binary.LittleEndian.PutUint64(b[:], uint64(x))
			out[i] = int32(city.CH64(b[:8]))
		}
	case schemas.Decimal:
		width := 16
		if f.arg.Precision <= 9 {
			width = 4
		} else if f.arg.Precision <= 18 {
			width = 8
		}
		out = make([]int32, len(v.Decimals))
		for i, x := range v.Decimals {
			binary.LittleEndian.PutUint64(b[:], x.LowBits())
			binary.LittleEndian.PutUint64(b[8:], uint64(x.HighBits()))
			out[i] = int32(city.CH64(b[:width]))
		}
	default:
		return v
	}
	return column.Vector{Codes: out, Valid: v.Valid}
}

type uniqs struct {
	rows
	hashSets
	dict   *column.Dict
	hashes []uint64 // of dict's entries; known has bit 32 set
	buf    []byte
}

func (c *uniqs) Grow(groups int) { c.of = grown(c.of, groups) }
func (c *uniqs) Reset()          { c.reset(); c.dict = nil }

func (c *uniqs) Bytes() int64 {
	return c.hashSets.bytes() + 8*int64(cap(c.hashes)) + int64(cap(c.buf)) + c.rows.bytes()
}

func (c *uniqs) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	switch {
	case v.Dict != nil:
		c.strings(groups, sel, v)
	case sel == nil:
		c.insertAll(groups, v.Codes)
	default:
		for k, row := range sel {
			c.insert(groups[k], uint32(v.Codes[row]))
		}
	}
}

func (c *uniqs) strings(groups, sel []int32, v column.Vector) {
	if c.dict != v.Dict {
		c.dict = v.Dict
		c.hashes = slices.Grow(c.hashes[:0], len(v.Dict.Strings))[:len(v.Dict.Strings)]
		clear(c.hashes)
	}
	for k, g := range groups {
		code := v.Codes[at(sel, k)]
		h := c.hashes[code]
		if h == 0 {
			c.buf = append(c.buf[:0], v.Dict.Strings[code]...)
			h = 1<<32 | uint64(mix(city.CH64(c.buf)))
			c.hashes[code] = h
		}
		c.insert(g, uint32(h))
	}
}

func (c *uniqs) Merge(groups []int32, other Column) { c.merge(groups, &other.(*uniqs).hashSets) }

func (c *uniqs) States(order []int32) []arrow.Array {
	return []arrow.Array{encoded(order, c.room, c.append)}
}
