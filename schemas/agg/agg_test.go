package agg_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/agg/aggtest"
	"watershed/schemas/column"
)

// TestMain has properties checked 30 times: most of them ask ClickHouse half a dozen questions each time.
// -rapid.checks=1000 looks longer.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "30"); err != nil { // what the command line says comes later
		panic(err) // the flag is rapid's
	}
	devtest.Main(m)
}

func database(t *testing.T) *aggtest.DB {
	t.Helper()
	db, err := aggtest.New(devtest.SharedClickHouse(t), "agg_"+strings.ToLower(strings.NewReplacer("/", "_", "(", "_", ")", "", ",", "_").Replace(t.Name())))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

type named struct {
	name string
	agg.Func
}

// measures are all measures that take the type.
func measures(t testing.TB, typ schemas.Type) []named {
	t.Helper()
	var fs []named
	for _, name := range []string{"count", "sum", "avg", "min", "max", "uniq", "distinct", "quantiles", "histogram", "variance", "variance_sample", "stddev", "stddev_sample"} {
		var levels []float64
		if name == "quantiles" {
			levels = []float64{0, 0.25, 0.5, 0.99, 1}
		}
		if name == "histogram" {
			levels = []float64{-2, 0, 1, 4096}
			if typ.Kind == schemas.Float64 {
				levels = []float64{-1e200, -0.5, 0, 1, 2.25, 3e38}
			}
		}
		if f, err := agg.New(name, typ, levels); err == nil {
			fs = append(fs, named{"m_" + name, f})
		}
	}
	if len(fs) < 3 {
		t.Fatalf("only %d measures take %s", len(fs), typ)
	}
	return fs
}

// record folds the values into states, one row per group.
func record(fs []named, typ schemas.Type, groups []int32, sel []int32, values []any, dictionary bool, n int, part int32) arrow.Record {
	field := arrow.Field{Name: "x", Type: aggtest.Array(typ, values, dictionary).DataType(), Nullable: true}
	in := array.NewRecord(arrow.NewSchema([]arrow.Field{field}, nil), []arrow.Array{aggtest.Array(typ, values, dictionary)}, int64(len(values)))
	v, err := column.NewReader().Block(in).Field("x")
	if err != nil {
		panic(err)
	}
	fields := []arrow.Field{{Name: "g", Type: arrow.PrimitiveTypes.Int32}, {Name: "part", Type: arrow.PrimitiveTypes.Int32}}
	order := make([]int32, n)
	keys, parts := array.NewInt32Builder(memory.DefaultAllocator), array.NewInt32Builder(memory.DefaultAllocator)
	for i := range order {
		order[i] = int32(n - 1 - i)
		keys.Append(order[i])
		parts.Append(part)
	}
	arrays := []arrow.Array{keys.NewArray(), parts.NewArray()}
	for _, f := range fs {
		acc := f.New()
		// A first life, to see that nothing of it is left.
		acc.Grow(n + 1)
		x := f.Prepare(v)
		acc.Add(groups, sel, x)
		acc.Reset()
		acc.Grow(1)
		acc.Grow(n)
		acc.Add(groups, sel, x)
		for _, c := range f.Columns(f.name) {
			fields = append(fields, arrow.Field{Name: c.Name, Type: c.Arrow, Nullable: c.Nullable})
		}
		arrays = append(arrays, acc.States(order)...)
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(n))
}

var types = []schemas.Type{
	{Kind: schemas.Int64}, {Kind: schemas.Float64}, {Kind: schemas.Bool}, {Kind: schemas.String},
	{Kind: schemas.Timestamp}, {Kind: schemas.Date},
	{Kind: schemas.Decimal, Precision: 9, Scale: 2}, {Kind: schemas.Decimal, Precision: 18, Scale: 18}, {Kind: schemas.Decimal, Precision: 38, Scale: 5},
}

// States built in Go and merged by ClickHouse, states built by ClickHouse, states merged twice,
// and the aggregate straight over the values all finish equal.
func TestStatesFinishAsClickHousesOwn(t *testing.T) {
	for _, typ := range types {
		t.Run(typ.String(), func(t *testing.T) {
			t.Parallel()
			db, fs := database(t), measures(t, typ)
			tables(t, db, typ, fs)
			rapid.Check(t, func(r *rapid.T) {
				n := rapid.IntRange(1, 10).Draw(r, "groups")
				values := rapid.SliceOfN(rapid.OneOf(aggtest.Draw(typ), rapid.Just[any](nil), aggtest.Draw(typ)), 0, 120).Draw(r, "values")
				groups := rapid.SliceOfN(rapid.Int32Range(0, int32(n-1)), len(values), len(values)).Draw(r, "of")
				parts := rapid.SliceOfN(rapid.Int32Range(0, 2), len(values), len(values)).Draw(r, "parts")
				check(r, db, typ, fs, n, values, groups, parts)
			})
		})
	}
}

func tables(t testing.TB, db *aggtest.DB, typ schemas.Type, fs []named) {
	t.Helper()
	states := []string{"g Int32", "part Int32"}
	for _, f := range fs {
		for _, c := range f.Columns(f.name) {
			states = append(states, c.Name+" "+c.Staged())
		}
	}
	if err := db.Table("states", states); err != nil {
		t.Fatal(err)
	}
	if err := db.Table("raw", []string{"g Int32", "part Int32", "x Nullable(" + typ.ClickHouse() + ")"}); err != nil {
		t.Fatal(err)
	}
}

func check(r rapid.TB, db *aggtest.DB, typ schemas.Type, fs []named, n int, values []any, groups, parts []int32) {
	r.Helper()
	must := func(err error) {
		r.Helper()
		if err != nil {
			r.Fatal(err)
		}
	}
	must(db.Exec("TRUNCATE TABLE states"))
	must(db.Exec("TRUNCATE TABLE raw"))
	var recs []arrow.Record
	for part := int32(0); part <= 2; part++ {
		sel, of := []int32{}, []int32{}
		for i := range values {
			if parts[i] == part {
				sel, of = append(sel, int32(i)), append(of, groups[i])
			}
		}
		if part == 2 { // all rows of a vector of their own
			var own []any
			for _, i := range sel {
				own = append(own, values[i])
			}
			recs = append(recs, record(fs, typ, of, nil, own, false, n, part))
			continue
		}
		recs = append(recs, record(fs, typ, of, sel, values, part == 0, n, part))
	}
	must(db.Insert("states", recs...))
	must(db.Insert("raw", raw(typ, values, groups, parts)))

	type form struct{ name, cols, from string }
	var cast, state, merge []string
	finish, straight, scale := []string{"g"}, []string{"g"}, []string{"g"}
	for _, f := range fs {
		var cols []string
		for _, c := range f.Columns(f.name) {
			cols = append(cols, c.Name)
			cast = append(cast, fmt.Sprintf("CAST(%s, '%s') AS %s", c.Name, strings.ReplaceAll(c.ClickHouse, "'", `\'`), c.Name))
		}
		for i, sql := range f.StateSQL("x", true) {
			state = append(state, sql+" AS "+cols[i])
		}
		for i, sql := range f.MergeSQL(cols) {
			merge = append(merge, sql+" AS "+cols[i])
		}
		scale = append(scale, "0.")
		if r, ok := f.Func.(agg.Rounded); ok {
			if sql := r.MagnitudesSQL(cols); sql != "" {
				scale[len(scale)-1] = sql
			}
		}
		finish, straight = append(finish, f.FinishSQL(cols)), append(straight, f.RawSQL("x", true))
	}
	castStates := "(SELECT g, part, " + strings.Join(cast, ", ") + " FROM states)"
	rawStates := "(SELECT g, part, " + strings.Join(state, ", ") + " FROM raw GROUP BY g, part)"
	rollup := "(SELECT g, " + strings.Join(merge, ", ") + " FROM " + castStates + " GROUP BY g SETTINGS prefer_column_name_to_alias = 1)"
	scales, err := db.Rows("SELECT " + strings.Join(scale, ", ") + " FROM " + castStates + " GROUP BY g ORDER BY g")
	must(err)
	var want [][]string
	for _, f := range []form{
		{"straight over the values", strings.Join(straight, ", "), "(SELECT g, x FROM raw UNION ALL SELECT toInt32(number), NULL FROM numbers(" + strconv.Itoa(n) + "))"},
		{"states built in Go", strings.Join(finish, ", "), castStates},
		{"states built in Go, merged twice", strings.Join(finish, ", "), rollup},
		{"states of which ClickHouse built some", strings.Join(finish, ", "), "(SELECT * FROM " + castStates + " WHERE part != 1 UNION ALL SELECT * FROM " + rawStates + " WHERE part = 1)"},
		{"states built by ClickHouse", strings.Join(finish, ", "), rawStates},
	} {
		got, err := db.Rows("SELECT " + f.cols + " FROM " + f.from + " GROUP BY g ORDER BY g")
		must(err)
		if want == nil {
			want = got
			continue
		}
		byGroup := make(map[string][]string)
		for _, row := range got {
			byGroup[row[0]] = row
		}
		for at, w := range want {
			g, ok := byGroup[w[0]]
			if !ok && f.name == "states built by ClickHouse" {
				continue // no such rows
			}
			if !ok {
				r.Fatalf("%s: group %s is missing", f.name, w[0])
			}
			for i, m := range fs {
				i++ // the group is first
				if !same(w[i], g[i], scales[at][i]) {
					r.Fatalf("%s: %s(%s) of group %s is %s; want %s", f.name, m.name, typ, w[0], g[i], w[i])
				}
			}
		}
	}
}

// Every form has the type that the measure says, of nullable arguments and of others.
func TestResultTypes(t *testing.T) {
	db := database(t)
	for _, typ := range types {
		for _, nullable := range []bool{false, true} {
			x, sql := typ.ClickHouse(), ""
			if nullable {
				x = "Nullable(" + x + ")"
			}
			var want []string
			for _, f := range measures(t, typ) {
				state := f.StateSQL("x", nullable)
				for i, c := range f.Columns(f.name) {
					typ := c.ClickHouse
					if c.Staged() != "String" {
						typ = c.Staged() // without its SimpleAggregateFunction
					}
					sql, want = sql+", toTypeName("+state[i]+")", append(want, typ)
				}
				sql, want = sql+", toTypeName("+f.RawSQL("x", nullable)+")", append(want, f.ResultType())
			}
			rows, err := db.Rows("SELECT " + strings.TrimPrefix(sql, ", ") + " FROM (SELECT defaultValueOfTypeName('" + strings.ReplaceAll(x, "'", `\'`) + "') AS x)")
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range rows[0] {
				if got != want[i] {
					t.Errorf("%s: got type %s; want %s", x, got, want[i])
				}
			}
		}
	}
}

func raw(typ schemas.Type, values []any, groups, parts []int32) arrow.Record {
	g, p := array.NewInt32Builder(memory.DefaultAllocator), array.NewInt32Builder(memory.DefaultAllocator)
	g.AppendValues(groups, nil)
	p.AppendValues(parts, nil)
	return array.NewRecord(arrow.NewSchema([]arrow.Field{
		{Name: "g", Type: arrow.PrimitiveTypes.Int32}, {Name: "part", Type: arrow.PrimitiveTypes.Int32},
		{Name: "x", Type: typ.Arrow(), Nullable: true},
	}, nil), []arrow.Array{g.NewArray(), p.NewArray(), aggtest.Array(typ, values, false)}, int64(len(values)))
}

// same compares finished values: exactly, but for what depends on the order of additions, which may differ by the
// tolerance times the scale.
func same(want, got, scale string) bool {
	if want == got {
		return true
	}
	var w, g, s float64
	if json.Unmarshal([]byte(want), &w) != nil || json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(scale), &s) != nil {
		return false
	}
	return math.Abs(w-g) <= agg.Tolerance*s
}
