package agg

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
)

// histogram counts values between bounds: of n bounds there are n+1 counts, the first of what is below the
// first bound, each other of what is at its bound or above, and below the next. The counts are exact. The state
// is a plain map from a bucket's number to its count, without those that are 0; the finished value has all.
type histogram struct {
	same
	arg    schemas.Type
	bounds []float64 // ascending; of int64, integers that a float64 holds exactly
}

func newHistogram(arg schemas.Type, bounds []float64) (Func, error) {
	if arg.Kind != schemas.Int64 && arg.Kind != schemas.Float64 {
		return nil, fmt.Errorf("histogram wants an int64 or a float64, not %s", describe(arg))
	}
	if len(bounds) == 0 {
		return nil, fmt.Errorf("histogram wants at least one bound")
	}
	for i, b := range bounds {
		switch {
		case math.IsNaN(b) || math.IsInf(b, 0):
			return nil, fmt.Errorf("histogram wants finite bounds, not %v", b)
		case arg.Kind == schemas.Int64 && (b != math.Trunc(b) || math.Abs(b) > 1<<53):
			return nil, fmt.Errorf("histogram of an int64 wants integers up to 2^53 as bounds, not %v", b)
		case i > 0 && b <= bounds[i-1]:
			return nil, fmt.Errorf("histogram wants ascending bounds, but %v comes after %v", b, bounds[i-1])
		}
	}
	return histogram{arg: arg, bounds: bounds}, nil
}

func (histogram) Name() string       { return "histogram" }
func (histogram) Version() int       { return 1 }
func (histogram) Additive() bool     { return false }
func (histogram) ResultType() string { return "Array(UInt64)" }

func (f histogram) Columns(name string) []StateColumn {
	return []StateColumn{{name, "SimpleAggregateFunction(sumMap, Map(UInt16, UInt64))", sketchType, false}}
}

// text is a bound as a literal of SQL.
func (f histogram) text(i int) string {
	if f.arg.Kind == schemas.Int64 {
		return "(" + strconv.FormatInt(int64(f.bounds[i]), 10) + ")"
	}
	return "toFloat64('" + strconv.FormatFloat(f.bounds[i], 'g', -1, 64) + "')"
}

func (f histogram) StateSQL(arg string, nullable bool) []string {
	return []string{presentAs("sumMap", "", arg, nullable, f.arg, "", func(x string) string {
		above := make([]string, len(f.bounds))
		for i := range f.bounds {
			above[i] = "(" + x + " >= " + f.text(i) + ")"
		}
		return "map(toUInt16(" + strings.Join(above, " + ") + "), toUInt64(1))"
	})}
}

func (histogram) MergeSQL(cols []string) []string { return []string{"sumMap(" + cols[0] + ")"} }

func (f histogram) FinishSQL(cols []string) string {
	counts := make([]string, len(f.bounds)+1)
	for i := range counts {
		counts[i] = fmt.Sprintf("sumMap(%s)[%d]", cols[0], i)
	}
	return "[" + strings.Join(counts, ", ") + "]"
}

func (f histogram) RawSQL(arg string, _ bool) string {
	last := len(f.bounds) - 1
	counts := []string{"countIf(" + arg + " < " + f.text(0) + ")"}
	for i := range last {
		counts = append(counts, "countIf("+arg+" >= "+f.text(i)+" AND "+arg+" < "+f.text(i+1)+")")
	}
	counts = append(counts, "countIf("+arg+" >= "+f.text(last)+")")
	return "[" + strings.Join(counts, ", ") + "]"
}

func (f histogram) New() Column {
	c := &histograms{floats: f.bounds}
	for _, b := range f.bounds {
		c.ints = append(c.ints, int64(b))
	}
	return c
}

type histograms struct {
	quantileColumn
	rows
	floats []float64
	ints   []int64
}

func (c *histograms) Bytes() int64 { return c.quantileColumn.Bytes() + c.rows.bytes() }

func (c *histograms) Add(groups, sel []int32, v column.Vector) {
	groups, sel = c.pick(groups, sel, v.Valid)
	if v.Kind == schemas.Float64 {
		for k, g := range groups {
			c.count(g, bucket(c.floats, v.Floats[at(sel, k)]))
		}
		return
	}
	for k, g := range groups {
		c.count(g, bucket(c.ints, v.Ints[at(sel, k)]))
	}
}

// bucket is how many bounds are not above a value.
func bucket[T int64 | float64](bounds []T, x T) uint16 {
	return uint16(sort.Search(len(bounds), func(i int) bool { return bounds[i] > x }))
}

func (c *histograms) Merge(groups []int32, other Column) {
	c.merge(groups, &other.(*histograms).sketches)
}

func (c *histograms) States(order []int32) []arrow.Array { return c.quantileColumn.States(order) }
