package history

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go"

	"watershed/schemas"
)

// A file of several row groups is read whole and group by group. Its texts outgrow their dictionary in the first
// group, so that pages with and without one stand in a chunk, and begin with a few in the last.
func TestScanGroups(t *testing.T) {
	const rows = 2*rowGroupRows + 1000
	ev := plus(smallEvent("groups"), schemas.Field{Name: "text", Type: schemas.Type{Kind: schemas.String}, Optional: true})
	text := func(i int) string {
		if i < rowGroupRows {
			return fmt.Sprintf("text number %d", i)
		}
		return fmt.Sprint(i % 3)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	for i := range rows {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprint(i))
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(i))
		b.Field(2).(*array.Int64Builder).Append(int64(i) * 7)
		if i%5 == 0 {
			b.Field(3).AppendNull()
		} else {
			b.Field(3).(*array.StringBuilder).Append(text(i))
		}
		b.Field(4).(*array.Int64Builder).Append(1)
		b.Field(5).(*array.Int32Builder).Append(int32(i))
	}
	table := mustOpen(t, t.TempDir(), ev)
	addFile(t, table, b.NewRecord(), 0, testApp, 1)
	f := snapshot(t, table).Files[0]
	groups, err := table.RowGroups(f)
	if err != nil || len(groups) != 3 || groups[0] != rowGroupRows || groups[1] != rowGroupRows || groups[2] != rows-2*rowGroupRows {
		t.Fatalf("row groups of %v, %v", groups, err)
	}
	read := func(from, to, first, n int) {
		t.Helper()
		at, kinds := first, map[arrow.Type]bool{}
		err := table.ScanGroups(t.Context(), f, []string{"n", "text", schemas.RowColumn}, from, to, func(rec arrow.Record) error {
			kinds[rec.Column(1).DataType().ID()] = true
			for i := range int(rec.NumRows()) {
				got := "null"
				if rec.Column(1).IsValid(i) {
					got = rec.Column(1).ValueStr(i)
				}
				want := text(at)
				if at%5 == 0 {
					want = "null"
				}
				if v := rec.Column(0).(*array.Int64).Value(i); v != int64(at)*7 || int(rec.Column(2).(*array.Int32).Value(i)) != at || got != want {
					return fmt.Errorf("row %d reads %d, %q", at, v, got)
				}
				at++
			}
			return nil
		})
		if err != nil || at != first+n {
			t.Fatalf("groups %d to %d end at %d, not %d: %v", from, to, at, first+n, err)
		}
		if mixed := len(kinds) == 2; mixed != (from == 0 && to > 0) {
			t.Errorf("groups %d to %d come as %v", from, to, kinds)
		}
	}
	read(0, 1, 0, rowGroupRows)
	read(1, 2, rowGroupRows, rowGroupRows)
	read(2, 9, 2*rowGroupRows, 1000)
	read(1, 3, rowGroupRows, rowGroupRows+1000)
	read(0, 3, 0, rows)
	read(3, 4, rows, 0)
}

// Numbers that outgrow their dictionary within a row group go on without it, and have one again in the next.
func TestNumbersOutgrowTheirDictionary(t *testing.T) {
	const rows = rowGroupRows + 3*pageRows
	c, root := readableRoot(t)
	ev := plus(smallEvent("numbers"), schemas.Field{Name: "x", Type: schemas.Type{Kind: schemas.Float64}})
	number := func(i int) int64 {
		if i < rowGroupRows {
			return int64(i) - 1000
		}
		return int64(i % 3)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	for i := range rows {
		b.Field(0).(*array.StringBuilder).Append("one")
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(number(i)))
		b.Field(2).(*array.Int64Builder).Append(number(i) * 7)
		b.Field(3).(*array.Float64Builder).Append(float64(number(i)) / 2)
		b.Field(4).(*array.Int64Builder).Append(1)
		b.Field(5).(*array.Int32Builder).Append(int32(i))
	}
	rec := b.NewRecord()
	table := mustOpen(t, root, ev)
	group := parquet.Group{}
	for _, f := range ownFields(ev) {
		node, err := form{&parquet.RLEDictionary, &parquet.Snappy}.node(f)
		if err != nil {
			t.Fatal(err)
		}
		group[f.Name] = node
	}
	w, err := table.newFileAs(0, newFileName(), parquet.NewSchema(ev.Name, group))
	if err != nil {
		t.Fatal(err)
	}
	defer w.abort()
	if err := w.write(rec, nil); err != nil {
		t.Fatal(err)
	}
	a, err := w.close(false, false)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(table.dir, w.path)
	checkPages(t, name, a.Size, rec)
	at := 0
	err = table.Scan(t.Context(), File{Path: w.path, Size: a.Size, Rows: rows}, []string{"time", "n", "x", schemas.RowColumn}, func(rec arrow.Record) error {
		for i := range int(rec.NumRows()) {
			n := number(at)
			if rec.Column(0).(*array.Timestamp).Value(i) != arrow.Timestamp(n) || rec.Column(1).(*array.Int64).Value(i) != 7*n ||
				rec.Column(2).(*array.Float64).Value(i) != float64(n)/2 || rec.Column(3).(*array.Int32).Value(i) != int32(at) {
				return fmt.Errorf("row %d differs", at)
			}
			at++
		}
		return nil
	})
	if err != nil || at != rows {
		t.Fatalf("%d rows, %v", at, err)
	}
	for _, engine := range []reader{inClickHouse(c), inDuckDB()} {
		statements, want := engine.filters(newRand(7).IntN, ev, rec, name)
		for i, got := range engine.query(t, statements) {
			if strings.Join(got, " ") != want[i] {
				t.Errorf("%s answers %s with %s; want %s", engine.name, statements[i], got, want[i])
			}
		}
	}
}
