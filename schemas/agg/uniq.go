package agg

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
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
func (f uniq) New() Column       { return &uniqs{kind: f.arg} }

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

const (
	uniqMax   = 65536 // hashes that a set may hold
	linearLog = 3     // segments up to 1<<linearLog are searched from the start
)

// A hashSet is the set of one group, in a segment of the arena.
type hashSet struct {
	seg  []uint32 // 0 is a free slot
	n    uint32   // hashes in seg
	skip uint8
	zero bool // hash 0 is in the set
}

func (s *hashSet) size() uint32 { return s.n + uint32(one(s.zero)) }

type uniqs struct {
	rows
	kind   schemas.Type
	sets   []hashSet
	arena  arena[uint32]
	dict   *column.Dict
	hashes []uint64 // of dict's entries; known has bit 32 set
	buf    []byte
	sorted []uint32
}

func (c *uniqs) Grow(groups int) { c.sets = grown(c.sets, groups) }

func (c *uniqs) Reset() {
	for i := range c.sets {
		if s := c.sets[i].seg; len(s) > 1<<largeLog {
			c.arena.put(s)
		}
	}
	clear(c.sets)
	c.sets, c.dict = c.sets[:0], nil
	c.arena.reset()
}

func (c *uniqs) Bytes() int64 {
	return 32*int64(cap(c.sets)) + c.arena.bytes() + 8*int64(cap(c.hashes)) + int64(cap(c.buf)) + 4*int64(cap(c.sorted)) + c.bytes()
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

// Add hashes as ClickHouse does for the argument's type (found by trial, held by test):
// integers, dates and bools mixed after sign extension, floats by their bits, strings mixed
// after CityHash64; decimals and timestamps, which ClickHouse sees as raw bytes of 4, 8 or 16
// according to the precision, by CityHash64 alone.
func (c *uniqs) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	var b [16]byte
	switch c.kind.Kind {
	case schemas.Int64, schemas.Date:
		for k, row := range sel {
			c.insert(&c.sets[groups[k]], mix(uint64(v.Ints[row])))
		}
	case schemas.Float64:
		for k, row := range sel {
			c.insert(&c.sets[groups[k]], mix(math.Float64bits(v.Floats[row]+0)))
		}
	case schemas.Bool:
		for k, row := range sel {
			c.insert(&c.sets[groups[k]], mix(one(v.Bools[row])))
		}
	case schemas.Timestamp:
		for k, row := range sel {
			binary.LittleEndian.PutUint64(b[:], uint64(v.Ints[row]))
			c.insert(&c.sets[groups[k]], uint32(city.CH64(b[:8])))
		}
	case schemas.Decimal:
		width := 16
		if c.kind.Precision <= 9 {
			width = 4
		} else if c.kind.Precision <= 18 {
			width = 8
		}
		for k, row := range sel {
			binary.LittleEndian.PutUint64(b[:], v.Decimals[row].LowBits())
			binary.LittleEndian.PutUint64(b[8:], uint64(v.Decimals[row].HighBits()))
			c.insert(&c.sets[groups[k]], uint32(city.CH64(b[:width])))
		}
	case schemas.String:
		c.strings(groups, sel, v)
	}
}

func (c *uniqs) strings(groups, sel []int32, v column.Vector) {
	if c.dict != v.Dict {
		c.dict = v.Dict
		c.hashes = slices.Grow(c.hashes[:0], len(v.Dict.Strings))[:len(v.Dict.Strings)]
		clear(c.hashes)
	}
	for k, row := range sel {
		code := v.Codes[row]
		h := c.hashes[code]
		if h == 0 {
			c.buf = append(c.buf[:0], v.Dict.Strings[code]...)
			h = 1<<32 | uint64(mix(city.CH64(c.buf)))
			c.hashes[code] = h
		}
		c.insert(&c.sets[groups[k]], uint32(h))
	}
}

func (c *uniqs) insert(s *hashSet, h uint32) {
	if h&(1<<s.skip-1) != 0 {
		return
	}
	if h == 0 {
		s.zero = true
	} else if !c.place(s, h) {
		return
	}
	for s.size() > uniqMax {
		s.skip++
		c.rehash(s, s.seg)
	}
}

// place puts a hash other than 0 in and reports whether it is new.
func (c *uniqs) place(s *hashSet, h uint32) bool {
	if len(s.seg) <= 1<<linearLog {
		for _, x := range s.seg[:s.n] {
			if x == h {
				return false
			}
		}
		if int(s.n) == len(s.seg) {
			c.enlarge(s)
			return c.place(s, h)
		}
		s.seg[s.n] = h
		s.n++
		return true
	}
	mask := uint32(len(s.seg) - 1)
	i := spread(h, bits.Len32(mask))
	for ; s.seg[i] != 0; i = (i + 1) & mask {
		if s.seg[i] == h {
			return false
		}
	}
	s.seg[i] = h
	s.n++
	if s.n > mask-mask/4 {
		c.enlarge(s)
	}
	return true
}

func (c *uniqs) enlarge(s *hashSet) {
	old, log := s.seg, 1
	if len(old) > 0 {
		log = bits.Len(uint(len(old)))
	}
	s.seg = c.arena.get(log)
	c.refill(s, old)
	c.arena.put(old)
}

// rehash drops what the skip degree excludes.
func (c *uniqs) rehash(s *hashSet, old []uint32) {
	s.seg = c.arena.get(bits.Len(uint(len(old))) - 1)
	c.refill(s, old)
	c.arena.put(old)
}

func (c *uniqs) refill(s *hashSet, from []uint32) {
	s.n = 0
	for _, h := range from {
		if h != 0 && h&(1<<s.skip-1) == 0 {
			c.place(s, h)
		}
	}
}

func (c *uniqs) Append(order []int32, to []array.Builder) {
	out := to[0].(*array.BinaryBuilder)
	out.Reserve(len(order))
	for _, g := range order {
		s := &c.sets[g]
		c.buf = append(c.buf[:0], s.skip)
		c.buf = binary.AppendUvarint(c.buf, uint64(s.size()))
		if s.zero {
			c.buf = append(c.buf, 0, 0, 0, 0)
		}
		c.sorted = c.sorted[:0]
		for _, h := range s.seg {
			if h != 0 {
				c.sorted = append(c.sorted, h)
			}
		}
		slices.Sort(c.sorted)
		for _, h := range c.sorted {
			c.buf = binary.LittleEndian.AppendUint32(c.buf, h)
		}
		out.Append(c.buf)
	}
}
