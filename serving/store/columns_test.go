package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// kindOf is a type of dimension: how the i-th value is appended, and how ClickHouse writes it.
type kindOf struct {
	typ    schemas.Type
	append func(b array.Builder, i int)
	text   func(i int) string
}

func decimalKind(precision, scale int, unit int64) kindOf {
	// The last digit is not zero: ClickHouse would leave it out.
	value := func(i int) decimal128.Num { return decimal128.FromI64(int64(i-20)*unit*10 + 7) }
	return kindOf{schemas.Type{Kind: schemas.Decimal, Precision: precision, Scale: scale},
		func(b array.Builder, i int) { b.(*array.Decimal128Builder).Append(value(i)) },
		func(i int) string { return value(i).ToString(int32(scale)) }}
}

func kindsOf() []kindOf {
	word := func(i int) string { return strings.Repeat("ü", i*i%200) }
	return []kindOf{
		{kind(schemas.Int64), func(b array.Builder, i int) { b.(*array.Int64Builder).Append(int64(i) - 1<<62) },
			func(i int) string { return fmt.Sprint(int64(i) - 1<<62) }},
		{kind(schemas.Float64), func(b array.Builder, i int) { b.(*array.Float64Builder).Append(float64(i) - 0.5) },
			func(i int) string { return fmt.Sprint(float64(i) - 0.5) }},
		{kind(schemas.Bool), func(b array.Builder, i int) { b.(*array.BooleanBuilder).Append(i%3 == 1) },
			func(i int) string { return fmt.Sprint(i%3 == 1) }},
		{kind(schemas.String), func(b array.Builder, i int) { b.(*array.StringBuilder).Append(word(i)) }, word},
		{kind(schemas.Timestamp), func(b array.Builder, i int) {
			b.(*array.TimestampBuilder).Append(arrow.Timestamp((i - 10) * 1e12))
		}, func(i int) string {
			return time.UnixMicro(int64(i-10) * 1e12).UTC().Format("2006-01-02 15:04:05.000000")
		}},
		{kind(schemas.Date), func(b array.Builder, i int) { b.(*array.Date32Builder).Append(arrow.Date32(i*500 - 20000)) },
			func(i int) string { return time.Unix(int64(i*500-20000)*86400, 0).UTC().Format("2006-01-02") }},
		decimalKind(9, 2, 1e5), decimalKind(18, 4, 1e14), decimalKind(38, 10, 1e16),
	}
}

// Every type of dimension, with and without nulls, comes into its table as it was in Arrow, from
// records that are cut out of larger ones, and from dictionaries; and lists of every type as well.
func TestColumnsArriveAsTheyWere(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	kinds := kindsOf()
	count := newPlan("", 0).Measures[0]
	p := &view.Plan{Hash: strings.Repeat("ab", 32), View: &schemas.View{Name: "sales"}, Measures: []view.Measure{count}}
	for i, k := range kinds {
		p.Dimensions = append(p.Dimensions, view.Dimension{Name: fmt.Sprint("d", i), Type: k.typ},
			view.Dimension{Name: fmt.Sprint("n", i), Type: k.typ, Nullable: true})
	}
	for i, k := range kinds {
		f, err := agg.New("distinct", k.typ, nil)
		check(t, err)
		name := fmt.Sprint("l", i)
		p.Measures = append(p.Measures, view.Measure{Name: name, Func: f, Columns: f.Columns(name)})
	}
	ensure(t, db, true, p)
	check(t, db.TakeOver(t.Context(), store.RoleBatch, 1))

	const rows = 40
	b := array.NewRecordBuilder(memory.DefaultAllocator, p.StateSchema())
	defer b.Release()
	var want []string
	for i := range rows {
		var line []string
		for j, k := range kinds {
			k.append(b.Field(2*j), i)
			if i%4 == 3 {
				b.Field(2*j + 1).AppendNull()
				line = append(line, k.text(i), `\N`)
				continue
			}
			k.append(b.Field(2*j+1), i)
			line = append(line, k.text(i), k.text(i))
		}
		b.Field(2 * len(kinds)).(*array.Uint64Builder).Append(uint64(i))
		line = append(line, fmt.Sprint(i))
		for j, k := range kinds { // lists of a value, and of none
			list := b.Field(2*len(kinds) + 1 + j).(*array.ListBuilder)
			list.Append(true)
			if i%3 == 2 {
				line = append(line, "none")
				continue
			}
			k.append(list.ValueBuilder(), i)
			line = append(line, k.text(i))
		}
		want = append(want, strings.Join(line, "\t"))
	}
	whole := b.NewRecord()
	cut := whole.NewSlice(13, 29)
	check(t, db.InsertSlices(t.Context(), p, 1, []schemas.SliceStates{
		{Slice: 1<<32 | 1, States: cut}, {Slice: 1<<32 | 2, States: withDictionaries(whole.NewSlice(29, rows))}, {Slice: 1<<32 | 3, States: whole.NewSlice(0, 13)},
	}))
	names := make([]string, 0, 2*len(kinds))
	for _, d := range p.Dimensions {
		names = append(names, d.Name)
	}
	names = append(names, "flights")
	for i := range kinds {
		names = append(names, fmt.Sprintf("if(empty(l%[1]d), 'none', toString(l%[1]d[1]))", i))
	}
	got := ask(t, conn, "SELECT "+strings.Join(names, ", ")+" FROM "+p.ID()+"__batch ORDER BY flights")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// withDictionaries has dictionaries in place of strings.
func withDictionaries(rec arrow.Record) arrow.Record {
	columns, fields := slices.Clone(rec.Columns()), slices.Clone(rec.Schema().Fields())
	for i, c := range columns {
		s, ok := c.(*array.String)
		if !ok {
			continue
		}
		typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
		b := array.NewDictionaryBuilder(memory.DefaultAllocator, typ).(*array.BinaryDictionaryBuilder)
		for k := range s.Len() {
			if s.IsNull(k) {
				b.AppendNull()
			} else if err := b.AppendString(s.Value(k)); err != nil {
				panic(err)
			}
		}
		columns[i], fields[i].Type = b.NewArray(), typ
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, rec.NumRows())
}

// A database of an older version has other staging tables: they are replaced, and what was written
// through them stays.
func TestFormerStagingTablesAreReplaced(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	rec := states(t, p, some(1, 50))
	insert := func() error {
		return db.InsertSpeed(t.Context(), p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: 1}}, rec)
	}
	check(t, insert())
	for _, table := range []string{p.ID() + "__batch", p.ID() + "__speed"} {
		for _, sql := range []string{
			"DROP VIEW %[1]s_into_fence", "DROP TABLE %[1]s_into",
			"CREATE TABLE %[1]s_in (flights UInt64) ENGINE = Null",
			"CREATE MATERIALIZED VIEW %[1]s_fence TO %[1]s AS SELECT flights FROM %[1]s_in",
		} {
			check(t, conn.Exec(t.Context(), fmt.Sprintf(sql, table)))
		}
	}
	ensure(t, db, true, p)
	check(t, insert())
	got := ask(t, conn, "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, '"+p.ID()+"') ORDER BY name")
	var want []string
	for _, table := range []string{p.ID() + "__batch", p.ID() + "__speed"} {
		want = append(want, table, table+"_into", table+"_into_fence")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	if got := ask(t, conn, "SELECT sum(flights) FROM "+p.ID()+"__speed"); !cmp.Equal(got, []string{fmt.Sprint(2 * 50)}) {
		t.Errorf("events are %v; want twice 50", got)
	}
}
