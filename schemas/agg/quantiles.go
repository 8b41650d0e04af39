package agg

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

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
func (f quantiles) New() Column      { return &quantileColumn{} }

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

// Prepare gives every value's bin: 0 is no value.
func (f quantiles) Prepare(v column.Vector) column.Vector {
	if v.Kind == schemas.Float64 {
		return column.Vector{Codes: floatCodes(v)}
	}
	small, codes := smallCodes(), make([]int32, len(v.Ints))
	for i, x := range v.Ints {
		switch {
		case v.Valid != nil && !v.Valid[i]:
		case uint64(x) < uint64(len(small)):
			codes[i] = int32(small[x])
		default:
			codes[i] = int32(code(float64(x)))
		}
	}
	return column.Vector{Codes: codes}
}

// floatCodes takes the quick way in line.
func floatCodes(v column.Vector) []int32 {
	codes, t := make([]int32, len(v.Floats)), logs()
	for i, x := range v.Floats {
		if v.Valid != nil && !v.Valid[i] {
			continue
		}
		if x >= MinQuantile && x <= MaxQuantile {
			if n, ok := t.quick(x); ok {
				codes[i] = int32(1 + binBias + positive + n)
				continue
			}
		}
		codes[i] = int32(code(x))
	}
	return codes
}

type quantileColumn struct{ sketches }

func (c *quantileColumn) Grow(groups int) { c.at = grown(c.at, groups) }
func (c *quantileColumn) Reset()          { c.reset() }
func (c *quantileColumn) Bytes() int64    { return c.bytes() }

func (c *quantileColumn) Add(groups, sel []int32, v column.Vector) {
	if sel == nil {
		for k, code := range v.Codes[:len(groups)] {
			if code != 0 {
				c.count(groups[k], uint32(code))
			}
		}
		return
	}
	for k, row := range sel {
		if code := v.Codes[row]; code != 0 {
			c.count(groups[k], uint32(code))
		}
	}
}

func (c *quantileColumn) Merge(groups []int32, other Column) {
	c.merge(groups, &other.(*quantileColumn).sketches)
}

func (c *quantileColumn) States(order []int32) []arrow.Array {
	return []arrow.Array{encoded(order, c.room, c.append)}
}
