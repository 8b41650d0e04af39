package agg

import (
	"encoding/binary"
	"math"
	"math/big"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/column"
)

// Sums that fit 64 bits, sums that leave them and sums that come back are those of unbounded integers, in whatever order
// they are added and merged, of int64 as of decimals.
func TestWideSums(t *testing.T) {
	value := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-9, 9), rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64, -1, 0, 1}))
	const groups = 5
	rapid.Check(t, func(r *rapid.T) {
		decimal := rapid.Bool().Draw(r, "decimal")
		var want [groups]*big.Int
		fold := func() *wideSums {
			c := &wideSums{width: 16}
			c.Grow(rapid.IntRange(1, groups).Draw(r, "groups at first"))
			known := c.known()
			for range rapid.IntRange(0, 4).Draw(r, "blocks") {
				var of []int32
				v := column.Vector{Kind: schemas.Int64}
				if decimal {
					v.Kind = schemas.Decimal
				}
				for range rapid.IntRange(0, 8).Draw(r, "rows") {
					x, g, ok := value.Draw(r, "x"), rapid.Int32Range(0, int32(known)-1).Draw(r, "group"), rapid.IntRange(0, 3).Draw(r, "null") > 0
					of, v.Valid = append(of, g), append(v.Valid, ok)
					v.Ints, v.Decimals = append(v.Ints, x), append(v.Decimals, decimal128.FromI64(x))
					if ok {
						if want[g] == nil {
							want[g] = new(big.Int)
						}
						want[g].Add(want[g], big.NewInt(x))
					}
				}
				c.Add(of, nil, v)
			}
			c.Grow(groups)
			return c
		}
		c := fold()
		for range rapid.IntRange(0, 3).Draw(r, "others") {
			c.Merge([]int32{0, 1, 2, 3, 4}, fold())
		}
		got := c.States([]int32{4, 3, 2, 1, 0})[0].(*array.FixedSizeBinary)
		for i := range groups {
			of := want[groups-1-i]
			if got.IsNull(i) != (of == nil) {
				r.Fatalf("group %d: null is %v; want %v", groups-1-i, got.IsNull(i), of)
			}
			if of == nil {
				continue
			}
			words := got.Value(i)
			sum := new(big.Int).Lsh(big.NewInt(int64(binary.LittleEndian.Uint64(words[8:]))), 64)
			if sum.Add(sum, new(big.Int).SetUint64(binary.LittleEndian.Uint64(words))).Cmp(of) != 0 {
				r.Fatalf("group %d is %s; want %s", groups-1-i, sum, of)
			}
		}
		if c.Reset(); c.far || len(c.near)+len(c.at)+len(c.some) > 0 {
			r.Fatal("groups are left after a reset")
		}
	})
}

// known is how many groups there are.
func (c *wideSums) known() int { return max(len(c.near), len(c.at)) }

// Counts go on when more values come than 32 bits count, in one fold or in two that are merged.
func TestTallies(t *testing.T) {
	counts := func(t *tallies) (out []uint64) {
		return arrow.Uint64Traits.CastFromBytes(t.array([]int32{1, 0}).Data().Buffers()[1].Bytes())
	}
	const many = math.MaxUint32 - 1
	fold := func(n uint32) *tallies {
		c := &tallies{}
		c.grow(2)
		c.near[1], c.all = n, uint64(n) // as if so many had come
		return c
	}
	c := fold(many)
	for i := range uint64(4) {
		c.expect(2)
		c.add([]int32{0, 1})
		if got := counts(c); got[0] != many+i+1 || got[1] != i+1 || !c.far {
			t.Fatalf("got %d, far %v; want %d and %d", got, c.far, many+i+1, i+1)
		}
	}
	c.grow(3)
	c.expect(1)
	c.add([]int32{2})
	if c.wide[2] != 1 {
		t.Errorf("a new group counts %d; want 1", c.wide[2])
	}
	for _, pair := range [][2]*tallies{{fold(many), fold(7)}, {fold(7), fold(many)}, {c, fold(many)}, {fold(3), c}, {c, c}} {
		before := counts(pair[0])[0] + counts(pair[1])[0]
		into := pair[0]
		into.grow(3)
		into.merge([]int32{0, 1}, pair[1])
		if got := counts(into)[0]; got != before {
			t.Errorf("merged %d; want %d", got, before)
		}
	}
	if c.reset(); c.far || c.all != 0 || len(c.near)+len(c.wide) > 0 {
		t.Error("counts are left after a reset")
	}
}
