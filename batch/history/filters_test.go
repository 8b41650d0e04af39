package history

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go"

	"watershed/schemas"
)

// Random tables of every type, in every form that a column is stored in, are read by ClickHouse and DuckDB with filters for
// which they look at statistics and page indexes, and by parquet-go page by page: a bound that is wrong loses rows.
func TestRandomFilesAreReadByOthers(t *testing.T) {
	c, root := readableRoot(t)
	ev := everyType()
	for seed := range uint64(3) {
		r := newRand(100 + seed)
		rec := randomColumns(r, ev, 1+r.IntN(3*pageRows))
		name, size := writeRandomly(t, r, mustOpen(t, filepath.Join(root, strconv.Itoa(int(seed))), ev), rec)
		checkPages(t, name, size, rec)
		lines := ourLines(rec)
		for _, engine := range []reader{inClickHouse(c), inDuckDB()} {
			statements, want := engine.filters(r.IntN, ev, rec, name)
			answers := engine.query(t, append(statements, engine.digests(ev, name)))
			for i, w := range want {
				if got := strings.Join(answers[i], " "); got != w {
					t.Errorf("seed %d, %d rows: %s answers %.300s with %s; want %s", seed, rec.NumRows(), engine.name, statements[i], got, w)
				}
			}
			digests := answers[len(want)]
			for i, line := range lines {
				if i >= len(digests) || digests[i] != fmt.Sprintf("%X", md5.Sum([]byte(line))) {
					t.Fatalf("seed %d: to %s, row %d of %d differs: %.2000s", seed, engine.name, i, len(digests), line)
				}
			}
		}
	}
}

// writeRandomly writes a record in pieces, texts with and without a dictionary, columns in random forms.
func writeRandomly(t *testing.T, r *rand.Rand, table *Table, rec arrow.Record) (name string, size int64) {
	t.Helper()
	group := parquet.Group{}
	for _, f := range ownFields(table.event) {
		all := forms(f.Type)
		node, err := all[r.IntN(len(all))].node(f)
		if err != nil {
			t.Fatal(err)
		}
		group[f.Name] = node
	}
	w, err := table.newFileAs(0, newFileName(), parquet.NewSchema(table.event.Name, group))
	if err != nil {
		t.Fatal(err)
	}
	defer w.abort()
	w.cores = 1 + r.IntN(3)
	coded := withDictionaries(rec)
	for from := int64(0); from < rec.NumRows(); {
		to := min(rec.NumRows(), from+1+r.Int64N(pageRows))
		part, rows := []arrow.Record{rec, coded}[r.IntN(2)].NewSlice(from, to), []int32(nil)
		for _, col := range part.Columns() {
			col.NullN()
		}
		if r.IntN(2) == 0 {
			for i := range to - from {
				rows = append(rows, int32(i))
			}
		}
		if err := w.write(part, rows); err != nil {
			t.Fatal(err)
		}
		from = to
	}
	a, err := w.close(false, false)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(table.dir, w.path), a.Size
}

// withDictionaries is the record with its texts in dictionaries.
func withDictionaries(rec arrow.Record) arrow.Record {
	columns := slices.Clone(rec.Columns())
	for k, col := range columns {
		texts, ok := col.(*array.String)
		if !ok {
			continue
		}
		b := array.NewDictionaryBuilder(memory.DefaultAllocator, dictionaryType).(*array.BinaryDictionaryBuilder)
		for i := range texts.Len() {
			if texts.IsNull(i) {
				b.AppendNull()
			} else if err := b.AppendString(texts.Value(i)); err != nil {
				panic(err)
			}
		}
		columns[k] = b.NewArray()
	}
	fields := slices.Clone(rec.Schema().Fields())
	for k := range fields {
		fields[k].Type = columns[k].DataType()
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, rec.NumRows())
}

// checkPages holds what the page index and the statistics say against the values that parquet-go reads.
func checkPages(t *testing.T, name string, size int64, rec arrow.Record) {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	f, err := parquet.OpenFile(in, size)
	if err != nil {
		t.Fatal(err)
	}
	for at, field := range f.Schema().Fields() {
		col := rec.Column(rec.Schema().FieldIndices(field.Name())[0])
		row := 0
		for _, group := range f.RowGroups() {
			chunk := group.ColumnChunks()[at].(*parquet.FileColumnChunk)
			index, err := chunk.ColumnIndex()
			if err != nil && !isLong(col) {
				t.Fatalf("%s: %v", field.Name(), err)
			}
			offsets, err := chunk.OffsetIndex()
			if err != nil {
				t.Fatal(err)
			}
			pages, first := chunk.Pages(), row
			n := 0
			for ; row < first+int(group.NumRows()); n++ {
				page, err := pages.ReadPage()
				if err != nil {
					t.Fatalf("%s: page %d: %v", field.Name(), n, err)
				}
				if got := offsets.FirstRowIndex(n); got != int64(row-first) {
					t.Errorf("%s: page %d begins at row %d of the group, the index says %d", field.Name(), n, row-first, got)
				}
				values := make([]parquet.Value, page.NumValues())
				if got, _ := page.Values().ReadValues(values); got != len(values) {
					t.Fatalf("%s: page %d has %d values of %d", field.Name(), n, got, len(values))
				}
				nulls := 0
				for i, v := range values {
					if col.IsNull(row+i) != v.IsNull() {
						t.Fatalf("%s: row %d is null: %t", field.Name(), row+i, v.IsNull())
					}
					if v.IsNull() {
						nulls++
						continue
					}
					if got, want := rawText(v), ourValue(col, row+i); got != want {
						t.Fatalf("%s: row %d is %.100s; want %.100s", field.Name(), row+i, got, want)
					}
					if index != nil && (compareValues(field.Type(), index.MinValue(n), v) > 0 || compareValues(field.Type(), v, index.MaxValue(n)) > 0) {
						t.Fatalf("%s: page %d has %v, outside of %v to %v", field.Name(), n, v, index.MinValue(n), index.MaxValue(n))
					}
				}
				if index != nil && (index.NullCount(n) != int64(nulls) || index.NullPage(n) != (nulls == len(values))) {
					t.Errorf("%s: page %d has %d nulls of %d, the index says %d, %t", field.Name(), n, nulls, len(values), index.NullCount(n), index.NullPage(n))
				}
				row += len(values)
				parquet.Release(page)
			}
			if got := offsets.NumPages(); got != n {
				t.Errorf("%s: %d pages, the index has %d", field.Name(), n, got)
			}
			if err := pages.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if row != col.Len() {
			t.Errorf("%s: %d rows; want %d", field.Name(), row, col.Len())
		}
	}
}

// isLong tells whether a column has texts that are too long for statistics.
func isLong(col arrow.Array) bool {
	texts, ok := col.(*array.String)
	for i := 0; ok && i < texts.Len(); i++ {
		if texts.ValueLen(i) > maxStatBytes {
			return true
		}
	}
	return false
}

// rawText is the text of ourValue.
func rawText(v parquet.Value) string {
	switch v.Kind() {
	case parquet.ByteArray:
		return fmt.Sprintf("%X", v.ByteArray())
	case parquet.FixedLenByteArray:
		return encoded128(v.ByteArray()).BigInt().String()
	case parquet.Boolean:
		return map[bool]string{true: "1", false: "0"}[v.Boolean()]
	case parquet.Double:
		return fmt.Sprint(floatBits(v.Double()))
	case parquet.Int32:
		return fmt.Sprint(v.Int32())
	}
	return fmt.Sprint(v.Int64())
}

// compareValues compares as Parquet says; parquet-go takes decimals for texts.
func compareValues(t parquet.Type, a, b parquet.Value) int {
	if t.Kind() == parquet.FixedLenByteArray {
		return encoded128(a.ByteArray()).Cmp(encoded128(b.ByteArray()))
	}
	return t.Compare(a, b)
}

// encoded128 is the opposite of encode128.
func encoded128(b []byte) decimal128.Num {
	return decimals(&values{n: 1, data: b})[0]
}

func holds(op string, c int) bool {
	if op == "<>" {
		return c != 0
	}
	return c == 0 && strings.Contains(op, "=") || c < 0 && strings.Contains(op, "<") || c > 0 && strings.Contains(op, ">")
}

func compareRows(col arrow.Array, i, j int) int {
	switch a := col.(type) {
	case *array.String:
		return strings.Compare(a.Value(i), a.Value(j))
	case *array.Boolean:
		return bytes.Compare([]byte(ourValue(a, i)), []byte(ourValue(a, j)))
	case *array.Int64:
		return cmp.Compare(a.Value(i), a.Value(j))
	case *array.Float64:
		return cmp.Compare(a.Value(i), a.Value(j))
	case *array.Decimal128:
		return a.Value(i).Cmp(a.Value(j))
	case *array.Timestamp:
		return cmp.Compare(a.Value(i), a.Value(j))
	case *array.Date32:
		return cmp.Compare(a.Value(i), a.Value(j))
	}
	panic(col.DataType())
}

// literal is a value in ClickHouse's SQL.
func literal(typ schemas.Type, col arrow.Array, i int) string {
	switch a := col.(type) {
	case *array.String:
		return fmt.Sprintf("unhex('%X')", a.Value(i))
	case *array.Boolean:
		return strconv.FormatBool(a.Value(i))
	case *array.Int64:
		return fmt.Sprintf("toInt64('%d')", a.Value(i))
	case *array.Float64:
		return fmt.Sprintf("reinterpretAsFloat64(toUInt64(%d))", floatBits(a.Value(i)))
	case *array.Decimal128:
		return fmt.Sprintf("toDecimal128('%s', %d)", decimalText(a.Value(i), typ.Scale), typ.Scale)
	case *array.Timestamp:
		return fmt.Sprintf("fromUnixTimestamp64Micro(%d, 'UTC')", a.Value(i))
	case *array.Date32:
		return fmt.Sprintf("toDate32('%s')", dateText(int64(a.Value(i))))
	}
	panic(typ)
}

// randomColumns are rows whose columns have stretches of nulls, of one value, of values that lie close together, of any values, and of
// the outermost ones.
func randomColumns(r *rand.Rand, ev *schemas.Event, n int) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	for k, f := range ev.Fields {
		for left := n; left > 0; {
			stretch := min(left, 1+r.IntN(2*pageRows))
			kind, base := r.IntN(5), r.Int64N(1e9)-5e8
			if f.Type.Kind == schemas.String && kind == 4 {
				stretch = min(stretch, 40)
			}
			for i := range stretch {
				switch {
				case f.Optional && (kind == 0 || r.IntN(20) == 0):
					b.Field(k).AppendNull()
				case kind == 1:
					appendNumbered(r, b.Field(k), f.Type, base, false)
				case kind == 4:
					appendNumbered(r, b.Field(k), f.Type, int64(r.IntN(2)), true)
				case kind == 2 && f.Type.Kind == schemas.Float64 && base%2 == 0: // equal, and neither less to some
					b.Field(k).(*array.Float64Builder).Append(math.Copysign(0, float64(base)))
				case kind == 2:
					appendNumbered(r, b.Field(k), f.Type, base+int64(i), false)
				default:
					appendRandom(r, b.Field(k), f.Type)
				}
			}
			left -= stretch
		}
	}
	for i := range n {
		b.Field(len(ev.Fields)).(*array.Int64Builder).Append(int64(i / 100))
		b.Field(len(ev.Fields) + 1).(*array.Int32Builder).Append(int32(i))
	}
	return b.NewRecord()
}

// appendNumbered appends the value that belongs to a number; outermost: the least or the greatest of the type.
func appendNumbered(r *rand.Rand, to array.Builder, t schemas.Type, n int64, outermost bool) {
	pick := func(lo, hi int64) int64 {
		switch {
		case !outermost:
			return n
		case n == 0:
			return lo
		}
		return hi
	}
	switch b := to.(type) {
	case *array.StringBuilder:
		if outermost {
			b.Append([]string{"", strings.Repeat("\U0010FFFF", r.IntN(40_000))}[n])
		} else {
			b.Append(fmt.Sprintf("the text of number %d", n))
		}
	case *array.BooleanBuilder:
		b.Append(pick(0, 1)%2 != 0)
	case *array.Int64Builder:
		b.Append(pick(math.MinInt64, math.MaxInt64))
	case *array.Float64Builder:
		if outermost {
			b.Append([]float64{-math.MaxFloat64, math.MaxFloat64}[n])
		} else {
			b.Append(float64(n) / 8)
		}
	case *array.Decimal128Builder:
		most := decimal128.GetMaxValue(int32(t.Precision))
		if outermost {
			b.Append([]decimal128.Num{most.Negate(), most}[n])
		} else {
			b.Append(decimal128.FromI64(n))
		}
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(pick(minUS, maxUS)))
	case *array.Date32Builder:
		if !outermost {
			n %= -minDay
		}
		b.Append(arrow.Date32(pick(minDay, maxDay)))
	}
}
