package agg_test

import (
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

// Values at the very edges of codes have the codes that ClickHouse's own conversion gives them, and its
// quantilesBFloat16 says the same of each alone. It is here that another rounding shows, of a value
// or of a new ClickHouse.
func TestQuantileEdges(t *testing.T) {
	db := database(t)
	floats := column.Vector{Kind: schemas.Float64, Floats: []float64{0, math.Copysign(0, -1)}}
	add := func(x float64) {
		if a := math.Abs(x); a >= agg.MinQuantile && a <= agg.MaxQuantile {
			floats.Floats = append(floats.Floats, x, -x)
		}
	}
	for bits := uint32(1); bits < 0x7F80; bits++ { // every code of a positive value, of which each is one edge
		x := float64(math.Float32frombits(bits << 16))
		if bits%64 != rand.Uint32N(64) && bits > 0x0400 && bits < 0x7F00 {
			continue // every 64th edge is enough where there are neither tiny nor huge ones
		}
		// The edge of the rounding to a Float32 as well, half of its last bit below.
		half := x - x*0x1p-25
		for _, x := range []float64{x, half} {
			add(math.Nextafter(x, 0))
			add(x)
			add(math.Nextafter(x, math.Inf(1)))
		}
	}
	add(agg.MinQuantile)
	add(agg.MaxQuantile)
	add(math.Nextafter(agg.MinQuantile, 1))
	add(math.Nextafter(agg.MaxQuantile, 0))
	ints := column.Vector{Kind: schemas.Int64, Ints: []int64{math.MinInt64, math.MaxInt64, 0}}
	for e := range 56 {
		for range 16 {
			edge := int64(128+rand.IntN(128)) << e
			for _, x := range []int64{edge, edge + 1, edge - 1, edge - edge>>25, edge - edge>>25 - 1, edge - edge>>25 + 1} {
				ints.Ints = append(ints.Ints, x, -x)
			}
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
		sketch := states(groups, len(groups), []agg.Func{f}, []column.Vector{v}).Column(0)
		if err := db.Table("edges", []string{"id Int64", "x " + typ.ClickHouse(), "s Map(UInt16, UInt64)"}); err != nil {
			t.Fatal(err)
		}
		rec := array.NewRecord(arrow.NewSchema([]arrow.Field{
			{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "x", Type: typ.Arrow()}, {Name: "s", Type: sketch.DataType()},
		}, nil), []arrow.Array{ids.NewArray(), values.NewArray(), sketch}, int64(len(groups)))
		if err := db.Insert("edges", rec); err != nil {
			t.Fatal(err)
		}
		rows, err := db.Rows(fmt.Sprintf("SELECT count(), countIf(a != b OR p != q), anyIf(x, a != b OR p != q) FROM (SELECT any(edges.x) AS x, any(s) AS a, %s AS b, %s AS p, %s AS q FROM edges GROUP BY id)",
			f.StateSQL("edges.x", false)[0], f.FinishSQL([]string{"s"}), f.RawSQL("edges.x", false)))
		if err != nil {
			t.Fatal(err)
		}
		if rows[0][0] != fmt.Sprint(len(groups)) || rows[0][1] != "0" {
			t.Errorf("%s: of %d edge values %s are elsewhere, such as %s", typ, len(groups), rows[0][1], rows[0][2])
		}
	}
}

// What quantiles promise of a value: it is read as it is or up to 1/128 of it nearer to zero, but for the rounding
// to a Float32.
func TestQuantileErrors(t *testing.T) {
	db := database(t)
	f, err := agg.New("quantiles", schemas.Type{Kind: schemas.Float64}, []float64{0.5})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := db.Rows("SELECT max(1 - q / x), min(1 - q / x) FROM (SELECT x, " + f.RawSQL("x", false) + "[1] AS q FROM " +
		"(SELECT pow(10, -37 + 75 * number / 100000) * if(number % 2 = 0, 1, -1) AS x FROM numbers(100001)) GROUP BY x)")
	if err != nil {
		t.Fatal(err)
	}
	var most, least float64
	if _, err := fmt.Sscan(rows[0][0]+" "+rows[0][1], &most, &least); err != nil {
		t.Fatal(err)
	}
	if most > 1./128 || least < -0x1p-24 {
		t.Errorf("values are read up to %v nearer to zero, and up to %v further from it", most, -least)
	}
}

// Lists of codes become counts, and are sorted in either way, with the same outcome: groups of any size hold
// what ClickHouse counts.
func TestQuantilesOfManyValues(t *testing.T) {
	db := database(t)
	f, err := agg.New("quantiles", schemas.Type{Kind: schemas.Int64}, []float64{0.01, 0.5, 0.999})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{1, 11, 12, 32, 33, 40, 41, 4095, 4096, 4097, 5000, 200_000}
	v, groups := column.Vector{Kind: schemas.Int64}, []int32(nil)
	for g, n := range sizes {
		for i := range n {
			x := int64(rand.Uint64() >> rand.UintN(64))
			if i%2 == 0 {
				x = rand.Int64N(3000) - 1000
			}
			v.Ints, groups = append(v.Ints, x), append(groups, int32(g))
		}
	}
	order := make([]int32, len(sizes))
	for g := range order {
		order[g] = int32(g)
	}
	fold := func(from, to int) agg.Column {
		c := f.New()
		c.Grow(len(sizes))
		c.Add(groups[from:to], nil, f.Prepare(v).Slice(from, to))
		return c
	}
	whole, left, right := fold(0, len(groups)), fold(0, len(groups)/2), fold(len(groups)/2, len(groups))
	left.Merge(order, right)
	once, merged := whole.States(order)[0], left.States(order)[0]
	if !array.Equal(once, merged) {
		t.Errorf("merged states differ:\n%v\n%v", once, merged)
	}
	g, x, s := array.NewInt32Builder(memory.DefaultAllocator), array.NewInt64Builder(memory.DefaultAllocator), array.NewInt32Builder(memory.DefaultAllocator)
	g.AppendValues(groups, nil)
	x.AppendValues(v.Ints, nil)
	s.AppendValues(order, nil)
	record := func(names []string, columns ...arrow.Array) arrow.Record {
		var fields []arrow.Field
		for i, c := range columns {
			fields = append(fields, arrow.Field{Name: names[i], Type: c.DataType()})
		}
		return array.NewRecord(arrow.NewSchema(fields, nil), columns, int64(columns[0].Len()))
	}
	for _, err := range []error{
		db.Table("raw", []string{"g Int32", "x Int64"}), db.Insert("raw", record([]string{"g", "x"}, g.NewArray(), x.NewArray())),
		db.Table("s", []string{"g Int32", "s Map(UInt16, UInt64)"}), db.Insert("s", record([]string{"g", "s"}, s.NewArray(), once)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.Rows(fmt.Sprintf("SELECT count(), countIf(own.q != ours.q OR own.s != ours.s) FROM (SELECT g, %s AS q, mapSort(%s) AS s FROM raw GROUP BY g) AS own JOIN (SELECT g, %s AS q, any(s.s) AS s FROM s GROUP BY g) AS ours ON own.g = ours.g",
		f.RawSQL("x", false), f.StateSQL("x", false)[0], f.FinishSQL([]string{"s.s"})))
	if err != nil {
		t.Fatal(err)
	}
	if rows[0][0] != fmt.Sprint(len(sizes)) || rows[0][1] != "0" {
		t.Errorf("of %s groups %s differ", rows[0][0], rows[0][1])
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
	if err := db.Table("s", []string{"a Map(UInt16, UInt64)"}); err != nil {
		t.Fatal(err)
	}
	out := column.Vector{Kind: schemas.Float64, Floats: []float64{3.1e38, 9.9e-38, math.Inf(1), math.NaN(), math.SmallestNonzeroFloat64}}
	if err := db.Insert("s", states(make([]int32, len(out.Floats)), 1, []agg.Func{f}, []column.Vector{out})); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"SELECT " + f.FinishSQL([]string{"a"}) + " FROM s",
		"SELECT " + f.FinishSQL([]string{"a"}) + " FROM s WHERE 0",
		"SELECT " + f.FinishSQL([]string{"a"}) + " FROM (SELECT " + f.StateSQL("x", false)[0] + " AS a FROM (SELECT arrayJoin([3.1e38, -9.9e-38, inf, nan]) AS x))",
		"SELECT " + f.RawSQL("x", false) + " FROM (SELECT arrayJoin([3.1e38, -9.9e-38, inf, nan]) AS x)",
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
