package agg_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/column"
)

// Add with its Prepare, which several views of one argument share. On one core of an AMD EPYC, in
// ns a value among 16 groups:
//
//	count(cond) 0.6   sum(int64) 1.6   sum(float64) 1.2   sum(decimal(38)) 2.2   max(int64) 1.1
//
// and in bytes a group of one value among 65,536: uniq 46, quantiles 46. Nothing is allocated a
// row; what is left is growth, and max's copies of new strings.
func BenchmarkAdd(b *testing.B) {
	const n = 4096
	rng := rand.New(rand.NewPCG(1, 2))
	v := column.Vector{Ints: make([]int64, n), Floats: make([]float64, n), Bools: make([]bool, n), Decimals: make([]decimal128.Num, n),
		Codes: make([]int32, n), Dict: &column.Dict{}}
	for i := range n {
		v.Ints[i], v.Floats[i], v.Bools[i] = rng.Int64N(2000)-500, rng.ExpFloat64()*100, rng.IntN(2) > 0
		v.Decimals[i], v.Codes[i] = decimal128.FromI64(rng.Int64()), int32(rng.IntN(300))
	}
	for i := range 300 {
		v.Dict.Strings = append(v.Dict.Strings, fmt.Sprintf("site-%d", i))
	}
	for _, bench := range []struct{ name, typ string }{
		{"count", "bool"}, {"sum", "int64"}, {"sum", "float64"}, {"sum", "decimal(38,2)"}, {"avg", "int64"},
		{"max", "int64"}, {"max", "string"}, {"uniq", "int64"}, {"uniq", "string"}, {"quantiles", "int64"}, {"quantiles", "float64"},
	} {
		typ, err := schemas.ParseType(bench.typ)
		if err != nil {
			b.Fatal(err)
		}
		var levels []float64
		if bench.name == "quantiles" {
			levels = []float64{0.5}
		}
		f, err := agg.New(bench.name, typ, levels)
		if err != nil {
			b.Fatal(err)
		}
		v.Kind = typ.Kind
		for _, groups := range []int{16, 1 << 16} {
			of := make([]int32, 64*n) // 64 blocks of the same values
			for i := range of {
				of[i] = int32(rng.IntN(groups))
			}
			b.Run(fmt.Sprintf("%s(%s)/%d", bench.name, bench.typ, groups), func(b *testing.B) {
				acc := f.New()
				acc.Grow(groups)
				b.ReportAllocs()
				for at := 0; b.Loop(); at = (at + n) % len(of) {
					acc.Add(of[at:at+n], nil, f.Prepare(v))
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/value")
				b.ReportMetric(float64(acc.Bytes())/float64(groups), "B/group")
			})
		}
	}
}
