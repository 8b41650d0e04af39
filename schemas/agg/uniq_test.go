package agg_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/column"
)

// Sets beyond 65,536 drop hashes by their skip degree. Split into any parts, of which some
// have dropped and some have not, they finish as ClickHouse's.
func TestUniqOfMany(t *testing.T) {
	db := database(t)
	f, err := agg.New("uniq", schemas.Type{Kind: schemas.Int64}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := agg.New("uniq", schemas.Type{Kind: schemas.String}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 65535, 65536, 65537, 150000, 400000} {
		for _, parts := range []int{1, 2, 313} {
			ints := column.Vector{Kind: schemas.Int64, Ints: make([]int64, n)}
			for i := range ints.Ints {
				ints.Ints[i] = int64(i) * 7919
			}
			texts := column.Vector{Kind: schemas.String, Codes: make([]int32, n), Dict: &column.Dict{Strings: make([]string, n)}}
			for i := range texts.Codes {
				texts.Codes[i], texts.Dict.Strings[i] = int32(i), strconv.Itoa(i)
			}
			// Uneven parts: the first has half of the values.
			rng := rand.New(rand.NewPCG(uint64(n), uint64(parts)))
			groups := make([]int32, n)
			for i := range groups {
				if i%2 == 0 {
					groups[i] = int32(rng.IntN(parts))
				}
			}
			if err := db.Table("s", []string{"a String", "b String"}); err != nil {
				t.Fatal(err)
			}
			if err := db.Insert("s", states(groups, parts, []agg.Func{f, text}, []column.Vector{ints, texts})); err != nil {
				t.Fatal(err)
			}
			got, err := db.Rows("SELECT uniqMerge(CAST(a, 'AggregateFunction(uniq, Int64)')), uniqMerge(CAST(b, 'AggregateFunction(uniq, String)')) FROM s")
			if err != nil {
				t.Fatal(err)
			}
			want, err := db.Rows(fmt.Sprintf("SELECT %s, %s FROM numbers(%d)",
				f.RawSQL("toInt64(number) * 7919", false), text.RawSQL("toString(number)", false), n))
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("uniq of %d values in %d parts: got %s; want %s", n, parts, got, want)
			}
		}
	}
}

// states folds vectors into states of the measures, named a, b, …; groups[i] is row i's.
func states(groups []int32, n int, fs []agg.Func, vs []column.Vector) arrow.Record {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	var fields []arrow.Field
	var arrays []arrow.Array
	for i, f := range fs {
		acc, c := f.New(), f.Columns(string(rune('a' + i)))[0]
		for range 2 { // the second life in the memory of the first
			acc.Reset()
			acc.Grow(n)
			acc.Add(groups, nil, f.Prepare(vs[i]))
		}
		fields = append(fields, arrow.Field{Name: c.Name, Type: c.Arrow})
		arrays = append(arrays, acc.States(order)...)
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(n))
}

// Sets list hashes, and become tables when much is repeated or there are many; whichever they are, in whatever parts
// they come, equal sets are equal bytes and count what there is.
func TestUniqListsAndTables(t *testing.T) {
	db := database(t)
	f, err := agg.New("uniq", schemas.Type{Kind: schemas.Int64}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var different []int
	var groups []int32
	v := column.Vector{Kind: schemas.Int64}
	for _, n := range []int{1, 5, 6, 21, 22, 37, 38, 1000, 16389, 16390, 40000} {
		for _, often := range []int{1, 2, 3, 40} {
			if n*often > 100_000 {
				continue
			}
			values := make([]int64, 0, n*often)
			for i := range n * often {
				values = append(values, int64(i%n)*7919) // the hash of 0 is 0, which has no slot
			}
			rand.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			for _, x := range values {
				v.Ints, groups = append(v.Ints, x), append(groups, int32(len(different)))
			}
			different = append(different, n)
		}
	}
	order := make([]int32, len(different))
	for g := range order {
		order[g] = int32(g)
	}
	hashes := f.Prepare(v)
	// fold adds those rows that keep allows.
	fold := func(keep func(row int) bool) agg.Column {
		var of, sel []int32
		for row, g := range groups {
			if keep(row) {
				of, sel = append(of, g), append(sel, int32(row))
			}
		}
		c := f.New()
		c.Grow(len(different))
		c.Add(of, sel, hashes)
		return c
	}
	want := fold(func(int) bool { return true }).States(order)[0]
	for _, parts := range []struct {
		name string
		left func(row int) bool
	}{
		{"all and nothing", func(int) bool { return true }},
		{"nothing and all", func(int) bool { return false }},
		{"even and odd", func(row int) bool { return row%2 == 0 }},
		{"few and many", func(row int) bool { return row%100 == 0 }},
		{"many and few", func(row int) bool { return row%100 != 0 }},
	} {
		left, right := fold(parts.left), fold(func(row int) bool { return !parts.left(row) })
		left.Merge(order, right)
		if got := left.States(order)[0]; !array.Equal(got, want) {
			t.Errorf("%s: merged states differ from those of all", parts.name)
		}
	}
	if err := db.Table("s", []string{"a String"}); err != nil {
		t.Fatal(err)
	}
	for g := range different {
		one := array.NewSlice(want, int64(g), int64(g)+1)
		rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "a", Type: want.DataType()}}, nil), []arrow.Array{one}, 1)
		if err := db.Insert("s", rec); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.Rows("SELECT toString(arraySort(groupArray(finalizeAggregation(CAST(a, 'AggregateFunction(uniq, Int64)'))))) FROM s")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rows[0][0], "["+strings.Join(strings.Fields(strings.Trim(fmt.Sprint(different), "[]")), ",")+"]"; got != want {
		t.Errorf("ClickHouse finishes the states to %s; want %s", got, want)
	}
}
