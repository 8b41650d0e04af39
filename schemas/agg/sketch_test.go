package agg_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/column"
)

var edges = flag.Int("edges", 8, "hold one in so many edges of quantile bins against ClickHouse")

// Values at the very edges of all bins fall into the bins that ClickHouse puts them in: states
// of one value each are equal byte by byte. It is here that an inexact logarithm shows, and a
// new ClickHouse with another one.
func TestQuantileBinEdges(t *testing.T) {
	db := database(t)
	m := math.Float64frombits(0x4048ffc9629d2370)
	floats := column.Vector{Kind: schemas.Float64}
	add := func(x float64) {
		if a := math.Abs(x); a >= agg.MinQuantile && a <= agg.MaxQuantile {
			floats.Floats = append(floats.Floats, x)
		}
	}
	// Each run takes every eighth edge, another eighth every time: -edges=1 takes all of them.
	first := rand.IntN(*edges)
	t.Logf("every %d. bin from %d on", *edges, first)
	for k := first - 11600; k <= 11600; k += *edges {
		x := math.Exp(float64(k) / m)
		add(-x)
		for range 2 { // the exponential itself is not exact
			x = math.Nextafter(x, 0)
		}
		for range 5 {
			add(x)
			x = math.Nextafter(x, math.Inf(1))
		}
		// Around the distance at which the quick logarithm is trusted.
		for _, d := range []float64{1e-10, 1e-8, 1.9e-8, 2.1e-8, 1e-7} {
			add(x * (1 - d))
			add(-x * (1 + d))
		}
	}
	add(agg.MinQuantile)
	add(agg.MaxQuantile)
	ints := column.Vector{Kind: schemas.Int64, Ints: []int64{math.MinInt64, math.MaxInt64, 0}}
	for k := first; math.Exp(float64(k)/m) < math.MaxInt64; k += *edges {
		for d := int64(-2); d <= 2; d++ {
			x := int64(math.Exp(float64(k)/m)) + d
			ints.Ints = append(ints.Ints, x, -x)
		}
	}
	for _, v := range []column.Vector{floats, ints} {
		typ := schemas.Type{Kind: v.Kind}
		f, err := agg.New("quantiles", typ, []float64{0.5})
		if err != nil {
			t.Fatal(err)
		}
		ids, values := array.NewInt64Builder(memory.DefaultAllocator), array.NewBuilder(memory.DefaultAllocator, typ.Arrow())
		groups := make([]int32, max(len(v.Ints), len(v.Floats)))
		for i := range groups {
			groups[i] = int32(i)
			ids.Append(int64(i))
		}
		switch b := values.(type) {
		case *array.Float64Builder:
			b.AppendValues(v.Floats, nil)
		case *array.Int64Builder:
			b.AppendValues(v.Ints, nil)
		}
		if err := db.Table("edges", []string{"id Int64", "x " + typ.ClickHouse(), "s String"}); err != nil {
			t.Fatal(err)
		}
		rec := array.NewRecord(arrow.NewSchema([]arrow.Field{
			{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "x", Type: typ.Arrow()}, {Name: "s", Type: arrow.BinaryTypes.Binary},
		}, nil), []arrow.Array{ids.NewArray(), values.NewArray(), states(groups, len(groups), []agg.Func{f}, []column.Vector{v}).Column(0)}, int64(len(groups)))
		if err := db.Insert("edges", rec); err != nil {
			t.Fatal(err)
		}
		rows, err := db.Rows("SELECT count(), countIf(a != b), anyIf(x, a != b) FROM (SELECT any(x) AS x, any(s) AS a, " +
			"CAST(quantilesDDState(0.01, 0.5)(edges.x) AS String) AS b FROM edges GROUP BY id)")
		if err != nil {
			t.Fatal(err)
		}
		if rows[0][0] != fmt.Sprint(len(groups)) || rows[0][1] != "0" {
			t.Errorf("%s: of %d edge values %s are in the wrong bin, such as %s", typ, len(groups), rows[0][1], rows[0][2])
		}
	}
}

// Over nothing quantiles are an empty array, in every form; and a value that they do not take
// is nothing.
func TestQuantilesOverNothing(t *testing.T) {
	db := database(t)
	f, err := agg.New("quantiles", schemas.Type{Kind: schemas.Float64}, []float64{0.5})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Table("s", []string{"a String"}); err != nil {
		t.Fatal(err)
	}
	out := column.Vector{Kind: schemas.Float64, Floats: []float64{1e101, 1e-101, math.Inf(1), math.NaN(), math.SmallestNonzeroFloat64}}
	if err := db.Insert("s", states(make([]int32, len(out.Floats)), 1, []agg.Func{f}, []column.Vector{out})); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"SELECT " + f.FinishSQL([]string{"CAST(a, '" + f.Columns("a")[0].ClickHouse + "')"}) + " FROM s",
		"SELECT " + f.RawSQL("x", false) + " FROM (SELECT arrayJoin([1e101, -1e-101, inf, nan]) AS x)",
		"SELECT " + f.RawSQL("x", true) + " FROM (SELECT CAST(NULL, 'Nullable(Float64)') AS x)",
	} {
		rows, err := db.Rows(sql)
		if err != nil {
			t.Fatal(err)
		}
		if rows[0][0] != "[]" {
			t.Errorf("%s: got %s; want []", sql, rows[0][0])
		}
	}
}

func TestNewRefuses(t *testing.T) {
	refused := func(name, typ string, levels ...float64) {
		t.Helper()
		var arg schemas.Type
		if typ != "" {
			var err error
			if arg, err = schemas.ParseType(typ); err != nil {
				t.Fatal(err)
			}
		}
		if f, err := agg.New(name, arg, levels); err == nil {
			t.Errorf("%s(%s, %v): got %v; want an error", name, typ, levels, f)
		}
	}
	refused("count", "int64")
	refused("sum", "string")
	refused("sum", "")
	refused("sum", "int64", 0.5)
	refused("avg", "bool")
	refused("min", "")
	refused("uniq", "")
	refused("quantiles", "int64")
	refused("quantiles", "int64", 1.01)
	refused("quantiles", "int64", math.NaN())
	refused("quantiles", "decimal(9,2)", 0.5)
	refused("median", "int64")
}
