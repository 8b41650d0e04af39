package agg

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/column"
)

// quantiles gives, for each level, a value within 1 % of the one at that rank (within 3 % for
// magnitudes below 1: prefer small units), and an empty array over nothing. It takes int64
// and float64; a float64 whose magnitude is neither 0 nor from MinQuantile to MaxQuantile
// counts as null, in every form. The state is ClickHouse's quantilesDD(0.01, levels...).
type quantiles struct {
	arg    schemas.Type
	params string // "(0.01, 0.5, 0.95)"
}

func newQuantiles(arg schemas.Type, levels []float64) (Func, error) {
	if arg.Kind != schemas.Int64 && arg.Kind != schemas.Float64 {
		return nil, fmt.Errorf("quantiles wants an int64 or a float64, not %s", describe(arg))
	}
	if len(levels) == 0 {
		return nil, fmt.Errorf("quantiles wants at least one level, such as 0.5")
	}
	var params strings.Builder
	params.WriteString("(0.01")
	for _, l := range levels {
		if !(l >= 0 && l <= 1) {
			return nil, fmt.Errorf("quantiles wants levels from 0 to 1, not %v", l)
		}
		params.WriteString(", " + strconv.FormatFloat(l, 'f', -1, 64))
	}
	params.WriteString(")")
	return quantiles{arg, params.String()}, nil
}

func (quantiles) Name() string       { return "quantiles" }
func (quantiles) Version() int       { return 1 }
func (quantiles) Additive() bool     { return false }
func (quantiles) ResultType() string { return "Array(Float64)" }
func (f quantiles) New() Column      { return &sketches{} }

func (f quantiles) Columns(name string) []StateColumn {
	typ := "AggregateFunction(quantilesDD" + f.params + ", " + f.arg.ClickHouse() + ")"
	return []StateColumn{{name, typ, arrow.BinaryTypes.Binary, false}}
}

func (f quantiles) over(suffix, arg string, nullable bool) string {
	cond := ""
	if f.arg.Kind == schemas.Float64 {
		cond = fmt.Sprintf("((%s) = 0 OR abs(%s) BETWEEN %g AND %g)", arg, arg, MinQuantile, MaxQuantile)
	}
	return present("quantilesDD"+suffix, f.params, arg, nullable, f.arg, cond)
}

// some is the array of quantiles without the NaNs that ClickHouse makes of nothing.
func (f quantiles) some(x string) string { return "arrayFilter(q -> NOT isNaN(q), " + x + ")" }

func (f quantiles) StateSQL(arg string, nullable bool) []string {
	return []string{f.over("State", arg, nullable)}
}

func (f quantiles) MergeSQL(cols []string) []string {
	return []string{"quantilesDDMergeState" + f.params + "(" + cols[0] + ")"}
}

func (f quantiles) FinishSQL(cols []string) string {
	return f.some("quantilesDDMerge" + f.params + "(" + cols[0] + ")")
}

func (f quantiles) RawSQL(arg string, nullable bool) string {
	return f.some(f.over("", arg, nullable))
}

// A sketch is the counted bins of one group, in a segment of the arena.
type sketch struct {
	seg []uint64
	n   uint32
}

type sketches struct {
	rows
	at    []sketch
	arena arena[uint64]
	buf   []byte
	words []uint64
}

func (c *sketches) Grow(groups int) { c.at = grown(c.at, groups) }

func (c *sketches) Reset() {
	for i := range c.at {
		if s := c.at[i].seg; len(s) > 1<<largeLog {
			c.arena.put(s)
		}
	}
	clear(c.at)
	c.at = c.at[:0]
	c.arena.reset()
}

func (c *sketches) Bytes() int64 {
	return 32*int64(cap(c.at)) + c.arena.bytes() + int64(cap(c.buf)) + 8*int64(cap(c.words)) + c.bytes()
}

func (c *sketches) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	if v.Kind == schemas.Float64 {
		for k, row := range sel {
			if code := code(v.Floats[row]); code != 0 {
				c.count(&c.at[groups[k]], code)
			}
		}
		return
	}
	small := smallCodes()
	for k, row := range sel {
		x := v.Ints[row]
		if uint64(x) < uint64(len(small)) {
			c.count(&c.at[groups[k]], uint32(small[x]))
		} else {
			c.count(&c.at[groups[k]], code(float64(x)))
		}
	}
}

func (c *sketches) count(s *sketch, code uint32) {
	if len(s.seg) <= 1<<linearLog {
		for i, w := range s.seg[:s.n] {
			if uint32(w>>codeShift) == code {
				s.seg[i]++
				return
			}
		}
		if int(s.n) == len(s.seg) {
			c.enlarge(s)
			c.count(s, code)
			return
		}
		s.seg[s.n] = uint64(code)<<codeShift | 1
		s.n++
		return
	}
	i := slot(s.seg, code)
	if s.seg[i] != 0 {
		s.seg[i]++
		return
	}
	s.seg[i] = uint64(code)<<codeShift | 1
	if s.n++; int(s.n) > len(s.seg)-len(s.seg)/4 {
		c.enlarge(s)
	}
}

// slot is where the code is in a table, or is to be put.
func slot(seg []uint64, code uint32) uint32 {
	mask := uint32(len(seg) - 1)
	i := spread(code, bits.Len32(mask))
	for seg[i] != 0 && uint32(seg[i]>>codeShift) != code {
		i = (i + 1) & mask
	}
	return i
}

func (c *sketches) enlarge(s *sketch) {
	old, log := s.seg, 1
	if len(old) > 0 {
		log = bits.Len(uint(len(old)))
	}
	s.seg = c.arena.get(log)
	if log <= linearLog {
		copy(s.seg, old)
	} else {
		for _, w := range old {
			if w != 0 {
				s.seg[slot(s.seg, uint32(w>>codeShift))] = w
			}
		}
	}
	c.arena.put(old)
}

func (c *sketches) Append(order []int32, to []array.Builder) {
	out := to[0].(*array.BinaryBuilder)
	out.Reserve(len(order))
	for _, g := range order {
		c.words = c.words[:0]
		for _, w := range c.at[g].seg {
			if w != 0 {
				c.words = append(c.words, w)
			}
		}
		c.buf = appendSketch(c.buf[:0], c.words)
		out.Append(c.buf)
	}
}
