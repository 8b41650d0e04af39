package agg_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/internal/bounded"
	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/column"
)

// vectorOf makes a column of the type out of bytes, eight a value; every seventh is null.
func vectorOf(typ schemas.Type, data []byte) column.Vector {
	v := column.Vector{Kind: typ.Kind, Dict: &column.Dict{}}
	limit := decimal128.GetMaxValue(int32(max(1, typ.Precision)))
	for ; len(data) >= 8; data = data[8:] {
		n := binary.LittleEndian.Uint64(data)
		v.Valid = append(v.Valid, n%7 != 0)
		switch typ.Kind {
		case schemas.Float64:
			x := math.Float64frombits(n)
			if math.IsNaN(x) || math.IsInf(x, 0) {
				x = 0
			}
			v.Floats = append(v.Floats, x+0)
		case schemas.Bool:
			v.Bools = append(v.Bools, n&1 == 0)
		case schemas.String:
			v.Codes = append(v.Codes, int32(len(v.Dict.Strings)))
			v.Dict.Strings = append(v.Dict.Strings, string(data[:n%9]))
		case schemas.Decimal:
			d := decimal128.New(int64(n), n*n)
			if _, d = d.Div(limit); n&8 == 0 {
				d = d.Negate()
			}
			v.Decimals = append(v.Decimals, d)
		default:
			v.Ints = append(v.Ints, int64(n))
		}
	}
	return v
}

// fuzzGroups is how many groups the values are spread over: groups of many sizes come of it.
const fuzzGroups = 3

// foldInParts folds the rows in that order, part by part, and returns the states of all groups, one array a
// state column.
func foldInParts(f agg.Func, v column.Vector, parts [][]int32) []arrow.Array {
	acc := f.New()
	acc.Grow(fuzzGroups)
	v = f.Prepare(v)
	for _, rows := range parts {
		groups := make([]int32, len(rows))
		for k, row := range rows {
			groups[k] = row * row % fuzzGroups
		}
		acc.Add(groups, rows, v)
	}
	return acc.States([]int32{2, 0, 1})
}

// FuzzStates folds any values into states of every measure that takes them. All at once, one by one, or
// in two halves the later of which comes first, the states are the same (those of sums of floats excepted:
// they depend on the order), and what uniq and quantiles write reads back as what went in.
func FuzzStates(f *testing.F) {
	for i := range types {
		f.Add(uint8(i), []byte{})
		data := make([]byte, 8*40)
		for k := range 40 {
			binary.LittleEndian.PutUint64(data[8*k:], uint64(k)*0x9E3779B97F4A7C15)
		}
		f.Add(uint8(i), data)
	}
	f.Add(uint8(1), binary.LittleEndian.AppendUint64(nil, math.Float64bits(agg.MaxQuantile)))
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		typ := types[int(kind)%len(types)]
		v := vectorOf(typ, data)
		all := make([]int32, len(v.Valid))
		var single [][]int32
		for i := range all {
			all[i] = int32(i)
			single = append(single, []int32{int32(i)})
		}
		half := len(all) / 2
		for _, m := range measures(t, typ) {
			var once []arrow.Array
			bounded.Run(t, func() { once = foldInParts(m.Func, v, [][]int32{all}) })
			if r, ok := m.Func.(agg.Rounded); ok && r.MagnitudesSQL([]string{"a", "b", "c"}) != "" {
				continue
			}
			for name, parts := range map[string][][]int32{"one by one": single, "halves exchanged": {all[half:], all[:half]}} {
				for c, got := range foldInParts(m.Func, v, parts) {
					if want := once[c]; !array.Equal(want, got) {
						t.Fatalf("%s of %s, %s: got %s; want %s", m.Name(), typ, name, got, want)
					}
				}
			}
			rows := [fuzzGroups]int{}
			for _, row := range all {
				if v.Valid[row] {
					rows[row*row%fuzzGroups]++
				}
			}
			for k, group := range []int{2, 0, 1} {
				if err := readBack(m.Name(), once[0], k, typ, rows[group]); err != nil {
					t.Fatalf("%s of %s over %d values: %v", m.Name(), typ, rows[group], err)
				}
			}
		}
	})
}

// readBack reads a state of uniq or quantiles by its documented form, and looks whether it can be one of
// so many values.
func readBack(name string, states arrow.Array, k int, typ schemas.Type, values int) error {
	switch {
	case name == "uniq":
		return readHashes(states.(*array.Binary).Value(k), values)
	case name == "quantiles":
		n, err := readSketch(states.(*array.Map), k)
		if err == nil && (n > uint64(values) || typ.Kind == schemas.Int64 && n != uint64(values)) {
			err = fmt.Errorf("the sketch counts %v", n)
		}
		return err
	}
	return nil
}

// readHashes reads: skip degree, uvarint count, hashes of 32 bits, each divisible by 2^skip and only once.
func readHashes(s []byte, values int) error {
	if len(s) < 2 {
		return fmt.Errorf("%x is too short", s)
	}
	skip := s[0]
	n, used := binary.Uvarint(s[1:])
	if rest := s[1+max(0, used):]; used <= 0 || uint64(len(rest)) != 4*n || n > uint64(values) {
		return fmt.Errorf("%d hashes are announced; %d bytes follow", n, len(rest))
	}
	before := int64(-1)
	for rest := s[1+used:]; len(rest) > 0; rest = rest[4:] {
		h := binary.LittleEndian.Uint32(rest)
		if int64(h) <= before || h&(1<<skip-1) != 0 {
			return fmt.Errorf("hash %x follows %x at skip degree %d", h, before, skip)
		}
		before = int64(h)
	}
	return nil
}

// readSketch reads a sketch, codes ascending and each once, and returns how many values it counts.
func readSketch(m *array.Map, k int) (count uint64, err error) {
	from, to := m.ValueOffsets(k)
	before := -1
	for i := int(from); i < int(to); i++ {
		code, n := int(m.Keys().(*array.Uint16).Value(i)), m.Items().(*array.Uint64).Value(i)
		if code <= before || n == 0 {
			return 0, fmt.Errorf("code %d follows %d, and is counted %d times", code, before, n)
		}
		before = code
		count += n
	}
	return count, nil
}
